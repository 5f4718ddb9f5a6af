"""Holds a skipping model against its dense backbone on text that neither was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from skipviz.analysis.cost import execution_rates, realised_budget
from skipviz.families import Plan
from skipviz.models import SkipModel
from skipviz.models.load import at_budget
from skipviz.recording.tracing import trace
from skipviz.texts import Document
from skipviz.trace import Trace

Losses = npt.NDArray[np.float64]
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over documents with its 95% bootstrap interval, in nats a token.

    Attributes
    ----------
    mean, low, high
        The mean, and the interval's ends.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A skipping model and its dense backbone on the same documents.

    Attributes
    ----------
    documents, tokens
        How many.
    budget
        Budget realised on these documents.
    dense, gated, gap
        Loss of the backbone, of the skipping model, and the second minus the first, paired.
    shuffled, shuffle_cost
        Loss with each site's decisions shuffled among the tokens of a document, and what that
        costs over the model's own decisions, paired.
    rates
        Execution rate of each site.
    elsewhere
        At each further budget of the model: the budget realised, and the gap.
    """

    documents: int
    tokens: int
    budget: float
    dense: Estimate
    gated: Estimate
    gap: Estimate
    shuffled: Estimate
    shuffle_cost: Estimate
    rates: pl.DataFrame
    elsewhere: dict[str, tuple[float, Estimate]]


def evaluate(
    gated: SkipModel,
    dense: SkipModel,
    documents: Sequence[Document],
    *,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure what skipping costs, and whether it matters which tokens skip.

    Parameters
    ----------
    gated, dense
        The skipping model and its backbone. A model that has further budgets is left at the last.
    documents
        Held-out texts, one trace sequence each.
    seed
        Seed of the shuffles and of the bootstrap.
    progress
        Called with the name of each stage.
    """
    progress("dense")
    dense_loss = document_losses(trace(dense, documents))
    progress("gated")
    learned = trace(gated, documents)
    gated_loss = document_losses(learned)
    progress("shuffled")
    generator = np.random.default_rng(seed)
    shuffled_loss = np.array(
        [
            document_losses(trace(gated, document, plan=_shuffled(learned, number, generator)))[0]
            for number, document in enumerate(documents)
        ]
    )
    elsewhere = {}
    for asked in _further_budgets(gated):
        progress(f"budget {asked:g}")
        seen = trace(at_budget(gated, asked), documents)
        gap = estimate(document_losses(seen) - dense_loss, seed=seed)
        elsewhere[f"{asked:g}"] = (realised_budget(seen), gap)
    return Evaluation(
        documents=len(documents),
        tokens=len(learned),
        budget=realised_budget(learned),
        dense=estimate(dense_loss, seed=seed),
        gated=estimate(gated_loss, seed=seed),
        gap=estimate(gated_loss - dense_loss, seed=seed),
        shuffled=estimate(shuffled_loss, seed=seed),
        shuffle_cost=estimate(shuffled_loss - gated_loss, seed=seed),
        rates=execution_rates(learned),
        elsewhere=elsewhere,
    )


def _further_budgets(gated: SkipModel) -> list[float]:
    if gated.settings is None:
        return []
    return [budget for each in gated.settings.budgets if (budget := float(each)) != gated.budget]


def document_losses(traced: Trace) -> Losses:
    """Return each document's mean loss in nats a token, in order."""
    means = traced.tokens.group_by("sequence", maintain_order=True).agg(pl.col("nll").mean())
    return means["nll"].to_numpy().astype(np.float64)


def estimate(losses: Losses, *, seed: int) -> Estimate:
    """Return the mean over documents and its 95% percentile bootstrap interval.

    A single document has no interval: its ends are the mean.
    """
    if len(losses) == 1:
        return Estimate(*[float(losses[0])] * 3)
    interval = stats.bootstrap(
        (losses,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(float(losses.mean()), float(interval.low), float(interval.high))


def _shuffled(learned: Trace, sequence: int, generator: np.random.Generator) -> Plan:
    rows = (learned.tokens["sequence"] == sequence).to_numpy()
    executed = learned.matrix("exec_count")[rows] > 0
    return Plan(generator.permuted(executed, axis=0))
