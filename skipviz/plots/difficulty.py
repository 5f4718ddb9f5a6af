"""Layers used against what makes a token hard, and against the task."""

from __future__ import annotations

import html

import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.layers.difficulty import DIFFICULTIES
from skipviz.analysis.layers.task_depth import PUBLISHED_NAME
from skipviz.errors import InputError
from skipviz.plots.style.frame import dress, naming_intervals, note
from skipviz.plots.style.palette import ORANGE, UNIT_COLOURS, layers_used_range
from skipviz.traces import Trace


def difficulty_curve(trace: Trace, parts: pl.DataFrame, *, measure: str) -> go.Figure:
    """Draw layers used in equal parts of the tokens by one measure of difficulty.

    The axis of layers is the same for every measure, so that they can be compared. A part whose
    tokens are all of one stretch of text has no interval, and a hollow mark.

    Parameters
    ----------
    trace
        The trace.
    parts
        What ``skipviz.analysis.layers.difficulty.depth_by_difficulty`` returned.
    measure
        One of ``skipviz.analysis.layers.difficulty.DIFFICULTIES``.

    Raises
    ------
    ValueError
        If there is no such measure.
    """
    if measure not in DIFFICULTIES:
        raise InputError(f"measure={measure!r} is not one of {', '.join(DIFFICULTIES)}.")
    fewest, most = layers_used_range(trace)
    margin = pl.col("margin").fill_null(0.0)
    # No mean can lie beyond what tokens can use, however little is known of it.
    parts = parts.with_columns(
        low=pl.max_horizontal(pl.col("layers") - margin, pl.lit(fewest)),
        high=pl.min_horizontal(pl.col("layers") + margin, pl.lit(most)),
    )
    part = parts.filter(measure=measure).sort("part")
    holds = measure.endswith("_before")
    figure = go.Figure(
        go.Scatter(
            x=[("yes" if value else "no") if holds else value for value in part["value"]],
            y=part["layers"].to_list(),
            error_y={
                "array": _known(part, part["high"] - part["layers"]),
                "arrayminus": _known(part, part["layers"] - part["low"]),
                "symmetric": False,
            },
            customdata=list(zip(part["tokens"], _notes(part), strict=True)),
            mode="markers" if holds else "lines+markers",
            line={"color": UNIT_COLOURS["block"]},
            marker={"size": 8, "symbol": [_mark(margin) for margin in part["margin"]]},
            hovertemplate=(
                "%{x}: %{y:.2f} layers, %{customdata[0]:,} tokens%{customdata[1]}<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(title=DIFFICULTIES[measure], type="category" if holds else "linear")
    figure.update_yaxes(
        title=naming_intervals("layers used", part["margin"]), range=_reached(parts)
    )
    dress(figure, trace, title=_titled(measure), height=330)
    figure.update_layout(showlegend=False, margin={"b": 60})
    return figure if part.height else note(figure, "Unknown for these tokens.")


def _reached(parts: pl.DataFrame) -> list[float] | None:
    """Return the layers that means and intervals reach, and one more at either end."""
    if parts.is_empty():
        return None
    low, high = parts["low"].to_numpy(), parts["high"].to_numpy()
    return [float(low.min()) - 1, float(high.max()) + 1]


def _known(part: pl.DataFrame, width: pl.Series) -> list[float | None]:
    """Return widths of intervals, none where there is no interval."""
    return [None if no else each for each, no in zip(width, part["margin"].is_null(), strict=True)]


def _notes(part: pl.DataFrame) -> list[str]:
    none = "<br>no interval: all from one part of the text"
    return [none if margin is None else "" for margin in part["margin"]]


def _mark(margin: float | None) -> str:
    return "circle-open" if margin is None else "circle"


def _titled(measure: str) -> str:
    return {
        "surprisal": "By surprisal",
        "entropy": "By entropy",
        "nll": "By loss",
        "log_frequency": "By frequency",
        "token_before": "By repetition of the token",
        "bigram_before": "By repetition of the pair",
    }[measure]


def task_figure(trace: Trace, table: pl.DataFrame) -> go.Figure:
    """Draw the share of all layers that each task takes, beside what was published.

    Parameters
    ----------
    trace
        The trace of the prompts.
    table
        What ``skipviz.analysis.layers.task_depth.layers_by_task`` returned.
    """
    layers = trace.run["layers"][0]
    share, low, high = ((table[name] / layers) for name in ("layers", "low", "high"))
    tasks = table["task"].to_list()
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=share.to_list(),
            y=tasks,
            error_x={"array": (high - share).to_list(), "arrayminus": (share - low).to_list()},
            customdata=table.select("layers", "prompts", "nll").rows(),
            mode="markers",
            name=naming_intervals(f"{html.escape(trace.run['model'][0])}, {layers} layers", low),
            marker={"color": UNIT_COLOURS["block"], "size": 10},
            hovertemplate=(
                "%{y}: %{x:.1%}, %{customdata[0]:.2f} layers<br>%{customdata[1]} prompts, loss "
                "%{customdata[2]:.2f} nats<extra></extra>"
            ),
        )
    )
    figure.add_trace(
        go.Scatter(
            x=table["published_share"].to_list(),
            y=tasks,
            customdata=table["published"].to_list(),
            mode="markers",
            name=PUBLISHED_NAME,
            marker={"color": ORANGE, "size": 10, "symbol": "diamond-open", "line": {"width": 2}},
            hovertemplate="%{y}: %{x:.1%}, about %{customdata} layers<extra></extra>",
        )
    )
    figure.update_xaxes(title="layers used, share of all", tickformat=".0%")
    figure.update_yaxes(
        title="task", categoryorder="array", categoryarray=tasks[::-1], automargin=True
    )
    return dress(figure, trace, title="Layers used by task", height=400)
