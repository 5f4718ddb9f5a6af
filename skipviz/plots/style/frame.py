"""What all figures share: a template for light and dark, title, provenance, explanations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.one_model import traces_of_one_model
from skipviz.errors import InputError
from skipviz.plots.style.labels import provenance
from skipviz.plots.style.palette import INK
from skipviz.traces import Trace, layer_order

_LINE = "rgba(128, 128, 128, 0.25)"
_AXIS = {"gridcolor": _LINE, "linecolor": _LINE, "zerolinecolor": _LINE, "tickcolor": _LINE}

FEW_LAYERS = 12
"""So many an axis can name, each."""
_LAYER = re.compile(r"\blayer\b")

# In a template and not in the layout, so that Streamlit's theme can put its own in their place.
TEMPLATE = go.layout.Template(
    layout={
        "font": {"color": INK, "size": 13},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"align": "left"},
    }
)


def dress(
    figure: go.Figure, source: Trace | Sequence[Trace] | str, *, title: str, height: int
) -> go.Figure:
    """Give a figure its title, its provenance and a look that suits light and dark pages.

    Parameters
    ----------
    figure
        Changed in place and returned.
    source
        Whose figure it is: a trace, several of one model, or the provenance itself, escaped.
    title
        What it shows, already escaped.
    height
        In pixels.
    """
    line = source if isinstance(source, str) else provenance(source)
    meta: dict[str, str] = {"provenance": line}
    if not isinstance(source, str):
        trace = traces_of_one_model(source)[0]
        meta["weights_sha256"] = trace.run["weights_sha256"][0]
        _tick_each_layer(figure, trace)
    return figure.update_layout(
        template=TEMPLATE,
        title={
            "text": title,
            "subtitle": {"text": _in_two_lines(line), "font": {"size": 12}},
            "x": 0.0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": 17},
        },
        height=height,
        margin={"l": 60, "r": 20, "t": 86, "b": 105},
        showlegend=True,
        # At the very bottom: above the axes it would run into the subtitle in a narrow column.
        legend={"orientation": "h", "x": 0.0, "y": 0.0, "yref": "container", "yanchor": "bottom"},
        meta=meta,
    )


def _tick_each_layer(figure: go.Figure, trace: Trace) -> None:
    """Let axes of few layers name each once: left alone, plotly writes parts of layers."""
    runs = len(layer_order(trace.sites, layers=trace.run["layers"].item()))
    if runs > FEW_LAYERS:
        return
    for axes in (list(figure.select_xaxes()), list(figure.select_yaxes())):
        if any(_LAYER.search(each.title.text or "") for each in axes):
            for each in axes:
                each.update(tick0=0, dtick=1)


def naming_intervals(text: str, ends: Sequence[float | None] | pl.Series) -> str:
    """Return a text of a legend or an axis that names 95% intervals, if there are any.

    Parameters
    ----------
    text
        What is drawn without them.
    ends
        Of the intervals, or half their widths: null or NaN where there is none.
    """
    any_drawn = any(end is not None and np.isfinite(end) for end in ends)
    return f"{text} (95% interval)" if any_drawn else text


def name_what_is_drawn(figure: go.Figure) -> go.Figure:
    """Name each line and each kind of bar once in the legend, and none that has no point.

    Those of one group, or else of one name, are one, whichever panel they are in.
    """
    named: set[str] = set()
    for each in figure.data:
        if each.type in ("scatter", "bar"):
            group = each.legendgroup or each.name
            each.showlegend = _has_points(each) and group not in named
            named |= {group} if each.showlegend else set()
    return figure


def _has_points(drawn: Any) -> bool:
    if drawn.x is None or drawn.y is None:
        return False
    pairs = zip(drawn.x, drawn.y, strict=False)
    return any(not (x is None or y is None or x != x or y != y) for x, y in pairs)


def note(figure: go.Figure, text: str, *, above: bool = False) -> go.Figure:
    """Write a sentence across a figure that has little to show, in its middle or above it."""
    place = {"x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
    return figure.add_annotation(
        text=text,
        showarrow=False,
        xref="paper",
        yref="paper",
        **(place if above else {"x": 0.5, "y": 0.5}),
    )


def token_row(trace: Trace, token: int) -> dict[str, Any]:
    """Return the row of one token.

    Raises
    ------
    ValueError
        If the trace has no such token.
    """
    if not 0 <= token < len(trace):
        raise InputError(_no_token(trace, token))
    return trace.tokens.row(token, named=True)


def check_tokens(trace: Trace) -> None:
    """Raise ``ValueError`` if there is nothing to show."""
    if not len(trace):
        raise InputError("The trace has 0 tokens, so there is nothing to draw; trace a text.")


def units(trace: Trace) -> list[str]:
    """Return the units to show apart, those of the sites, or attention and MLP without any."""
    present = set(trace.sites["unit"].unique(maintain_order=True))
    return [unit for unit in ("block", "attn", "mlp") if unit in present] or ["attn", "mlp"]


def ungated_layers(trace: Trace, unit: str) -> list[int]:
    """Return the layers that have no gate on any part of the unit, in ascending order."""
    parts = ["block", "attn", "mlp"] if unit == "block" else ["block", unit]
    gated = trace.sites.filter(pl.col("unit").is_in(parts))["layer"].to_list()
    return sorted(set(range(trace.run["layers"][0])) - set(gated))


def ungated_steps(trace: Trace, unit: str) -> list[int]:
    """Return at which run of a layer those of ``ungated_layers`` stand, in running order.

    That is the layer, unless lower layers are visited again.
    """
    alone = ungated_layers(trace, unit)
    if not (trace.sites["visit"] > 0).any():
        return alone
    order = layer_order(trace.sites, layers=trace.run["layers"].item())
    return [order.index((layer, 0)) for layer in alone]


def run_axis(trace: Trace) -> str:
    """Return what an axis of layers in running order is called."""
    return "layer run" if (trace.sites["visit"] > 0).any() else "layer"


def margin_limit(trace: Trace, *, share: float) -> float:
    """Return the distance from the threshold, above 0, that a share of all decisions stay within.

    Parameters
    ----------
    trace
        Any trace; without scores the distance is 1.
    share
        From 0 to 1.
    """
    margins = np.abs(trace.margin)
    finite = margins[np.isfinite(margins)]
    return max(float(np.quantile(finite, share)), 1e-6) if len(finite) else 1.0


def _in_two_lines(line: str) -> str:
    """Break provenance before its last two parts: one line is wider than a narrow page."""
    who, *counts = line.rsplit(" · ", 2)
    return f"{who}<br>{' · '.join(counts)}"


def _no_token(trace: Trace, token: int) -> str:
    if not len(trace):
        return f"There is no token {token}: the trace has 0 tokens; trace a text."
    return f"There is no token {token}; choose one from 0 to {len(trace) - 1}."
