"""Robustness: how much paths change with the surface of a text, the tails, and drift."""

from __future__ import annotations

from typing import Literal

import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.robustness.drift import DRIFTED, SHIFTED
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.errors import InputError
from skipviz.plots.style.frame import dress, name_what_is_drawn, note, units
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import (
    BLUE,
    INK,
    LOSS,
    ORANGE,
    SKY,
    UNIT_COLOURS,
    UNIT_NAMES,
    layers_used_range,
)
from skipviz.traces import Trace

Change = Literal["moved", "layers", "loss"]
CHANGE_AXES: dict[Change, tuple[str, str]] = {
    "moved": ("Decisions that differ", "share of a word's decisions that differ"),
    "layers": ("Change in layers used", "layers, mean over a word's tokens"),
    "loss": ("Change in loss", "nats per word"),
}
Tail = Literal["layers_used", "nll", "over_dense"]
TAILS: dict[Tail, tuple[str, str, str]] = {
    "layers_used": ("Layers used", "layers", BLUE),
    "nll": ("Loss", "nats, on the next token", LOSS),
    "over_dense": ("Loss over the dense model", "nats, on the next token", LOSS),
}
Drift = Literal["psi", "ks"]
DRIFTS: dict[Drift, tuple[str, str]] = {
    "psi": ("Drift of the scores, by layer", "population stability index"),
    "ks": ("Distance of the scores, by layer", "Kolmogorov-Smirnov distance"),
}
DOCUMENTS = 25
"""Documents that are drawn; of more, those with the highest 99th percentile."""
_TOUCHED = {
    True: ("changed words", ORANGE, "diamond"),
    False: ("other words", SKY, "circle"),
}
_QUANTILES = (("p50", "half of the tokens", "circle-open"), ("p95", "95%", "diamond"),
              ("p99", "99%", "square"))  # fmt: skip
_FAINT = 0.35


def change_figure(trace: Trace, table: pl.DataFrame, *, shown: Change = "moved") -> go.Figure:
    """Draw what each change of a text does to its words, with 95% intervals.

    Parameters
    ----------
    trace
        Of the same model, for the provenance.
    table
        What ``skipviz.analysis.robustness.decision_shift.shift_of_decisions`` returned.
    shown
        ``moved``, beside it how far two words lie apart that have nothing to do with each other;
        ``layers``; or ``loss``.

    Raises
    ------
    ValueError
        If there is nothing of that name to show.
    """
    if shown not in CHANGE_AXES:
        raise InputError(f"shown={shown!r} is not one of {', '.join(CHANGE_AXES)}.")
    title, axis = CHANGE_AXES[shown]
    kinds = table["kind"].unique(maintain_order=True).to_list()
    figure = go.Figure()
    both = table["touched"].n_unique() == 2
    for touched in (True, False):
        part = table.filter(pl.col("touched") == touched).drop_nulls(shown)
        if part.is_empty():
            continue
        name, colour, symbol = _TOUCHED[touched]
        # The two lie one above the other, so that intervals do not hide each other.
        offset = (-0.13 if touched else 0.13) if both else 0.0
        value = part[shown]
        figure.add_trace(
            go.Scatter(
                x=value.to_list(),
                y=[kinds.index(kind) + offset for kind in part["kind"]],
                error_x={
                    "array": (part[f"{shown}_high"] - value).to_list(),
                    "arrayminus": (value - part[f"{shown}_low"]).to_list(),
                },
                customdata=part.select("kind", "words").rows(),
                mode="markers",
                name=name if both or touched else "words",
                marker={"color": colour, "symbol": symbol, "size": 9},
                hovertemplate="%{customdata[0]}, " + name + ": "
                + ("%{x:.1%}" if shown == "moved" else "%{x:.2f}")
                + "<br>%{customdata[1]:,} words<extra></extra>",
            )
        )  # fmt: skip
        if shown == "moved":
            _apart(figure, part, kinds, offset)
    figure.update_yaxes(
        title="change",
        tickvals=list(range(len(kinds))),
        ticktext=kinds,
        range=[len(kinds) - 0.5, -0.5],
        automargin=True,
    )
    words = table.group_by("kind").agg(pl.col("words").sum())["words"].to_list()
    figure.update_xaxes(title=f"{axis} ({max(words, default=0):,} words)")
    if shown == "moved":
        figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    else:
        figure.add_vline(x=0.0, line={"color": INK, "dash": "dash"})
    height = 200 + 48 * len(kinds) + 60
    return dress(name_what_is_drawn(figure), trace, title=title, height=height)


def _apart(figure: go.Figure, part: pl.DataFrame, kinds: list[str], offset: float) -> None:
    known = part.drop_nulls("apart")
    figure.add_trace(
        go.Scatter(
            x=known["apart"].to_list(),
            y=[kinds.index(kind) + offset for kind in known["kind"]],
            mode="markers",
            name="two unrelated words",
            legendgroup="apart",
            marker={"color": INK, "symbol": "line-ns-open", "size": 12},
            hovertemplate="two unrelated words: %{x:.1%}<extra></extra>",
        )
    )


