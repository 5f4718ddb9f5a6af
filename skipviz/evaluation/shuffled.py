"""Whether it matters which tokens skip: the same decisions, given to other tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.analysis.cost import execution_rates
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
    own, shuffled
        Loss with the gates' decisions, and with each site's decisions shuffled among the tokens of
        a document.
    cost
        The second minus the first, paired.
    rates
        Execution rate of each site.
    """

    own: Estimate
    shuffled: Estimate
    cost: Estimate
    rates: pl.DataFrame


def shuffle_decisions(
    gated: SkipModel,
    documents: Sequence[Document],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Shuffled:
    """Measure what it is worth that these tokens skip and no others.

    Parameters
    ----------
    gated
        A model of gates.
    documents
        Texts, one trace sequence each.
    seed
        Seed of the shuffles and of the bootstrap.
    progress
        Called with the share of the work done, 0 to 1.
    """
    learned = trace(gated, documents)
    progress(0.5)
    own = document_losses(learned)
    generator = np.random.default_rng(seed)
    losses = []
    for number, document in enumerate(documents):
        plan = _plan(learned, number, generator)
        losses.append(document_losses(trace(gated, document, plan=plan))[0])
        progress(0.5 + 0.5 * (number + 1) / len(documents))
    shuffled = np.array(losses)
    return Shuffled(
        own=estimate(own, seed=seed),
        shuffled=estimate(shuffled, seed=seed),
        cost=estimate(shuffled - own, seed=seed),
        rates=execution_rates(learned),
    )


def _plan(learned: Trace, sequence: int, generator: np.random.Generator) -> Plan:
    rows = (learned.tokens["sequence"] == sequence).to_numpy()
    executed = learned.matrix("exec_count")[rows] > 0
    return Plan(generator.permuted(executed, axis=0))
