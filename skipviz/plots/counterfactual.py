"""What other decisions would change: losses token by token, and a text's own frontier."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.counterfactual import WhatIf
from skipviz.plots.style.frame import dress
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import BLUE, INK, ORANGE, VERMILION
from skipviz.traces import Trace


def loss_change_figure(answer: WhatIf) -> go.Figure:
    """Draw by how much the loss after each token would change.

    Parameters
    ----------
    answer
        What ``skipviz.what_if`` returned.
    """
    tokens = answer.tokens.drop_nulls("nll_change")
    change = tokens["nll_change"].to_list()
    names = [token_label(text) for text in tokens["text"]]
    shown = tokens.select("nll_before", "nll", "kl", "asked", "downstream").rows()
    figure = go.Figure(
        go.Bar(
            x=tokens["token"].to_list(),
            y=change,
            marker={
                "color": [VERMILION if value > 0 else BLUE for value in change],
                "line": {"width": 0},
            },
            customdata=[(name, *row) for name, row in zip(names, shown, strict=True)],
            hovertemplate=(
                "token %{x}: %{customdata[0]}<br>loss on the next token %{y:+.4f} nats<br>"
                "%{customdata[1]:.3f} before, %{customdata[2]:.3f} now<br>"
                "KL %{customdata[3]:.2g} nats<br>decisions changed: %{customdata[4]} asked for, "
                "%{customdata[5]} downstream<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(title="token")
    figure.update_yaxes(title="change in loss (nats)")
    dress(figure, answer.trace, title="Which predictions would change", height=340)
    return figure.update_layout(showlegend=False, bargap=0.05, margin={"b": 60})


def text_frontier_figure(
    trace: Trace, points: pl.DataFrame, *, chosen: WhatIf | None = None
) -> go.Figure:
    """Draw loss against budget on one text, with what was traced and what is chosen.

    Parameters
    ----------
    trace
        The trace of the text.
    points
        Rows of ``skipviz.experiments.counterfactuals.text_frontier``, as many as there are.
    chosen
        An answer to mark.
    """
    points = points.sort("realised")
    figure = go.Figure(
        go.Scatter(
            x=points["realised"].to_list(),
            y=points["loss"].to_list(),
            customdata=points.select("threshold", "kl", "same_top", "flop_share").rows(),
            mode="lines+markers",
            name="one threshold for all sites",
            line={"color": BLUE},
            hovertemplate=(
                "budget %{x:.3f}<br>loss %{y:.4f} nats per token<br>threshold %{customdata[0]:.6f}"
                "<br>KL %{customdata[1]:.3g} nats, same top prediction %{customdata[2]:.1%}"
                "<br>%{customdata[3]:.1%} of the dense FLOPs<extra></extra>"
            ),
        )
    )
    marked = [] if chosen is None else [("chosen", "diamond", ORANGE, chosen.costs[1])]
    if chosen is not None:
        marked.insert(0, ("as traced", "circle-open", INK, chosen.costs[0]))
    for name, symbol, colour, cost in marked:
        figure.add_trace(
            go.Scatter(
                x=[cost.budget],
                y=[cost.loss],
                mode="markers",
                name=name,
                marker={
                    "symbol": symbol, "size": 13, "color": colour, "line": {"width": 2}
                },
                hovertemplate=f"{name}: budget %{{x:.3f}}, loss %{{y:.4f}} nats<extra></extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(
        title="budget realised on this text<br>(share of dense attention and MLP FLOPs)",
        tickformat=".0%",
    )
    figure.update_yaxes(title="loss (nats per token)")
    return dress(figure, trace, title="What this text loses at each budget", height=420)
