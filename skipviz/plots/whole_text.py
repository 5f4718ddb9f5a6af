"""Figures of a whole text: layers used, execution rates, share of compute."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.flops import compute_share, cost_summary, execution_rates, flops_known
from skipviz.plots.style.frame import dress, note, ungated_layers, units
from skipviz.plots.style.palette import (
    ALWAYS_RUNS,
    CIVIDIS,
    COMPONENT_COLOURS,
    INK,
    UNIT_COLOURS,
    UNIT_NAMES,
    interpolate,
    layers_used_range,
    shares_along,
)
from skipviz.traces import Trace

NO_GATES = "This model has no gates: every layer runs for every token."


def layers_used_histogram(trace: Trace) -> go.Figure:
    """Draw which share of the tokens used how many layers.

    The axis is that of the model, from the fewest to the most layers that a token can use, so that
    texts can be compared; the colours are those of the coloured text.

    Parameters
    ----------
    trace
        A trace of at least one token.

    Raises
    ------
    ValueError
        If the trace has no tokens.
    """
    figures = cost_summary(trace)
    fewest, most = layers_used_range(trace)
    step = 1.0 if set(trace.sites["unit"]) <= {"block"} else 0.5
    used = trace.tokens["layers_used"].cast(pl.Float64).to_numpy()
    values, tokens = np.unique(np.round(used / step) * step, return_counts=True)
    colours = interpolate(CIVIDIS, shares_along(values, (fewest, most)))
    figure = go.Figure(
        go.Bar(
            x=values,
            y=tokens / len(trace),
            width=step * 0.9,
            customdata=tokens,
            marker={
                "color": [f"rgb({r}, {g}, {b})" for r, g, b in colours],
                "line": {"width": 1, "color": INK},
            },
            hovertemplate="%{x} layers: %{y:.1%} of tokens (%{customdata:,})<extra></extra>",
            showlegend=False,
        )
    )
    top = float(tokens.max()) / len(trace)
    for name, value, dash in (
        ("mean", figures.layers_mean, "dash"),
        ("median", figures.layers_median, "dot"),
    ):
        figure.add_trace(
            go.Scatter(
                x=[value, value],
                y=[0.0, top * 1.05],
                mode="lines",
                name=f"{name} {value:.1f}",
                line={"color": INK, "width": 2, "dash": dash},
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(
        title="layers used",
        range=[fewest - 1.0, most + 1.0],
        dtick=max(1, round((most - fewest) / 12)),
    )
    figure.update_yaxes(title="share of tokens", tickformat=".0%", range=[0.0, top * 1.1])
    dress(figure, trace, title=f"Layers used by {len(trace):,} tokens", height=360)
    return figure if trace.sites.height else note(figure, NO_GATES, above=True)


def execution_rate_by_layer(trace: Trace) -> go.Figure:
    """Draw how often attention and MLP of each layer ran.

    Parameters
    ----------
    trace
        A trace of at least one token. Where a layer is visited more than once, the rate is the
        mean over its visits.

    Raises
    ------
    ValueError
        If the trace has no tokens.
    """
    rates = execution_rates(trace)
    figure = go.Figure()
    unnamed = True
    for unit in units(trace):
        found = (
            rates.filter(pl.col("unit") == unit)
            .group_by("layer", maintain_order=True)
            .agg(pl.col("rate").mean(), pl.col("executed").sum(), pl.col("tokens").sum())
        )
        name = UNIT_NAMES[unit]
        if found.height:
            figure.add_trace(
                go.Bar(
                    x=found["layer"].to_numpy(),
                    y=found["rate"].to_numpy(),
                    name=name,
                    marker_color=UNIT_COLOURS[unit],
                    offsetgroup=unit,
                    customdata=found.select("executed", "tokens").to_numpy(),
                    hovertemplate="layer %{x}: " + name + " ran for %{y:.1%} of tokens "
                    "(%{customdata[0]:,} of %{customdata[1]:,})<extra></extra>",
                )
            )
        always = ungated_layers(trace, unit)
        if always:
            figure.add_trace(
                go.Bar(
                    x=always,
                    y=[1.0] * len(always),
                    name="always runs (no gate)",
                    marker_color=ALWAYS_RUNS,
                    offsetgroup=unit,
                    legendgroup="always",
                    showlegend=unnamed,
                    legendrank=1001,
                    hovertemplate="layer %{x}: " + name + " always runs<extra></extra>",
                )
            )
            unnamed = False
    layers = trace.run["layers"][0]
    figure.update_xaxes(title="layer", range=[-0.6, layers - 0.4], tickformat="d")
    figure.update_yaxes(
        title="share of tokens for which it ran", tickformat=".0%", range=[0.0, 1.02]
    )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    dress(figure, trace, title="How often each layer ran", height=360)
    return figure if trace.sites.height else note(figure, NO_GATES, above=True)


def compute_share_figure(trace: Trace) -> go.Figure:
    """Draw what the text cost beside what the model without gates would have cost.

    Parameters
    ----------
    trace
        A trace of at least one token. FLOPs are those that the decisions imply, whether or not
        the runtime saved them.

    Raises
    ------
    ValueError
        If the trace has no tokens.
    """
    figure = go.Figure()
    if not flops_known(trace):
        dress(figure, trace, title="Compute: unknown", height=280)
        return note(figure, "The FLOPs of this model's layers are unknown.")
    shares = compute_share(trace)
    rows = ["without gates", "as decided"]
    for component, flops, dense_flops, share, dense_share in shares.iter_rows():
        figure.add_trace(
            go.Bar(
                y=rows,
                x=[dense_share, share],
                orientation="h",
                name=component if component != "mlp" else "MLP",
                marker={"color": COMPONENT_COLOURS[component]},
                customdata=np.array([dense_flops, flops], dtype=np.float64),
                hovertemplate="%{fullData.name}, %{y}: %{x:.1%} of the dense forward, "
                "%{customdata:.3s}FLOP<extra></extra>",
            )
        )
    decided = cost_summary(trace).flop_share or 0.0
    for row, total in zip(rows, (1.0, decided), strict=True):
        figure.add_annotation(
            x=total, y=row, text=f"{total:.1%}", showarrow=False, xanchor="left", xshift=6
        )
    figure.update_xaxes(
        title="FLOPs, share of the dense forward",
        tickformat=".0%",
        range=[0.0, 1.25 * max(1.0, decided)],
    )
    figure.update_yaxes(title="forward pass", ticklabelstandoff=6)
    figure.update_layout(barmode="stack", bargap=0.35)
    dress(
        figure,
        trace,
        title=f"Compute: {decided:.1%} of the dense forward",
        height=330,
    )
    return figure.update_layout(legend={"traceorder": "normal"}, margin={"l": 110, "b": 130})
