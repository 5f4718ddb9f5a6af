"""Whether a gate's score says what a decision was worth: regret, ranking, calibration.

Everything here stands on a trace and on the cells of ``skipviz.audit``. A decision is right when it
executes a unit whose utility is more than its FLOPs are worth at a price, and skips it otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.analysis.flops import saved_flops
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, block_of
from skipviz.analysis.statistics.intervals import clustered_margin
from skipviz.arrays import Bools, Floats, Ints
from skipviz.traces import Trace

RELIABILITY_BINS = 10
CALIBRATION_FOLDS = 5
CALIBRATION_BLOCKS = 20
"""Blocks of tokens, at least, whose misses get random signs."""
CALIBRATION_DRAWS = 999


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well scores tell the units that are worth executing.

    Attributes
    ----------
    cells
        Decisions looked at.
    worth
        Share of them in which executing is worth its FLOPs, 0 to 1.
    right
        Share decided rightly, 0 to 1.
    auroc
        Probability that a unit worth executing scores above one that is not; 0.5 is chance. NaN
        where all are alike.
    average_precision
        Area under precision over recall; ``worth`` is chance.
    calibration_error
        Expected calibration error of the score, made a probability by a logistic regression on
        other tokens: mean distance from predicted to true share over bins, 0 to 1. NaN where there
        are too few tokens, or all are alike.
    calibrated, calibrated_high
        The same of a perfectly calibrated score on so many decisions, which is not 0: the mean and
        the 95th percentile.
    regret
        Nats lost against the better decisions, over all cells.
    """

    cells: int
    worth: float
    right: float
    auroc: float
    average_precision: float
    calibration_error: float
    calibrated: float
    calibrated_high: float
    regret: float


def judged(trace: Trace, cells: pl.DataFrame, *, price: float = 0.0) -> pl.DataFrame:
    """Return the cells of an audit with what they cost and whether they were right.

    Parameters
    ----------
    trace
        The audited trace.
    cells
        What ``skipviz.audit`` returned.
    price
        Nats that a FLOP is worth.

    Returns
    -------
    pl.DataFrame
        ``cells`` and ``label``, ``layer``, ``unit``; ``margin``, by how much the score speaks for
        executing, on its own scale; ``flops`` that skipping saves; ``net`` = utility - price x
        flops, in nats; ``worth``, whether executing is worth it; ``regret``, in nats, 0 where the
        decision was right.
    """
    token, site = cells["token"].to_numpy(), cells["site"].to_numpy()
    return (
        cells.join(
            trace.sites.select("site", "label", "layer", "unit"),
            on="site",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            margin=pl.Series(trace.margin[token, site], dtype=pl.Float64),
            flops=pl.Series(saved_flops(trace)[token, site]),
        )
        .with_columns(net=pl.col("utility") - price * pl.col("flops"))
        .with_columns(worth=pl.col("net") > 0)
        .with_columns(
            regret=pl.when(pl.col("worth") == pl.col("executed"))
            .then(0.0)
            .otherwise(pl.col("net").abs())
        )
    )


def implied_price(trace: Trace, cells: pl.DataFrame) -> float:
    """Return what a FLOP is worth in nats if the budget was well spent.

    It is the price at which executing what is worth it would spend the FLOPs that were spent: the
    utility per FLOP of the last unit that a perfect gate could afford.

    Parameters
    ----------
    trace
        The audited trace.
    cells
        What ``skipviz.audit`` returned.

    Returns
    -------
    float
        0 if all units of use could be afforded.
    """
    priced = judged(trace, cells).sort(pl.col("utility") / pl.col("flops"), descending=True)
    spent = float(priced.filter("executed")["flops"].sum())
    rate = (priced["utility"] / priced["flops"]).to_numpy()
    used = np.cumsum(priced["flops"].to_numpy())
    last = int(np.searchsorted(used, spent))
    return max(0.0, float(rate[min(last, len(rate) - 1)]))


def greedy_execution(trace: Trace, cells: pl.DataFrame) -> Bools:
    """Return the decisions of a policy that knows the utilities and spends what the gates spent.

    Cells are executed in order of utility per FLOP. Utilities are of single flips and do not add
    up, so this is no bound on what gates could reach.

    Parameters
    ----------
    trace
        The audited trace.
    cells
        What ``skipviz.audit`` returned, of every cell.

    Returns
    -------
    numpy.ndarray
        [tokens, sites]; the last token, which no cell is of, keeps its decisions.
    """
    priced = judged(trace, cells).sort(pl.col("utility") / pl.col("flops"), descending=True)
    spent = float(priced.filter("executed")["flops"].sum())
    used = np.cumsum(priced["flops"].to_numpy())
    made = trace.matrix("exec_count") > 0
    made[priced["token"].to_numpy(), priced["site"].to_numpy()] = used <= spent
    return made


