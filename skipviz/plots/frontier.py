"""Frontiers: what each policy loses at each budget, and what one text loses."""

from __future__ import annotations

import html
from collections import Counter

import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.flops import BUDGET_TOLERANCE
from skipviz.plots.style.frame import dress, naming_intervals
from skipviz.plots.style.palette import BLUE, INK, ORANGE, POLICY_COLOURS
from skipviz.traces import Trace

POLICY_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down")
SAME_POLICY_DASHES = ("solid", "dot", "dashdot", "longdash")
"""Of models whose policy, and so whose colour, is the same."""


def frontier_figure(table: pl.DataFrame) -> go.Figure:
    """Draw loss over the dense model against the budget realised, with 95% intervals.

    Parameters
    ----------
    table
        What ``skipviz.evaluation.frontier.frontier`` returned. The dense model is the line at
        zero; a model at several budgets is one line.
    """
    table = table.with_row_index("row")
    figure = go.Figure()
    figure.add_hline(
        y=0.0, line={"color": INK, "dash": "dash"}, annotation_text="dense",
        annotation_position="top left",  # guarded points come near it on the right
    )  # fmt: skip
    skipping = table.filter(pl.col("policy") != "dense")
    groups = skipping.group_by("model", "policy", maintain_order=True)
    drawn: Counter[str] = Counter()
    for number, (_, rows) in enumerate(groups):
        model, policy = rows["model"][0], rows["policy"][0]
        others = drawn[policy]  # of the same colour
        drawn[policy] += 1
        rows = rows.sort("realised")
        gap = rows["gap"]
        figure.add_trace(
            go.Scatter(
                x=rows["realised"].to_list(),
                y=gap.to_list(),
                error_y={
                    "array": (rows["gap_high"] - gap).to_list(),
                    "arrayminus": (gap - rows["gap_low"]).to_list(),
                },
                customdata=rows.select(_asked(), "kl", "top1", "flop_share", "row").rows(),
                name=f"{model} ({policy})",
                mode="lines+markers",
                marker={
                    "symbol": POLICY_SYMBOLS[number % len(POLICY_SYMBOLS)]
                    + ("-open" if others else ""),
                    "size": 12 if others else 9,  # to be seen around a point at the same place
                },
                line={
                    "color": POLICY_COLOURS.get(policy, INK),
                    "dash": SAME_POLICY_DASHES[others % len(SAME_POLICY_DASHES)],
                },
                # A point that is chosen does not make the others fade.
                unselected={"marker": {"opacity": 1}},
                hovertemplate=(
                    "%{customdata[0]}realised %{x:.3f}<br>%{y:.3f} nats over dense"
                    "<br>KL %{customdata[1]:.3f}, same most likely token %{customdata[2]:.1%}"
                    "<br>%{customdata[3]:.1%} of the dense FLOPs<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(
        title="budget realised<br>(share of dense attention and MLP FLOPs)", tickformat=".0%"
    )
    axis = naming_intervals("loss over dense, nats per token", skipping["gap_low"])
    figure.update_yaxes(title=axis, rangemode="tozero")
    return dress(figure, _measured(table), title="What skipping costs", height=560)


def _measured(table: pl.DataFrame) -> str:
    """Say over which dense model and on how much text, escaped."""
    dense = table.filter(pl.col("policy") == "dense")["model"].to_list()
    documents, tokens = (max(table[name].to_list()) for name in ("documents", "tokens"))
    parts = [f"over {name}" for name in dense] + [f"{documents:,} documents", f"{tokens:,} tokens"]
    return html.escape(" · ".join(parts), quote=False).replace("$", "&#36;")


def _asked() -> pl.Expr:
    """Say in words what a policy was asked for."""
    return (
        pl.when(pl.col("budget").is_not_null())
        .then(
            pl.format(
                "budget {}{}: ",
                "budget",
                pl.when((pl.col("budget") - pl.col("realised")).abs() > BUDGET_TOLERANCE)
                .then(pl.lit(" asked and missed"))
                .otherwise(pl.lit("")),
            )
        )
        .when(pl.col("limit").is_not_null())
        .then(pl.format("at most {} nats over dense: ", "limit"))
        .otherwise(pl.lit(""))
        .alias("asked")
    )


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
