"""Whether one corpus drives a model's gates otherwise than another: drift.

Scores of neighbouring tokens are alike, so a Kolmogorov-Smirnov test that takes tokens for
independent finds drift between two halves of one book. Here whole documents change corpus, or,
where there are few of them, whole blocks of neighbouring tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, block_of
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE, with_q_values
from skipviz.arrays import Bools, Floats, Ints
from skipviz.errors import InputError, TraceError
from skipviz.progress import Progress, no_progress
from skipviz.traces import Trace

SHIFTED, DRIFTED = 0.1, 0.25
"""Population stability indices from which a figure is said to have shifted, and drifted."""
STABILITY_BINS = 10
KS_POINTS = 128
"""Most places at which two distributions are compared."""
DRIFT_PERMUTATIONS = 4999
"""So many that one figure among a hundred can still be found after the correction."""
MIN_DOCUMENTS_PER_SIDE = 6
"""From so many on each side, documents change places and not blocks."""
MIN_BLOCKS_PER_SIDE = 4
"""With fewer on a side there are too few ways to part them for any p-value below 0.05."""
LAYERS_USED = "layers used"
_CHUNK = 500

Traces = Trace | Sequence[Trace]
Statistic = Callable[[Floats, Floats], Floats]
"""Of counts before and after, [permutations, figures, bins], to [permutations, figures]."""
_SAME = ("model", "weights_sha256", "family", "policy", "budget")


def drift(
    before: Traces,
    after: Traces,
    *,
    permutations: int = DRIFT_PERMUTATIONS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return how far scores and layers used of one corpus lie from those of another.

    Parameters
    ----------
    before, after
        Traces of the same model under the same policy; ``before`` is the reference.
    permutations
        How often documents or blocks of tokens change corpus for the p-values.
    seed
        Seed of that.
    progress
        Called with the share of the permutations done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        First a row for ``layers used``, then one for the score of each site, in running order:
        ``figure``; ``site``, ``label``, ``layer``, ``unit``, ``visit``, null for layers used;
        ``tokens_before``, ``tokens_after``, those with such a figure; ``mean_before`` and
        ``mean_after``, in layers or on the gate's own scale; ``rate_before`` and ``rate_after``,
        shares executed, null for layers used. ``delta``, the effect, is the chance that a token
        after scores higher than one before, less the chance that it scores lower, -1 to 1 (Cliff,
        "Dominance statistics", 1993). ``psi`` is the population stability index over tenths of
        ``before`` (its values, where there are no more than ten), half a token added to each
        (Siddiqi, "Credit risk scorecards", 2006), and
        ``psi_chance`` its mean over the permutations: what two corpora of this size show without
        any drift. ``ks`` is the Kolmogorov-Smirnov distance, 0 to 1, at ``KS_POINTS`` places or at
        every value if there are fewer; ``p`` the share of permutations, the data's own order among
        them, with as large a one; ``q`` that after Benjamini and Hochberg over the table.
        ``exchanged`` says what changed places, ``documents`` or ``blocks``. ``level`` is
        ``drifted`` from an index of 0.25 and ``shifted`` from 0.1, if q is also below 0.05, else
        ``stable``. A site that decides for whole texts has no p while blocks change places.

    Raises
    ------
    TraceError
        If the traces are of different models, policies, budgets or thresholds.
    ValueError
        If a corpus is too small for any p-value to be low.
    """
    corpora = (_Corpus.of(before), _Corpus.of(after))
    sites = _same_model(before, after)
    if permutations < 1:
        raise InputError(f"permutations={permutations} must be at least 1.")
    exchanged, unit = _exchangeable(*corpora)
    values = np.vstack([corpus.values for corpus in corpora])
    later = np.repeat([False, True], [len(corpus.values) for corpus in corpora])
    draws = _Draws(permutations, seed, progress)
    ks, p = _distances(values, later, unit, draws)
    # The same ones once more, for the other half of the work.
    draws = _Draws(permutations, seed, progress, begun=0.5)
    psi, chance = _stability(values, later, unit, draws)
    if exchanged == "blocks":
        p[1:][sites["scope"].to_numpy() != "token"] = np.nan
    figures = {
        **_described(corpora),
        "delta": _deltas(values, later),
        "psi": psi,
        "psi_chance": chance,
        "ks": ks,
        "p": p,
    }
    table = with_q_values(
        _rows(sites).with_columns(**_series(figures), exchanged=pl.lit(exchanged))
    )
    found = pl.col("q") < FALSE_DISCOVERY_RATE
    level = (
        pl.when(found & (pl.col("psi") >= DRIFTED))
        .then(pl.lit("drifted"))
        .when(found & (pl.col("psi") >= SHIFTED))
        .then(pl.lit("shifted"))
        .otherwise(pl.lit("stable"))
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None)).with_columns(level=level)


