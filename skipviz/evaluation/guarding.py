"""The cheapest threshold whose loss over dense stays under a limit, with stated confidence.

Learn then Test: thresholds are tested from the safest to the cheapest, each at the full error
rate, and the last one before the first failure is taken (fixed-sequence testing controls the
family-wise error; Angelopoulos et al., "Learn then test", 2021; used for early exits by Schuster
et al., "Confident adaptive language modeling", 2022). There the loss is bounded and the p-value is
Hoeffding's. A loss in nats has no bound, and without one no promise holds for every distribution.
So there are two tests, and each assumes something:

- of the mean itself, by Student's t over documents: it holds for a mean over enough documents, and
  fails where rare documents lose far more than the others;
- of the mean of losses clipped at a stated bound, by betting: it holds for any distribution and any
  number of documents, and says nothing of what a document loses beyond the bound.

Both take documents for independent draws of one population. The sequence of thresholds should be
fixed before the texts are seen; here it is one of budgets, and which threshold meets a budget is
read from the scores, never from the losses, of the same texts.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.flops import realised_budget
from skipviz.analysis.gates.budget_threshold import threshold_for
from skipviz.arrays import Floats
from skipviz.errors import InputError
from skipviz.evaluation.bounded_means import betting_p_value
from skipviz.evaluation.losses import document_losses
from skipviz.models import SkipModel, at_threshold
from skipviz.progress import Say, say_nothing
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.text.spans import encode

BUDGETS = tuple(round(0.98 - 0.02 * step, 2) for step in range(20))
"""Budgets whose thresholds are tested, from the safest."""
FEWEST_DOCUMENTS = 20


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A threshold and what it promises.

    Attributes
    ----------
    threshold
        Of every gate.
    limit, confidence
        With this confidence, the mean loss over dense stays under ``limit`` nats per token on texts
        like those of the calibration.
    clip
        The bound in nats at which a document's loss over dense was clipped before its mean was
        taken; None where it was not, and Student's t was the test.
    tested
        One row a threshold, in the order tested: ``threshold``, ``realised``, ``gap``, ``p`` and
        ``passed``.
    """

    threshold: float
    limit: float
    confidence: float
    clip: float | None
    tested: pl.DataFrame


def guard(
    gated: SkipModel,
    dense: SkipModel,
    documents: Sequence[Document],
    *,
    limit: float,
    confidence: float = 0.95,
    clip: float | None = None,
    say: Say = say_nothing,
    stop: threading.Event | None = None,
) -> Guard:
    """Find the cheapest threshold that keeps its promise.

    Parameters
    ----------
    gated, dense
        A model of learned gates, which stays as it is, and its backbone.
    documents
        Calibration texts, at least twenty, each of two tokens or more; never those that are
        reported on.
    limit
        Nats per token over dense that the mean may not exceed.
    confidence
        Probability, over calibration texts, that the promise holds; 0 to 1.
    clip
        None promises a limit of the mean loss, which holds where documents are many and none of
        them loses far more than the others. A number of nats promises it of losses clipped there,
        whatever their distribution: a document that loses more counts as losing that.
    say
        Called with a sentence before each run.
    stop
        Set it from another thread to stop.

    Raises
    ------
    ValueError
        If there are too few documents, one is too short, ``limit`` or ``confidence`` is out of
        range, or even the safest threshold does not pass or is out of reach.
    Stopped
        If ``stop`` was set.
    """
    if len(documents) < FEWEST_DOCUMENTS:
        raise InputError(
            f"{len(documents)} documents are too few to promise anything on; give at least "
            f"{FEWEST_DOCUMENTS}."
        )
    if not 0 < limit < float("inf") or not 0 < confidence < 1:
        raise InputError(
            f"limit={limit} must be a number of nats above 0 and confidence={confidence} between "
            "0 and 1."
        )
    if clip is not None and not limit < clip < float("inf"):
        raise InputError(
            f"clip={clip} must be above the limit, {limit} nats; give a bound such as 1."
        )
    for document in documents:
        if len(encode(gated.tokenizer, document.text).ids) < 2:
            raise InputError(
                f"{document.source!r} is a single token, so there is no loss in it to promise "
                "anything on; leave it out."
            )
    say("Running the dense model")
    reference = document_losses(trace(dense, documents, stop=stop))
    seen = trace(gated, documents, statistics=False, stop=stop)
    rows: list[dict[str, Any]] = []
    for budget in BUDGETS:
        try:
            threshold = threshold_for(seen, budget)
        except InputError:
            # With few gated layers the cheaper budgets are out of reach; what passed still holds.
            if rows:
                break
            raise
        say(f"Testing about budget {budget:z.0%}")
        seen = trace(at_threshold(gated, threshold), documents, stop=stop)
        gaps = document_losses(seen) - reference
        p = _p_value(gaps, limit, clip, confidence)
        passed = p <= 1 - confidence
        rows.append(
            {
                "threshold": threshold,
                "realised": realised_budget(seen),
                "gap": float(np.mean(gaps)),
                "p": p,
                "passed": passed,
            }
        )
        if not passed:
            break
    tested = pl.DataFrame(rows)
    kept = tested.filter("passed")
    if kept.is_empty():
        raise InputError(
            f"Even at budget {rows[0]['realised']:z.3f} the loss over dense, "
            f"{rows[0]['gap']:z.3f} nats, is not below {limit} with this confidence. Raise the "
            "limit, or give more calibration texts"
            + ("." if clip is None else f" (a bound of {clip:g} nats takes many).")
        )
    return Guard(
        threshold=float(kept["threshold"][-1]),
        limit=limit,
        confidence=confidence,
        clip=clip,
        tested=tested,
    )


def _p_value(gaps: Floats, limit: float, clip: float | None, confidence: float) -> float:
    if clip is not None:
        return betting_p_value(gaps, limit, bound=clip, confidence=confidence)
    return float(stats.ttest_1samp(gaps, limit, alternative="less").pvalue)
