"""Lenses of what analyses and experiments found about a trace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.tokens.classes import FEATURE_NAMES
from skipviz.plots.attribution import share_end
from skipviz.plots.clusters import cluster_name
from skipviz.plots.lenses.categories import category_lens
from skipviz.plots.lenses.lens import UTILITY_LENS, Lens
from skipviz.plots.style.cell_map import NATS_SHOWN
from skipviz.traces import Trace

WHAT_IF = "change in loss, what if"
"""The lens of an answer to what if."""
CHANGE_SHOWN = 2.0
"""Nats of loss where fixed scales of changes end."""


def over_dense_lens(trace: Trace, dense: Trace) -> Lens:
    """Return how much each next token's loss rose over the dense model's.

    Parameters
    ----------
    trace, dense
        Runs of the same tokens.

    Raises
    ------
    TraceError
        If the tokens differ.
    """
    return _change("loss over dense", (trace - dense)["nll"])


def what_if_lens(answer: WhatIf) -> Lens:
    """Return how much each next token's loss changes under other decisions."""
    return _change(WHAT_IF, (answer.trace - answer.before)["nll"])


def utility_lens(trace: Trace, cells: pl.DataFrame) -> Lens:
    """Return what executing was worth at each cell of an audit.

    Parameters
    ----------
    trace
        The audited trace.
    cells
        What ``skipviz.audit`` returned; cells that are not in it are unknown.
    """
    above = "decide again" if cells["later_margin"].count() else "held"
    return Lens(
        name=UTILITY_LENS,
        unit="nats",
        note=f"above 0 running helps; gates above {above}",
        values=_of_cells(trace, cells, "utility"),
        scale="diverging",
        ends=(-NATS_SHOWN, NATS_SHOWN),
        colours="support",
    )


def regret_lens(trace: Trace, cells: pl.DataFrame) -> Lens:
    """Return what each decision lost against the better one.

    Parameters
    ----------
    trace
        The audited trace.
    cells
        What ``skipviz.analysis.gates.quality.judged`` returned.
    """
    return Lens(
        name="regret",
        unit="nats",
        values=_of_cells(trace, cells, "regret"),
        scale="sequential",
        ends=(0.0, NATS_SHOWN),
        colours="loss",
    )


def attribution_lens(trace: Trace, shares: pl.DataFrame, *, what: str, unit: str = "nats") -> Lens:
    """Return what each token contributed to a prediction or a score.

    Parameters
    ----------
    trace
        Whose tokens.
    shares
        The table of ``skipviz.attribute``: ``token`` and ``attribution``.
    what
        What is explained.
    unit
        Of the shares.
    """
    end = share_end(shares["attribution"])
    return Lens(
        name=f"share in {what}",
        unit=unit,
        values=_of_tokens(trace, shares, "attribution"),
        scale="diverging",
        ends=(-end, end),
        colours="support",
    )


def cluster_lens(trace: Trace, tokens: pl.DataFrame) -> Lens:
    """Return the cluster of each token, as a category.

    Parameters
    ----------
    trace
        Whose tokens.
    tokens
        ``token`` and ``cluster``, null for those that belong to none.
    """
    numbers = _of_tokens(trace, tokens, "cluster")
    known = pl.Series(numbers).fill_nan(None).cast(pl.Int64)
    most = known.max()
    order = [cluster_name(each) for each in range(0 if most is None else int(most) + 1)]  # type: ignore[arg-type]
    names = [None if each is None else cluster_name(each) for each in known]
    return category_lens("cluster", pl.Series(names, dtype=pl.String), order=order)


def class_lens(classes: pl.DataFrame, *, feature: str = "kind") -> Lens:
    """Return a class of each token, as a category.

    Parameters
    ----------
    classes
        What ``skipviz.analysis.tokens.classes.token_classes`` returned.
    feature
        One of its columns of classes.
    """
    return category_lens(FEATURE_NAMES.get(feature, feature), classes[feature])


def _change(name: str, values: pl.Series) -> Lens:
    return Lens(
        name=name,
        unit="nats",
        note="above 0 is worse",
        values=_numbers(values),
        scale="diverging",
        ends=(-CHANGE_SHOWN, CHANGE_SHOWN),
        colours="change",
    )


def _numbers(values: pl.Series) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = (
        values.cast(pl.Float32).fill_null(float("nan")).to_numpy().astype(np.float32)
    )
    return found


def _of_tokens(trace: Trace, table: pl.DataFrame, column: str) -> npt.NDArray[np.float32]:
    values = np.full(len(trace), np.nan, dtype=np.float32)
    values[table["token"].to_numpy()] = _numbers(table[column])
    return values


def _of_cells(trace: Trace, cells: pl.DataFrame, column: str) -> npt.NDArray[np.float32]:
    values = np.full((len(trace), trace.sites.height), np.nan, dtype=np.float32)
    values[cells["token"].to_numpy(), cells["site"].to_numpy()] = _numbers(cells[column])
    return values