def select_tokens(trace: Trace, kept: Bools) -> Trace:
    """Return a trace of some of the tokens, as a corpus of its own.

    Parameters
    ----------
    trace
        Any trace.
    kept
        Which of its tokens, [tokens].
    """
    return Trace(
        run=trace.run,
        sites=trace.sites,
        tokens=trace.tokens.filter(kept),
        matrices={name: matrix[kept] for name, matrix in trace.matrices.items()},
    )


@dataclass(frozen=True)
class _Draws:
    """Permutations, and who is told how many of them are done; ``begun`` is done before them."""

    count: int
    seed: int
    progress: Progress
    begun: float = 0.0


@dataclass(frozen=True, eq=False)
class _Corpus:
    """A corpus as arrays.

    Attributes
    ----------
    values
        Layers used, then the score at each site, NaN where a gate was not asked, [tokens, figures].
    executed
        Share of tokens that executed each site, [sites].
    document, position
        Which document each token is of, from 0, and where it stands there.
    """

    values: Floats
    executed: Floats
    document: Ints
    position: Ints

    @classmethod
    def of(cls, traces: Traces) -> _Corpus:
        several = [traces] if isinstance(traces, Trace) else list(traces)
        if not several:
            raise InputError("One of the corpora has no traces; give at least one for each.")
        values: list[npt.NDArray[Any]] = []
        executed: list[npt.NDArray[Any]] = []
        document: list[Ints] = []
        for traced in several:
            used = traced.tokens["layers_used"].to_numpy()
            values.append(np.column_stack([used, traced.matrix("score")]))
            first = int(document[-1].max(initial=-1)) + 1 if document else 0
            numbers = traced.tokens["sequence"].rank("dense").to_numpy().astype(np.int64)
            document.append(numbers - 1 + first)
            executed.append(traced.matrix("exec_count") > 0)
        return cls(
            values=np.vstack(values).astype(np.float64),
            executed=np.vstack(executed).mean(axis=0),
            document=np.concatenate(document),
            position=np.concatenate([t.tokens["position"].to_numpy() for t in several]),
        )


def _same_model(before: Traces, after: Traces) -> pl.DataFrame:
    """Return the sites that all traces share."""
    first, *others = [
        traced
        for traces in (before, after)
        for traced in ([traces] if isinstance(traces, Trace) else traces)
    ]
    for traced in others:
        for name in _SAME:
            mine, theirs = first.run[name][0], traced.run[name][0]
            if mine != theirs:
                raise TraceError(
                    f"The traces differ in {name}, {mine!r} and {theirs!r}; trace both corpora "
                    "with one model under one policy."
                )
        if not traced.sites.equals(first.sites):
            raise TraceError("The traces have different sites; trace both corpora with one model.")
        limits, their_limits = _thresholds(first), _thresholds(traced)
        known = ~np.isnan(limits) & ~np.isnan(their_limits)
        for site in np.flatnonzero(known & (limits != their_limits)):
            raise TraceError(
                f"The traces differ in the threshold of {first.sites['label'][int(site)]}, "
                f"{limits[site]!s} and {their_limits[site]!s}; trace both corpora with one model "
                "under one policy."
            )
    return first.sites


def _thresholds(traced: Trace) -> npt.NDArray[Any]:
    """Return the threshold of each site, NaN where it has none or not one for all tokens."""
    each = traced.matrix("threshold")
    lowest, highest = (end.reduce(each, axis=0, initial=np.nan) for end in (np.fmin, np.fmax))
    return np.where(lowest == highest, lowest, np.float32(np.nan))


