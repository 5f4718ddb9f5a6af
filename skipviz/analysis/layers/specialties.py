"""Which tokens run each site: how execution goes with classes of tokens.

Neighbouring tokens are alike, in class and in what runs for them, so tests that take tokens for
independent find specialties in noise. Here p-values come from moving whole blocks of decisions
about, and intervals from the spread between blocks. Of several texts blocks move within each, so
that p-values ask what holds within texts: whole texts differ in class and in what runs alike.
Intervals are of the rates over all texts; where there are many, from the spread between these.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.statistics.blocks import (
    BLOCK_TOKENS,
    block_permutations,
    dependent_groups,
    tokens_by_text,
)
from skipviz.analysis.statistics.correlation import PERMUTATIONS
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE, with_q_values
from skipviz.arrays import Bools, Floats, Ints
from skipviz.errors import InputError
from skipviz.progress import Progress, no_progress
from skipviz.traces import Trace

MIN_CLASS_TOKENS = 10
"""Tokens that a class must have, and leave outside, to be looked at."""


def specialties(
    trace: Trace,
    classes: pl.DataFrame,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return how the execution of each site goes with each class of tokens.

    Parameters
    ----------
    trace
        A trace with sites.
    classes
        One row per token of the trace: every column of strings is a feature and parts the tokens
        into classes, null being none of them, such as ``token_classes`` returns.
    permutations
        How often blocks of tokens change places, within their text, for the p-values.
    seed
        Seed of that.
    progress
        Called with the share of the work done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        One row a class and site, classes with fewer than ``MIN_CLASS_TOKENS`` tokens in or out
        left out: ``feature``, ``class``, ``site``, ``label``, ``layer``, ``unit``, ``visit``;
        ``tokens`` of the class; ``rate`` and ``rate_outside``, shares executed among them and
        among all others; ``log_odds`` of executing, inside over outside, with its 95% interval
        ``low`` to ``high``; ``mutual_information`` of being in the class and executing, in nats;
        ``p``, and ``q`` after Benjamini and Hochberg over the table. A site that ran for all
        tokens or for none has no log-odds and no p; one that decides for more than a token at
        once has no p.

        The log-odds add half a token to each count (Haldane, "The estimation and significance of
        the logarithm of a ratio of frequencies", 1956). Their variance is summed over
        ``dependent_groups`` (Liang and Zeger, "Longitudinal data analysis using generalized linear
        models", 1986), and never less than that of independent tokens.

    Raises
    ------
    ValueError
        If the classes are not of these tokens, or have no column of strings.
    """
    features = [name for name, dtype in classes.schema.items() if dtype == pl.String]
    if classes.height != len(trace):
        raise InputError(
            f"There are classes of {classes.height} tokens and {len(trace)} tokens in the trace; "
            "give a row for each token."
        )
    if not features:
        raise InputError(
            f"None of the columns {', '.join(classes.columns)} holds strings, so there are no "
            "classes; give what token_classes returned."
        )
    named, members = memberships(classes.select(features))
    executed = trace.matrix("exec_count") > 0
    counts = _Counts(members, executed)
    documents = trace.tokens["sequence"].to_numpy()
    orders = block_permutations(
        len(trace),
        permutations,
        block=BLOCK_TOKENS,
        generator=np.random.default_rng(seed),
        documents=documents,
    )
    p = _p_values(members, executed, orders, progress=progress)
    # One decision for a whole text is not one for each of its tokens.
    p[:, trace.sites["scope"].to_numpy() != "token"] = np.nan
    log_odds = counts.log_odds()
    groups = tokens_by_text(dependent_groups(documents))
    spread = _grouped_variance(members, executed, counts, groups)
    error = np.sqrt(np.maximum(counts.variance(), spread))
    # Student's, since the spread of few groups is itself uncertain.
    width = error * stats.t.ppf(0.975, max(1, len(groups) - 1))
    figures = {
        "rate": counts.both / counts.size,
        "rate_outside": (counts.ran - counts.both) / (len(trace) - counts.size),
        "log_odds": log_odds,
        "low": log_odds - width,
        "high": log_odds + width,
        "mutual_information": counts.mutual_information(),
        "p": p,
    }
    constant = np.broadcast_to((counts.ran == 0) | (counts.ran == len(trace)), p.shape)
    for name in ("log_odds", "low", "high", "p"):
        figures[name] = np.where(constant, np.nan, figures[name])
    rows = named.with_columns(tokens=pl.Series(counts.size[:, 0], dtype=pl.Int64)).join(
        trace.sites.select("site", "label", "layer", "unit", "visit"),
        how="cross",
        maintain_order="left",
    )
    table = rows.with_columns(
        pl.Series(name, values.reshape(-1), dtype=pl.Float64) for name, values in figures.items()
    )
    table = with_q_values(table).with_columns(
        pl.col("log_odds", "low", "high", "p", "q").fill_nan(None)
    )
    return table.select(
        *("feature", "class", "site", "label", "layer", "unit", "visit", "tokens", "rate"),
        *("rate_outside", "log_odds", "low", "high", "mutual_information", "p", "q"),
    )


