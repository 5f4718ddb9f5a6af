"""Figures of one selected token: its path through the gates, and what comes next."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.plots.style.frame import (
    dress,
    margin_limit,
    note,
    run_axis,
    token_row,
    ungated_layers,
    ungated_steps,
    units,
)
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import ALWAYS_RUNS, INK, UNIT_COLOURS, UNIT_NAMES
from skipviz.traces import Trace, layer_order, running_steps


def token_path(trace: Trace, token: int) -> go.Figure:
    """Draw each site's score against its threshold for one token, attention and MLP apart.

    Filled circles ran, hollow diamonds were skipped. The scale is that of the whole trace, so
    that tokens can be compared; only a token far outside it has a wider one.

    Parameters
    ----------
    trace
        A trace of at least one token.
    token
        Its number in the trace, from 0.

    Raises
    ------
    ValueError
        If the trace has no such token.
    """
    row = token_row(trace, token)
    sites = trace.sites.with_columns(
        *(
            pl.Series(name, trace.matrix(name)[token])
            for name in ("score", "threshold", "exec_count", "forced")
        ),
        margin=pl.Series(trace.margin[token]),
        step=pl.Series(running_steps(trace.sites)),
    )
    shown = units(trace)
    figure = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.1)
    for place, unit in enumerate(shown, start=1):
        _add_unit(figure, sites.filter(pl.col("unit") == unit), unit, place)
        always = ungated_steps(trace, unit)
        figure.add_trace(
            go.Scatter(
                x=always,
                y=[0.0] * len(always),
                mode="markers",
                name="always runs (no gate)",
                legendgroup="always",
                legendrank=1001,
                showlegend=place == 1 and bool(always),
                marker={"symbol": "square", "size": 8, "color": ALWAYS_RUNS},
                customdata=ungated_layers(trace, unit),
                hovertemplate=f"layer %{{customdata}}: {UNIT_NAMES[unit]} always runs"
                "<extra></extra>",
            ),
            row=place,
            col=1,
        )
        figure.update_yaxes(title=f"{UNIT_NAMES[unit]}:<br>{_against(sites)}", row=place, col=1)
    # First tokens often score far from all others, which would flatten the rest of the trace.
    own = sites.filter(pl.col("margin").is_finite())["margin"].abs().to_numpy().max(initial=0.0)
    limit = max(1.2 * margin_limit(trace, share=0.99), 1.1 * float(own))
    figure.update_yaxes(range=[-limit, limit], zeroline=True, zerolinecolor=INK, zerolinewidth=1)
    figure.update_xaxes(
        range=[-0.7, len(layer_order(trace.sites, layers=trace.run["layers"].item())) - 0.3],
        tickformat="d",
    )
    figure.update_xaxes(title=run_axis(trace), row=len(shown))
    dress(figure, trace, title=_path_title(trace, row), height=190 + 150 * len(shown))
    figure.update_layout(margin={"l": 80})
    if not trace.sites.height:
        note(figure, "This model has no gates: no decisions were taken for this token.", above=True)
    return figure


def next_tokens(trace: Trace, token: int) -> go.Figure:
    """Draw the five most likely tokens after one token, and mark the one that came.

    Parameters
    ----------
    trace
        A trace; without statistics the figure says so.
    token
        Its number in the trace, from 0.

    Raises
    ------
    ValueError
        If the trace has no such token.
    """
    row = token_row(trace, token)
    following = _following(trace, row)
    came_next = token_label(following["text"]) if following else "the end of the text"
    title = f"Most likely next tokens · actual: {came_next}"
    figure = go.Figure()
    figure.update_xaxes(title="probability", tickformat=".0%", range=[0.0, 1.0])
    if row["top_probs"] is None:
        figure.update_yaxes(showticklabels=False)
        dress(figure, trace, title=title, height=280)
        return note(
            figure, "Recorded without likely next tokens; trace with statistics=True to see them."
        )
    ids, probabilities, texts = (
        np.array(row[name]) for name in ("top_ids", "top_probs", "top_texts")
    )
    # A vocabulary of fewer than five tokens leaves places empty.
    real = ids >= 0
    came = ids == (following["token_id"] if following else -1)
    labels = [token_label(str(text)) for text in texts]
    for name, chosen, colour in (
        ("came next", came & real, UNIT_COLOURS["block"]),
        ("other", ~came & real, ALWAYS_RUNS),
    ):
        places = np.flatnonzero(chosen)
        if len(places):
            figure.add_trace(
                go.Bar(
                    y=places,
                    x=probabilities[places],
                    orientation="h",
                    name=name,
                    marker={"color": colour},
                    text=[f"{p:.1%}" for p in probabilities[places]],
                    textposition="outside",
                    cliponaxis=False,
                    customdata=ids[places],
                    hovertemplate="%{x:.2%}, token id %{customdata}<extra></extra>",
                )
            )
    figure.update_yaxes(
        tickvals=np.flatnonzero(real),
        ticktext=[labels[place] for place in np.flatnonzero(real)],
        range=[len(ids) - 0.5, -0.5],
        showgrid=False,
        title="token",
    )
    dress(figure, trace, title=title, height=340)
    figure.update_layout(bargap=0.3, barmode="overlay", margin={"l": 130, "r": 50})
    return figure


def _against(sites: pl.DataFrame) -> str:
    """Return what is drawn: where a high score skips, the sign is reversed."""
    turned = sites.height > 0 and bool((sites["polarity"] < 0).all())
    return "threshold - score" if turned else "score - threshold"


def _add_unit(figure: go.Figure, sites: pl.DataFrame, unit: str, place: int) -> None:
    # A token that has left was not asked: it lies on the line, skipped and without a score.
    sites = sites.with_columns(pl.col("margin").fill_nan(0.0))
    stems = np.full((sites.height, 3, 2), np.nan)
    stems[:, :2, 0] = sites["step"].to_numpy()[:, None]
    stems[:, 0, 1] = 0.0
    stems[:, 1, 1] = sites["margin"].to_numpy()
    figure.add_trace(
        go.Scatter(
            x=stems[..., 0].ravel(),
            y=stems[..., 1].ravel(),
            mode="lines",
            line={"color": INK, "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=place,
        col=1,
    )
    for ran, symbol in ((True, "circle"), (False, "diamond-open")):
        part = sites.filter((pl.col("exec_count") > 0) == ran)
        figure.add_trace(
            go.Scatter(
                x=part["step"].to_numpy(),
                y=part["margin"].to_numpy(),
                mode="markers",
                name=f"{UNIT_NAMES[unit]} {'ran' if ran else 'skipped'}",
                marker={
                    "symbol": symbol,
                    "size": 9 if ran else 10,
                    "color": UNIT_COLOURS[unit],
                    "line": {"width": 0 if ran else 2},
                },
                customdata=_hover(part),
                hovertemplate="%{customdata[0]} %{customdata[1]}<br>score %{customdata[2]}, "
                "threshold %{customdata[3]}<extra></extra>",
                showlegend=bool(part.height),
            ),
            row=place,
            col=1,
        )


def _hover(sites: pl.DataFrame) -> list[list[str]]:
    return [
        [label, _outcome(count, forced), _shown(score), f"{threshold:.4g}"]
        for label, count, forced, score, threshold in sites.select(
            "label", "exec_count", "forced", "score", "threshold"
        ).iter_rows()
    ]


def _shown(score: float) -> str:
    return "none (the gate was not evaluated)" if math.isnan(score) else f"{score:.4g}"


def _outcome(count: int, forced: bool) -> str:
    what = "skipped" if count == 0 else "ran" if count == 1 else f"ran {count} times"
    return what + (" (forced)" if forced else "")


def _path_title(trace: Trace, row: dict[str, Any]) -> str:
    parts = [
        f"Token {row['token']}, {token_label(row['text'])}",
        f"{row['layers_used']:g} of {trace.run['layers'][0]} layers",
    ]
    return " · ".join(parts)


def _following(trace: Trace, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of the next token of the same text, if the trace has it."""
    if row["token"] + 1 >= len(trace):
        return None
    following = trace.tokens.row(row["token"] + 1, named=True)
    place = (following["sequence"], following["position"])
    return following if place == (row["sequence"], row["position"] + 1) else None
