"""Whether it matters which tokens skip: the same decisions, given to other tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.analysis.flops import execution_rates
from skipviz.analysis.statistics.intervals import NOT_NEGATIVE
from skipviz.arrays import Bools
from skipviz.evaluation.losses import Estimate, document_losses, estimate
from skipviz.families import Plan
from skipviz.models import SkipModel
from skipviz.progress import Progress, no_progress
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """Gates' own decisions and shuffled ones on the same documents.

    Attributes
    ----------
    own
        Loss with the gates' decisions.
    by_site
        Loss with each site's decisions given to other tokens of the document, independently at each
        site. Tokens then get mixtures of decisions that the gates never chose, most of them of
        about average depth, so this says two things at once.
    by_token
        Loss with a token's decisions at all sites given to another token, whole: the combinations
        and depths are the gates' own, and only the tokens are others.
    by_site_cost, by_token_cost
        The loss of each minus ``own``, paired.
    rates
        Execution rate of each site, which shuffling leaves as it is.
    """

    own: Estimate
    by_site: Estimate
    by_token: Estimate
    by_site_cost: Estimate
    by_token_cost: Estimate
    rates: pl.DataFrame


def shuffle_decisions(
    gated: SkipModel,
    documents: Sequence[Document],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Shuffled:
    """Measure what it is worth that these tokens skip and no others.

    Parameters
    ----------
    gated
        A model of gates.
    documents
        Texts, one trace sequence each, at most as long as the model's context.
    seed
        Seed of the shuffles and of the bootstrap.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    InputError
        If a document is longer than the model's context.
    Stopped
        If ``stop`` was set.
    """
    learned = trace(gated, documents, stop=stop, progress=lambda share: progress(share / 3))
    own = document_losses(learned)
    sites, tokens = (np.random.default_rng(each) for each in (seed, [seed, 1]))
    losses = []
    for number, document in enumerate(documents):
        executed = _executed(learned, number)
        plans = (sites.permuted(executed, axis=0), tokens.permutation(executed, axis=0))
        losses.append(
            [
                document_losses(trace(gated, document, plan=Plan(plan), stop=stop))[0]
                for plan in plans
            ]
        )
        progress(1 / 3 + 2 / 3 * (number + 1) / len(documents))
    by_site, by_token = np.array(losses).T
    return Shuffled(
        own=estimate(own, seed=seed, bounds=NOT_NEGATIVE),
        by_site=estimate(by_site, seed=seed, bounds=NOT_NEGATIVE),
        by_token=estimate(by_token, seed=seed, bounds=NOT_NEGATIVE),
        by_site_cost=estimate(by_site - own, seed=seed),
        by_token_cost=estimate(by_token - own, seed=seed),
        rates=execution_rates(learned),
    )


def _executed(learned: Trace, sequence: int) -> Bools:
    rows = (learned.tokens["sequence"] == sequence).to_numpy()
    found: Bools = learned.matrix("exec_count")[rows] > 0
    return found
