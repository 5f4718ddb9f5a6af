"""Two corpora whose figures are compared: whether they may be, and what chance would exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, block_of
from skipviz.arrays import Bools, Floats, Ints
from skipviz.errors import InputError, TraceError
from skipviz.traces import Trace

MIN_DOCUMENTS_PER_SIDE = 6
"""From so many on each side, documents change places and not blocks."""
MIN_BLOCKS_PER_SIDE = 4
"""With fewer on a side there are too few ways to part them for any p-value below 0.05."""

Traces = Trace | Sequence[Trace]
_SAME = ("model", "weights_sha256", "family", "policy", "budget")


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


@dataclass(frozen=True, eq=False)
class Corpus:
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
    def of(cls, traces: Traces) -> Corpus:
        """Return all traces as one corpus; documents of each count on from the one before."""
        several = [traces] if isinstance(traces, Trace) else list(traces)
        if not several:
            raise InputError("One of the corpora has no traces; give at least one for each.")
        values: list[npt.NDArray[Any]] = []
        executed: list[npt.NDArray[Any]] = []
        for traced in several:
            used = traced.tokens["layers_used"].to_numpy()
            values.append(np.column_stack([used, traced.matrix("score")]))
            executed.append(traced.matrix("exec_count") > 0)
        places = _Places.of(several)
        return cls(
            values=np.vstack(values).astype(np.float64),
            executed=np.vstack(executed).mean(axis=0),
            document=places.document,
            position=places.position,
        )


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the tokens of a corpus stand, [tokens]: their document, from 0, and where in it."""

    document: Ints
    position: Ints

    @classmethod
    def of(cls, several: Sequence[Trace]) -> _Places:
        document: list[Ints] = []
        for traced in several:
            first = int(document[-1].max(initial=-1)) + 1 if document else 0
            numbers = traced.tokens["sequence"].rank("dense").to_numpy().astype(np.int64)
            document.append(numbers - 1 + first)
        position = [traced.tokens["position"].to_numpy() for traced in several]
        return cls(np.concatenate(document), np.concatenate(position))


def shared_sites(before: Traces, after: Traces) -> pl.DataFrame:
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


def check_sizes(before: Trace, after: Trace) -> None:
    """Raise ``InputError`` where two corpora are too short to tell drift from chance.

    It looks at no score, so that it can be asked before anything is offered.
    """
    exchangeable(_Places.of([before]), _Places.of([after]))


def exchangeable(before: Corpus | _Places, after: Corpus | _Places) -> tuple[str, Ints]:
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
                f"A corpus of {len(unit)} tokens is {count} {'block' if count == 1 else 'blocks'} "
                f"of {BLOCK_TOKENS}: too little to tell drift from chance. Give at least "
                f"{MIN_BLOCKS_PER_SIDE * BLOCK_TOKENS} tokens on each side."
            )
        units.append(unit + (units[0].max() + 1 if units else 0))
    return "blocks", np.concatenate(units)