def _exchangeable(before: _Corpus, after: _Corpus) -> tuple[str, Ints]:
    """Return what may change corpus under no drift, and the number of each token's unit."""
    documents = [int(corpus.document.max(initial=-1)) + 1 for corpus in (before, after)]
    if min(documents) >= MIN_DOCUMENTS_PER_SIDE:
        return "documents", np.concatenate([before.document, after.document + documents[0]])
    units: list[Ints] = []
    for corpus in (before, after):
        pairs = np.column_stack([corpus.document, block_of(corpus.position)])
        unit = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        count = len(np.unique(unit))
        if count < MIN_BLOCKS_PER_SIDE:
            raise InputError(
                f"A corpus of {len(unit)} tokens is {count} blocks of {BLOCK_TOKENS}: too little "
                "to tell drift from chance. Give at least "
                f"{MIN_BLOCKS_PER_SIDE * BLOCK_TOKENS} tokens on each side."
            )
        units.append(unit + (units[0].max() + 1 if units else 0))
    return "blocks", np.concatenate(units)


def _distances(values: Floats, later: Bools, unit: Ints, draws: _Draws) -> tuple[Floats, Floats]:
    """Return the Kolmogorov-Smirnov distance of each figure and its p-value."""
    counts = _BinCounts.of(values, unit, [_places(column, KS_POINTS) for column in values.T], later)

    def statistic(earlier: Floats, after: Floats) -> Floats:
        def cumulative(part: Floats) -> Floats:
            below = np.cumsum(part, axis=-1)
            share: Floats = below / np.maximum(below[..., -1:], 1.0)
            return share

        found: Floats = np.abs(cumulative(earlier) - cumulative(after)).max(axis=-1)
        return found

    own = counts.of_data(statistic)
    extreme = np.zeros(len(own))
    for shuffled in counts.of_permutations(statistic, draws):
        # Ties with the data's own distance count, up to rounding.
        extreme += (shuffled >= own - 1e-6).sum(axis=0)
    p = (extreme + 1) / (draws.count + 1)
    return own, np.where(np.isfinite(own), p, np.nan)


def _stability(values: Floats, later: Bools, unit: Ints, draws: _Draws) -> tuple[Floats, Floats]:
    """Return the population stability index of each figure, and its mean without drift."""
    # The bins stay those of the data's own reference while units change places.
    ends = [_places(column, STABILITY_BINS) for column in values[~later].T]
    # The last tenth has no end: what lies beyond all of the reference is in it.
    counts = _BinCounts.of(values, unit, [end[:-1] if len(end) > 1 else end for end in ends], later)

    def statistic(earlier: Floats, after: Floats) -> Floats:
        def shares(part: Floats) -> Floats:
            filled = (part + 0.5) * counts.real
            found: Floats = filled / filled.sum(axis=-1, keepdims=True)
            return found

        old, new = shares(earlier), shares(after)
        logs = np.log(np.where(counts.real, new, 1.0) / np.where(counts.real, old, 1.0))
        index: Floats = ((new - old) * logs).sum(axis=-1)
        return index

    own = counts.of_data(statistic)
    total = np.zeros(len(own))
    for shuffled in counts.of_permutations(statistic, draws):
        total += shuffled.sum(axis=0)
    return own, np.where(np.isfinite(own), total / draws.count, np.nan)


def _places(column: Floats, most: int) -> Floats:
    """Return where bins of a figure end: at each value, or at ``most`` equal parts of them."""
    known = column[np.isfinite(column)]
    distinct = np.unique(known)
    if len(distinct) <= most:
        return distinct
    # At values that occur, so that those of a figure with many ties are not torn apart.
    ends = np.quantile(known, np.arange(1, most + 1) / most, method="inverted_cdf")
    found: Floats = np.unique(ends)
    return found


