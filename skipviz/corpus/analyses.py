"""Further tables of a part: what each decision was worth, and where predictions settle."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from skipviz.errors import InputError, SkipvizError, Stopped
from skipviz.experiments.decision_audit import audit
from skipviz.experiments.hidden_states.prediction_by_depth import convergence_layers
from skipviz.experiments.hidden_states.states import record_states
from skipviz.models import SkipModel
from skipviz.recording.tracing import trace
from skipviz.traces import Trace

_LOG = logging.getLogger("skipviz")
LENS_TOKENS = 4096
"""Of a document whose hidden states are all in memory."""
LENS_COLUMNS = {"settled": pa.int32(), "layers_after": pa.float32()}
Columns = Mapping[str, pa.Array]


@dataclass(frozen=True)
class _Analysis:
    """A further table.

    Attributes
    ----------
    types
        Its columns for a trace, and their types.
    of
        Returns them for one text; None for a text that is too long.
    """

    types: Callable[[Trace], Mapping[str, pa.DataType]]
    of: Callable[[SkipModel, Trace, threading.Event | None], Columns | None]


def _audited(model: SkipModel, traced: Trace, stop: threading.Event | None) -> Columns | None:
    """Return the utility of each decision, a column per site."""
    if not 1 < len(traced) <= model.context:
        return None
    utility = np.full((len(traced), traced.sites.height), np.nan, dtype=np.float32)
    found = audit(model, traced, stop=stop)
    utility[found["token"].to_numpy(), found["site"].to_numpy()] = found["utility"].to_numpy()
    return {
        label: pa.array(utility[:, site], mask=np.isnan(utility[:, site]))
        for site, label in enumerate(traced.sites["label"])
    }


def _through_the_lens(
    model: SkipModel, traced: Trace, stop: threading.Event | None
) -> Columns | None:
    """Return the layer behind which each token's prediction is settled."""
    if len(traced) > LENS_TOKENS:
        return None
    states = record_states(model, traced, most=len(traced), stop=stop)
    found = convergence_layers(model, traced, states, stop=stop)
    return {name: found[name].to_arrow().cast(kind) for name, kind in LENS_COLUMNS.items()}


FURTHER_TABLES: Mapping[str, _Analysis] = {
    "audit": _Analysis(lambda traced: dict.fromkeys(traced.sites["label"], pa.float32()), _audited),
    "lens": _Analysis(lambda _: LENS_COLUMNS, _through_the_lens),
}


def check_analysis_name(name: str) -> None:
    """Check that there is an analysis of this name.

    Raises
    ------
    InputError
        Names those that there are.
    """
    if name not in FURTHER_TABLES:
        raise InputError(f"analyses has {name!r:.40}; there are {', '.join(FURTHER_TABLES)}.")


def check_analyses(model: SkipModel, names: Sequence[str]) -> None:
    """Try each analysis on a short text, so that a run does not find out at its end.

    Raises
    ------
    InputError
        If the model cannot be looked at like that.
    """
    if names:
        short = trace(model, "A fox.")
        for name in names:
            FURTHER_TABLES[name].of(model, short, None)


def analysis_table(
    name: str,
    model: SkipModel,
    traced: Trace,
    document: npt.NDArray[np.int64],
    *,
    stop: threading.Event | None = None,
) -> pa.Table:
    """Return the rows of an analysis for the documents of a trace, in its order.

    Parameters
    ----------
    name
        Of the analysis.
    model, traced
        What ran, and its trace of some documents.
    document
        The document of each token.
    stop
        Set it from another thread to stop.
    """
    tables = []
    for number in traced.tokens["sequence"].unique(maintain_order=True):
        rows = np.flatnonzero((traced.tokens["sequence"] == number).to_numpy())
        own = _one_text(traced, rows)
        columns = {
            "document": pa.array(document[rows]),
            "position": own.tokens["position"].cast(pl.Int32).to_arrow(),
            **_columns(name, model, own, int(document[rows[0]]), stop),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _columns(
    name: str, model: SkipModel, traced: Trace, document: int, stop: threading.Event | None
) -> Columns:
    """Return the columns of an analysis for a document; nulls where it cannot be made."""
    analysis = FURTHER_TABLES[name]
    found = None
    try:
        found = analysis.of(model, traced, stop)
    except Stopped:
        raise
    except SkipvizError as error:  # as of decisions that came out otherwise by rounding
        _LOG.warning("%s of document %d: %s", name, document, error)
    if found is not None:
        return found
    return {column: pa.nulls(len(traced), kind) for column, kind in analysis.types(traced).items()}


def _one_text(traced: Trace, rows: npt.NDArray[np.int64]) -> Trace:
    """Return a trace of some tokens, which are one text."""
    tokens = traced.tokens[rows].with_columns(
        pl.Series("token", np.arange(len(rows))),
        pl.lit(0, dtype=pl.Int64).alias("sequence"),
        pl.col("span") - pl.col("span").min(),
    )
    return replace(
        traced,
        tokens=tokens,
        matrices={name: matrix[rows] for name, matrix in traced.matrices.items()},
    )