def tails_figure(trace: Trace, table: pl.DataFrame, *, shown: Tail = "layers_used") -> go.Figure:
    """Draw the middle and the tail of a figure's tokens, a line per document.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.analysis.robustness.tails.tails`` returned for it.
    shown
        ``layers_used``, ``nll`` or ``over_dense``.

    Raises
    ------
    ValueError
        If there is nothing of that name to show.
    """
    if shown not in TAILS or f"{shown}_p99" not in table.columns:
        there = ", ".join(name for name in TAILS if f"{name}_p99" in table.columns)
        raise InputError(f"shown={shown!r} is not one of {there}.")
    title, axis, colour = TAILS[shown]
    rows = table.drop_nulls(f"{shown}_p99").sort(
        f"{shown}_p99", descending=True, maintain_order=True
    )
    drawn = rows.head(DOCUMENTS)
    # Names may be the same, and long.
    names = [token_label(name, longest=28) for name in drawn["source"]]
    places = list(range(drawn.height))
    figure = go.Figure()
    for row in places:
        ends = [drawn[f"{shown}_{name}"][row] for name in ("p50", "p99")]
        figure.add_trace(
            go.Scatter(
                x=ends, y=[row, row], mode="lines", line={"color": colour, "width": 2},
                showlegend=False, hoverinfo="skip",
            )
        )  # fmt: skip
    for name, words, symbol in _QUANTILES:
        figure.add_trace(
            go.Scatter(
                x=drawn[f"{shown}_{name}"].to_list(),
                y=places,
                customdata=list(zip(names, drawn["tokens"].to_list(), strict=True)),
                mode="markers",
                name=f"{words} are below",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 10,
                    "line": {"color": colour, "width": 2},
                },
                hovertemplate="%{customdata[0]}, %{customdata[1]:,} tokens<br>"
                + words + " below %{x:.2f}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_yaxes(
        title="document",
        tickvals=places,
        ticktext=names,
        range=[len(places) - 0.5, -0.5],
        automargin=True,
    )
    figure.update_xaxes(title=axis)
    if shown == "layers_used":
        low, high = layers_used_range(trace)
        figure.update_xaxes(range=[low - 0.5, high + 0.5])
    if rows.height > drawn.height:
        note(
            figure,
            f"The {drawn.height} highest of {rows.height:,} documents are shown.",
            above=True,
        )
    return dress(figure, trace, title=title, height=220 + 26 * max(1, len(places)))


def drift_figure(trace: Trace, table: pl.DataFrame, *, shown: Drift = "psi") -> go.Figure:
    """Draw how far the scores of each site have drifted, what chance explains faint.

    Parameters
    ----------
    trace
        One of the traces compared.
    table
        What ``skipviz.analysis.robustness.drift.drift`` returned.
    shown
        ``psi``, with its two thresholds and its size without any drift, or ``ks``.

    Raises
    ------
    ValueError
        If there is nothing of that name to show.
    """
    if shown not in DRIFTS:
        raise InputError(f"shown={shown!r} is not one of {', '.join(DRIFTS)}.")
    title, axis = DRIFTS[shown]
    figure = go.Figure()
    kinds = units(trace)
    for place, unit in enumerate(kinds):
        sites = table.filter(pl.col("unit") == unit).drop_nulls(shown)
        found = (sites["q"] < FALSE_DISCOVERY_RATE).fill_null(False)
        figure.add_trace(
            go.Bar(
                x=sites["layer"].to_list(),
                y=sites[shown].to_list(),
                offsetgroup=unit,
                customdata=sites.select("label", "mean_before", "mean_after", "q", "level").rows(),
                name=UNIT_NAMES[unit],
                marker={
                    "color": UNIT_COLOURS[unit],
                    "opacity": [1.0 if each else _FAINT for each in found],
                },
                hovertemplate="%{customdata[0]}: %{y:.3f}, %{customdata[4]}<br>mean score "
                "%{customdata[1]:.3f} before, %{customdata[2]:.3f} after<br>"
                "q %{customdata[3]:.3f}<extra></extra>",
            )
        )
        if shown == "psi":
            shift = 0.8 * ((place + 0.5) / len(kinds) - 0.5)
            figure.add_trace(
                go.Scatter(
                    x=[layer + shift for layer in sites["layer"]],
                    y=sites["psi_chance"].to_list(),
                    mode="markers",
                    name="expected without drift",
                    legendgroup="chance",
                    marker={"color": INK, "symbol": "line-ew-open", "size": 9},
                    hovertemplate="expected without drift %{y:.3f}<extra></extra>",
                )
            )
    if shown == "psi":
        _thresholds(figure, table["layer"].drop_nulls().to_list())
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title=axis, rangemode="tozero")
    figure.update_layout(bargap=0.2)
    return dress(name_what_is_drawn(figure), trace, title=title, height=420)


def _thresholds(figure: go.Figure, layers: list[int]) -> None:
    """Draw the two thresholds, named in the legend: in the figure they would lie on bars."""
    ends = [min(layers, default=0) - 0.5, max(layers, default=0) + 0.5]
    for level, name, dash in ((SHIFTED, "shifted", "dot"), (DRIFTED, "drifted", "dash")):
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[level, level],
                mode="lines",
                line={"color": INK, "dash": dash},
                name=f"{name}, from {level:g}",
                hoverinfo="skip",
            )
        )