@dataclass(frozen=True, eq=False)
class _BinCounts:
    """How many tokens of each unit lie in each bin of each figure.

    Attributes
    ----------
    table
        Counts of shape [units, figures * bins].
    real
        Which bins a figure has, [figures, bins]; some have fewer than others.
    later
        Whether each unit belongs to the later corpus, [units].
    enough
        Whether both corpora have such a figure, [figures].
    """

    table: npt.NDArray[np.float32]
    real: Bools
    later: Bools
    enough: Bools

    @classmethod
    def of(
        cls,
        values: Floats,
        unit: Ints,
        ends: Sequence[Floats],
        later: Bools,
    ) -> _BinCounts:
        """Count values up to each end; those beyond the last are in a bin of their own."""
        units, figures = int(unit.max()) + 1, values.shape[1]
        bins = max(len(each) for each in ends) + 1
        table = np.zeros((units, figures, bins), dtype=np.float32)
        real = np.zeros((figures, bins), dtype=bool)
        for figure, (column, each) in enumerate(zip(values.T, ends, strict=True)):
            known = np.isfinite(column)
            place = np.searchsorted(each, column[known], side="left")
            np.add.at(table[:, figure], (unit[known], place), 1.0)
            real[figure, : len(each) + 1] = True
        of_unit = np.zeros(units, dtype=bool)
        of_unit[unit] = later
        present = np.isfinite(values)
        return cls(
            table=table.reshape(units, -1),
            real=real,
            later=of_unit,
            enough=np.logical_and(present[later].any(axis=0), present[~later].any(axis=0)),
        )

    def of_data(self, statistic: Statistic) -> Floats:
        """Return the statistic of each figure, NaN where a corpus has none of it."""
        found = self._parted(statistic, self.later[None])[0]
        return np.where(self.enough, found, np.nan)

    def of_permutations(self, statistic: Statistic, draws: _Draws) -> Iterator[Floats]:
        """Yield the statistic of some permutations at a time, [permutations, figures]."""
        generator = np.random.default_rng(draws.seed)
        for start in range(0, draws.count, _CHUNK):
            rows = min(_CHUNK, draws.count - start)
            yield self._parted(
                statistic, generator.permuted(np.tile(self.later, (rows, 1)), axis=1)
            )
            draws.progress(draws.begun + (start + rows) / draws.count / 2)

    def _parted(self, statistic: Statistic, later: Bools) -> Floats:
        after = (later.astype(np.float32) @ self.table).reshape(-1, *self.real.shape)
        earlier = self.table.sum(axis=0).reshape(self.real.shape) - after
        return statistic(earlier.astype(np.float64), after.astype(np.float64))


def _deltas(values: Floats, later: Bools) -> Floats:
    """Return by how much values after tend to be higher, -1 to 1; NaN without any on a side."""
    found = np.full(values.shape[1], np.nan)
    for figure, column in enumerate(values.T):
        known = np.isfinite(column)
        second = int((known & later).sum())
        first = int(known.sum()) - second
        if first and second:
            ranks = stats.rankdata(column[known])[later[known]]
            wins = ranks.sum() - second * (second + 1) / 2
            found[figure] = 2 * wins / (first * second) - 1
    return found


def _described(corpora: tuple[_Corpus, _Corpus]) -> dict[str, Floats | Ints]:
    """Return how many tokens have each figure, its means, and the shares executed."""
    found: dict[str, Floats | Ints] = {}
    for name in ("tokens", "mean", "rate"):
        for when, corpus in zip(("before", "after"), corpora, strict=True):
            known = np.isfinite(corpus.values)
            count = known.sum(axis=0)
            if name == "tokens":
                found[f"{name}_{when}"] = count
            elif name == "mean":
                total = np.where(known, corpus.values, 0.0).sum(axis=0)
                found[f"{name}_{when}"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            else:
                found[f"{name}_{when}"] = np.concatenate([[np.nan], corpus.executed])
    return found


def _rows(sites: pl.DataFrame) -> pl.DataFrame:
    """Return what each row of the table is about."""
    places = sites.select("site", "label", "layer", "unit", "visit")
    whole = pl.DataFrame([dict.fromkeys(places.columns)], schema=places.schema)
    rows = pl.concat([whole, places])
    return rows.select(pl.col("label").fill_null(LAYERS_USED).alias("figure"), pl.all())


def _series(figures: dict[str, Floats | Ints]) -> dict[str, pl.Series]:
    return {name: pl.Series(values) for name, values in figures.items()}
