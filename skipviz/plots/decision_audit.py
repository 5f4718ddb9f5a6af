"""What decisions were worth, and what others would change: by cell, by score, by token."""

from __future__ import annotations

from typing import Literal

import numpy as np
import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.counterfactual import WhatIf
from skipviz.errors import InputError
from skipviz.plots.style.cell_map import NATS_SHOWN, cell_map
from skipviz.plots.style.frame import dress, naming_intervals, units
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import BLUE, INK, UNIT_COLOURS, UNIT_NAMES, VERMILION, margin_end
from skipviz.traces import Trace

Shown = Literal["net", "margin", "regret"]
TITLES: dict[Shown, tuple[str, str]] = {
    "net": ("Net utility of running each unit", "nats, minus the price of its FLOPs"),
    "margin": ("Gate scores relative to the threshold", "score - threshold, gate's own scale"),
    "regret": ("Wrong decisions", "nats lost: wrongly skipped +, wrongly run -"),
}


def utility_map(trace: Trace, cells: pl.DataFrame, *, shown: Shown = "net") -> go.Figure:
    """Draw a figure of every decision, token by layer, attention and MLP apart.

    Parameters
    ----------
    trace
        The audited trace.
    cells
        What ``skipviz.analysis.gates.quality.judged`` returned.
    shown
        ``net``, utility less what the FLOPs cost; ``margin``, the score's distance from the
        threshold; ``regret``, what wrong decisions lost, signed by what would have been right.

    Raises
    ------
    ValueError
        If there is nothing of that name to show.
    """
    if shown not in TITLES:
        raise InputError(f"shown={shown!r} is not one of {', '.join(TITLES)}.")
    title, unit_of_it = TITLES[shown]
    sign = np.where(cells["worth"].to_numpy(), 1.0, -1.0) if shown == "regret" else 1.0
    values = cells[shown].to_numpy() * sign
    matrix = np.full((len(trace), trace.sites.height), np.nan)
    matrix[cells["token"].to_numpy(), cells["site"].to_numpy()] = values
    limit = margin_end(trace) if shown == "margin" else NATS_SHOWN
    return cell_map(
        trace,
        matrix,
        title=title,
        unit=unit_of_it,
        limit=limit,
        of="from the threshold" if shown == "margin" else "nats",
    )


def reliability_figure(trace: Trace, table: pl.DataFrame) -> go.Figure:
    """Draw what units are worth in equal parts of the decisions, by score.

    Parameters
    ----------
    trace
        The audited trace.
    table
        What ``skipviz.analysis.gates.quality.reliability`` returned.
    """
    figure = go.Figure()
    figure.add_hline(y=0.0, line={"color": INK, "dash": "dash"})
    figure.add_trace(
        go.Scatter(
            x=[place + 1 for place in table["bin"].to_list()],
            y=table["net"].to_list(),
            error_y={"array": table["net_margin"].to_list()},
            customdata=table.select("margin", "worth", "executed", "cells").rows(),
            mode="lines+markers",
            line={"color": UNIT_COLOURS["block"]},
            name=naming_intervals("net utility, mean over blocks of tokens", table["net_margin"]),
            hovertemplate=(
                "%{y:.4f} nats<br>mean score - threshold %{customdata[0]:.4f}<br>"
                "worth running %{customdata[1]:.1%}, ran %{customdata[2]:.1%}<br>"
                "%{customdata[3]:,} decisions<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(title="decisions by score, from lowest to highest tenth", dtick=1)
    figure.update_yaxes(title="net utility (nats)")
    return dress(figure, trace, title="Do useful units get high scores?", height=420)


def ranking_by_layer(trace: Trace, table: pl.DataFrame) -> go.Figure:
    """Draw, for each site, how well its score ranks what its unit is worth.

    Parameters
    ----------
    trace
        The audited trace.
    table
        What ``skipviz.analysis.gates.quality.quality_by`` returned by ``label``.
    """
    named = table.join(trace.sites.select("label", "layer", "unit"), on="label")
    figure = go.Figure()
    figure.add_hline(y=0.5, line={"color": INK, "dash": "dash"}, annotation_text="chance")
    for unit in units(trace):
        part = named.filter(pl.col("unit") == unit).sort("layer")
        if part.is_empty():
            continue
        figure.add_trace(
            go.Scatter(
                x=part["layer"].to_list(),
                y=part["auroc"].fill_nan(None).to_list(),
                mode="markers+lines",
                name=UNIT_NAMES[unit],
                line={"color": UNIT_COLOURS[unit]},
                marker={"symbol": "circle" if unit == "attn" else "square"},
                hovertemplate="layer %{x}<br>AUROC %{y:.3f}<extra></extra>",
            )
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="AUROC of the score", range=[0, 1])
    return dress(figure, trace, title="Which gates separate useful from useless?", height=420)


def quality_by_class(trace: Trace, table: pl.DataFrame) -> go.Figure:
    """Draw, for each class of tokens, how many decisions were right and what wrong ones lost.

    Parameters
    ----------
    trace
        The audited trace.
    table
        What ``skipviz.analysis.gates.quality.quality_by`` returned by ``kind``, and ``tokens``, how
        many there are of each.
    """
    ordered = table.with_columns(per_token=pl.col("regret") / pl.col("tokens")).sort("per_token")
    names = ordered["kind"].to_list()
    hover = ordered.select("tokens", "right", "auroc").fill_nan(None).rows()
    figure = go.Figure(
        go.Bar(
            x=ordered["per_token"].to_list(),
            y=names,
            orientation="h",
            marker={"color": UNIT_COLOURS["block"]},
            customdata=[
                (f"{tokens:,}", f"{right:.1%}", "none" if auroc is None else f"{auroc:.3f}")
                for tokens, right, auroc in hover
            ],
            hovertemplate=(
                "%{y}: %{x:.3f} nats per token<br>%{customdata[0]} tokens<br>right decisions "
                "%{customdata[1]}<br>AUROC %{customdata[2]}<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(title="regret per token (nats)")
    figure.update_yaxes(title="class of token", automargin=True)
    dress(figure, trace, title="Which tokens lose the most", height=170 + 32 * len(names))
    return figure.update_layout(showlegend=False, margin={"l": 120, "b": 60})


def loss_change_figure(answer: WhatIf, *, ends: tuple[int, int] | None = None) -> go.Figure:
    """Draw by how much the loss after each token would change.

    Parameters
    ----------
    answer
        What ``skipviz.what_if`` returned.
    ends
        The first and the last token that are drawn; None: all.
    """
    tokens = answer.tokens.drop_nulls("nll_change")
    if ends is not None:
        tokens = tokens.filter(pl.col("token").is_between(*ends))
    change = tokens["nll_change"].to_numpy()
    names = pl.Series("name", [token_label(text) for text in tokens["text"]], dtype=pl.String)
    shown = tokens.select(names, "nll_before", "nll", "kl", "asked", "downstream")
    figure = go.Figure(
        go.Bar(
            x=tokens["token"].to_numpy(),
            y=change,
            # Arrays: of lists, plotly looks at every number and every colour.
            marker={
                "color": (change > 0).astype(np.float64),
                "colorscale": [[0, BLUE], [1, VERMILION]],
                "cmin": 0,
                "cmax": 1,
                "line": {"width": 0},
            },
            customdata=shown.to_numpy(),
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
    dress(figure, answer.trace, title="How the loss after each token would change", height=340)
    return figure.update_layout(showlegend=False, bargap=0.05, margin={"b": 60})