def quality(cells: pl.DataFrame, *, seed: int = 0) -> Quality:
    """Return how well the score tells what is worth executing.

    Parameters
    ----------
    cells
        What ``judged`` returned, or part of it.
    seed
        Seed of what a perfectly calibrated score gives.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    worth = cells["worth"].to_numpy().astype(np.bool_)
    margin = cells["margin"].to_numpy().astype(np.float64)
    mixed = 0 < worth.sum() < len(worth)
    token = cells["token"].to_numpy()
    error, calibrated, high = _calibration_error(margin, worth, token, seed=seed)
    return Quality(
        cells=len(worth),
        worth=float(worth.mean()),
        right=float((cells["worth"] == cells["executed"]).to_numpy().mean()),
        auroc=float(roc_auc_score(worth, margin)) if mixed else float("nan"),
        average_precision=float(average_precision_score(worth, margin)) if mixed else float("nan"),
        calibration_error=error,
        calibrated=calibrated,
        calibrated_high=high,
        regret=float(cells["regret"].sum()),
    )


def reliability(cells: pl.DataFrame, *, bins: int = RELIABILITY_BINS) -> pl.DataFrame:
    """Return, for equal parts of the cells by margin, what their units were worth.

    Parameters
    ----------
    cells
        What ``judged`` returned.
    bins
        How many parts.

    Returns
    -------
    pl.DataFrame
        One row a bin: ``bin``, ``cells``, mean ``margin``, share ``worth`` and ``executed``, and
        mean ``utility`` and ``net`` in nats, with ``net_margin``, half its 95% interval, in which
        a block of neighbouring tokens counts as one draw; null where there is a single one.
    """
    rank = pl.col("margin").rank("ordinal") - 1
    parts = cells.with_columns(bin=(rank * bins // pl.len()).cast(pl.Int64))
    margins = [
        {"bin": place, "net_margin": _net_margin(part)}
        for (place,), part in parts.group_by("bin", maintain_order=True)
    ]
    schema = {"bin": pl.Int64, "net_margin": pl.Float64}
    return (
        parts.group_by("bin")
        .agg(
            cells=pl.len(),
            margin=pl.col("margin").mean(),
            worth=pl.col("worth").mean(),
            executed=pl.col("executed").mean(),
            utility=pl.col("utility").mean(),
            net=pl.col("net").mean(),
        )
        .join(pl.DataFrame(margins, schema=schema), on="bin")
        .with_columns(pl.col("net_margin").fill_nan(None))
        .sort("bin")
    )


def _net_margin(cells: pl.DataFrame) -> float:
    return clustered_margin(
        cells["net"].to_numpy().astype(np.float64), block_of(cells["token"].to_numpy())
    )


def quality_by(cells: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return the quality of each part of the cells.

    Parameters
    ----------
    cells
        What ``judged`` returned.
    by
        The column that parts them: ``label``, ``layer``, ``unit`` or one joined to them.

    Returns
    -------
    pl.DataFrame
        One row a part, in order of first appearance: ``by`` and the fields of ``Quality``.
    """
    parts = cells.partition_by(by, maintain_order=True)
    rows = [{by: part[by][0], **vars(quality(part))} for part in parts]
    return pl.DataFrame(rows)


def controls(cells: pl.DataFrame, *, seed: int = 0) -> dict[str, Quality]:
    """Return the quality of scores that know nothing, and of the sites' averages alone.

    Parameters
    ----------
    cells
        What ``judged`` returned.
    seed
        Seed of the draws.

    Returns
    -------
    dict
        ``random``, scores drawn anew; ``shuffled``, each site's scores given to other tokens of
        it: what is left is what the site knows without looking at the token.
    """
    generator = np.random.default_rng(seed)
    drawn = cells.with_columns(margin=pl.Series(generator.standard_normal(cells.height)))
    shuffled = cells.with_columns(order=pl.Series(generator.random(cells.height))).with_columns(
        margin=pl.col("margin").sort_by("order").over("site")
    )
    return {"random": quality(drawn, seed=seed), "shuffled": quality(shuffled, seed=seed)}


def _calibration_error(
    margin: Floats, worth: Bools, token: Ints, *, seed: int
) -> tuple[float, float, float]:
    """Return the calibration error, and mean and 95th percentile of a perfectly calibrated score's.

    What such a score misses by is as likely above as below. So in each draw what blocks of tokens
    miss by gets random signs, which keeps that decisions on neighbouring tokens are alike.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    blocks = block_of(token)
    folds = min(CALIBRATION_FOLDS, len(np.unique(blocks)))
    if folds < 2 or not 0 < worth.sum() < len(worth):
        return float("nan"), float("nan"), float("nan")
    scaled = (margin - margin.mean())[:, None] / max(float(margin.std()), 1e-12)
    try:
        predicted = cross_val_predict(
            LogisticRegression(), scaled, worth, groups=blocks, cv=GroupKFold(folds),
            method="predict_proba",
        )[:, 1]  # fmt: skip
    except ValueError:  # a fold with one class alone has nothing to learn from
        return float("nan"), float("nan"), float("nan")
    off = predicted - worth
    part = np.empty(len(worth), dtype=np.int64)
    part[np.argsort(predicted, kind="stable")] = (
        np.arange(len(worth)) * RELIABILITY_BINS // len(worth)
    )
    # Of few blocks there are few signs, so those of a short text are shorter.
    known, place = np.unique(token, return_inverse=True)
    block = place // max(1, min(BLOCK_TOKENS, len(known) // CALIBRATION_BLOCKS))
    sums = np.zeros((block.max() + 1, RELIABILITY_BINS))
    np.add.at(sums, (block, part), off)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(CALIBRATION_DRAWS, len(sums)))
    drawn = np.abs(signs @ sums).sum(axis=1) / len(worth)
    own = float(np.abs(sums.sum(axis=0)).sum() / len(worth))
    return own, float(drawn.mean()), float(np.quantile(drawn, 0.95))