def memberships(classes: pl.DataFrame) -> tuple[pl.DataFrame, Bools]:
    """Return which tokens are in each class that has enough of them, in and out.

    Parameters
    ----------
    classes
        Columns of strings, a row per token.

    Returns
    -------
    tuple
        One row a class, ``feature`` and ``class``, the largest class of a feature first; and who
        is in it, [classes, tokens].
    """
    most = classes.height - MIN_CLASS_TOKENS
    rows, members = [], []
    for feature in classes.columns:
        counted = (
            classes[feature].drop_nulls().value_counts().sort("count", feature, descending=True)
        )
        for name, count in counted.rows():
            if MIN_CLASS_TOKENS <= count <= most:
                rows.append((feature, name))
                members.append((classes[feature] == name).fill_null(False).to_numpy())
    table = pl.DataFrame(rows, schema={"feature": pl.String, "class": pl.String}, orient="row")
    return table, np.array(members, dtype=np.bool_).reshape(len(rows), classes.height)


class _Counts:
    """Tokens in each class and executed at each site, and what follows from them alone.

    Attributes
    ----------
    both
        Tokens of a class that a site ran for, [classes, sites].
    size
        Tokens of each class, [classes, 1].
    ran
        Tokens that each site ran for, [1, sites].
    """

    def __init__(self, members: Bools, executed: Bools) -> None:
        self.both: Floats = members.astype(np.float64) @ executed
        self.size: Floats = members.sum(axis=1, keepdims=True).astype(np.float64)
        self.ran: Floats = executed.sum(axis=0, keepdims=True).astype(np.float64)
        self.tokens = len(executed)

    def cells(self) -> Floats:
        """Return the table of each pair, [4, classes, sites]: in and ran, in, ran, neither."""
        alone, others = self.size - self.both, self.ran - self.both
        return np.stack([self.both, alone, others, self.tokens - self.both - alone - others])

    def log_odds(self) -> Floats:
        a, b, c, d = self.cells() + 0.5
        found: Floats = np.log(a * d / (b * c))
        return found

    def variance(self) -> Floats:
        """Return the variance of the log-odds if tokens were independent (Woolf, 1955)."""
        found: Floats = (1 / (self.cells() + 0.5)).sum(axis=0)
        return found

    def mutual_information(self) -> Floats:
        from sklearn.metrics import mutual_info_score

        shape = self.both.shape
        tables = self.cells().reshape(2, 2, -1).transpose(2, 0, 1)
        each = [mutual_info_score(None, None, contingency=table) for table in tables]
        found: Floats = np.maximum(0.0, np.array(each)).reshape(shape)
        return found


def _grouped_variance(
    members: Bools, executed: Bools, counts: _Counts, groups: list[Ints]
) -> Floats:
    """Return the variance of the log-odds by the spread of what groups of tokens add to it."""
    ran = executed.astype(np.float64)
    a, b, c, d = counts.cells() + 0.5
    total: Floats = np.zeros(counts.both.shape)
    for tokens in groups:
        inside, part = members[:, tokens].astype(np.float64), ran[tokens]
        both, size = inside @ part, inside.sum(axis=1, keepdims=True)
        others, rest = part.sum(axis=0) - both, len(part) - size
        added = (both - size * a / (a + b)) * (1 / a + 1 / b)
        added -= (others - rest * c / (c + d)) * (1 / c + 1 / d)
        total += added**2
    # Few groups spread less around their own mean than around the true one.
    return total * len(groups) / max(1, len(groups) - 1)


def _p_values(members: Bools, executed: Bools, orders: Ints, *, progress: Progress) -> Floats:
    """Return p-values of each class and site, two-sided, [classes, sites].

    Blocks of classes are moved along the decisions. A thousand permutations cannot tell 1e-3 from
    1e-9, which a correction for thousands of tests needs; so their mean, variance and skewness give
    a Pearson III law, and that the p-value (Winkler et al., "Faster permutation inference in brain
    imaging", 2016).
    """
    ran = executed.astype(np.float32)
    inside = np.ascontiguousarray(members.T, dtype=np.float32)
    observed = (inside.T @ ran).astype(np.float64)
    permuted = np.empty((len(orders), *observed.shape))
    for place, order in enumerate(orders):
        progress(place / len(orders))
        permuted[place] = inside[order].T @ ran
    progress(1.0)
    centre, spread = permuted.mean(axis=0), permuted.std(axis=0, ddof=1)
    free = spread > 0
    spread = np.where(free, spread, 1.0)
    skew = (((permuted - centre) / spread) ** 3).mean(axis=0)
    distance = observed - centre
    # Counts are whole: half a token closer is what a continuous law must be asked for.
    distance -= np.sign(distance) * np.minimum(0.5, np.abs(distance))
    law = stats.pearson3(skew)
    upper, lower = law.sf(distance / spread), law.cdf(distance / spread)
    p: Floats = np.where(free, np.minimum(1.0, 2 * np.minimum(upper, lower)), np.nan)
    return p


def significant_specialties(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that chance does not explain, the strongest first.

    Parameters
    ----------
    table
        What ``specialties`` returned.

    Returns
    -------
    pl.DataFrame
        Rows with ``q`` below ``FALSE_DISCOVERY_RATE``, with ``strength``: how far from 0 the end of
        the interval of the log-odds that is nearer to it lies, 0 if the interval holds 0.
    """
    nearer = pl.max_horizontal(pl.col("low"), -pl.col("high"), 0.0)
    return (
        table.filter(pl.col("q") < FALSE_DISCOVERY_RATE)
        .with_columns(strength=nearer)
        .sort("strength", "tokens", descending=True, maintain_order=True)
    )
