"""Holds a skipping model against its dense backbone on text that neither was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import optimize, stats

from skipviz.analysis.cost import execution_rates, realised_budget
from skipviz.families import Plan
from skipviz.families.gated_modules import set_threshold
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


def calibrate(
    gated: SkipModel,
    documents: Sequence[Document],
    *,
    budget: float,
    start: float = 0.0,
    tolerance: float = 0.002,
    attempts: int = 8,
) -> float:
    """Find the threshold at which the model realises a budget on the documents, and set it.

    Parameters
    ----------
    gated
        A gated model; its threshold is changed.
    documents
        Calibration texts; never those that are reported on.
    budget
        The budget to realise.
    start
        The threshold to try first, such as the one that training ended with.
    tolerance
        How near is near enough.
    attempts
        Runs over the documents, at most.

    Raises
    ------
    ValueError
        If the budget is not reached in that many runs.
    """
    threshold = start
    for _ in range(attempts):
        set_threshold(gated.model, threshold)
        seen = trace(gated, documents, statistics=False)
        excess = realised_budget(seen) - budget
        if abs(excess) <= tolerance:
            return threshold
        threshold = threshold_for(seen, budget)
    raise ValueError(
        f"No threshold realised budget {budget} within {tolerance} in {attempts} runs; the last "
        f"was {excess:+.4f} off. Choose a budget nearer to the one the gates were trained for."
    )


def threshold_for(seen: Trace, budget: float) -> float:
    """Return the threshold that would realise the budget if no score changed with it.

    Scores do change, downstream of other decisions, so the caller runs again and looks.

    Parameters
    ----------
    seen
        A trace of learned gates.
    budget
        The budget to realise.

    Raises
    ------
    ValueError
        If running or skipping everything does not get there.
    """
    score = seen.matrix("score")

    def excess(threshold: float) -> float:
        executed = (score > threshold).astype(np.uint8)
        return realised_budget(
            replace(seen, matrices={**seen.matrices, "exec_count": executed})
        ) - (budget)

    low, high = float(score.min()) - 1, float(score.max())
    if not excess(high) <= 0 <= excess(low):
        raise ValueError(
            f"Budget {budget} is out of reach: skipping all leaves {excess(high) + budget:.3f} "
            f"and running everything {excess(low) + budget:.3f}. Choose one in between."
        )
    return float(optimize.brentq(excess, low, high, xtol=1e-4))


def _shuffled(learned: Trace, sequence: int, generator: np.random.Generator) -> Plan:
    rows = (learned.tokens["sequence"] == sequence).to_numpy()
    executed = learned.matrix("exec_count")[rows] > 0
    return Plan(generator.permuted(executed, axis=0))
