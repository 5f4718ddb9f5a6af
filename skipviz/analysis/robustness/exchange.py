"""How far figures of two corpora lie apart, and how far where their units change places by chance.

A unit is what is exchanged whole: a document, or a block of neighbouring tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from skipviz.arrays import Bools, Floats, Ints
from skipviz.progress import Progress

STABILITY_BINS = 10
KS_POINTS = 128
"""Most places at which two distributions are compared."""
_CHUNK = 500

Statistic = Callable[[Floats, Floats], Floats]
"""Of counts before and after, [permutations, figures, bins], to [permutations, figures]."""


@dataclass(frozen=True)
class Draws:
    """Permutations, and who is told how many of them are done; ``begun`` is done before them."""

    count: int
    seed: int
    progress: Progress
    begun: float = 0.0


def ks_distances(values: Floats, later: Bools, unit: Ints, draws: Draws) -> tuple[Floats, Floats]:
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


def stability_indices(
    values: Floats, later: Bools, unit: Ints, draws: Draws
) -> tuple[Floats, Floats]:
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

    def of_permutations(self, statistic: Statistic, draws: Draws) -> Iterator[Floats]:
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


def dominance_deltas(values: Floats, later: Bools) -> Floats:
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
