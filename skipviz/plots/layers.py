"""What layers specialise in: classes, probes, predictions, difficulty, attention, tasks."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.difficulty import DIFFICULTIES
from skipviz.analysis.specialties import LEVEL
from skipviz.analysis.task_depth import PUBLISHED_NAME
from skipviz.plots.frame import dress, explain, units
from skipviz.plots.palette import (
    ALWAYS_RUNS,
    INK,
    MARGINS,
    UNIT_COLOURS,
    UNIT_NAMES,
    scale,
)
from skipviz.trace import Trace

ODDS_SHOWN = 3.0
"""Where the colours of log-odds end, the same for every text: odds 20 times as high or low."""
FOLDS = 5
"""Texts from which on probes are judged by whole texts that they have not seen."""
PART_COLOURS = {"all": INK, "executed": "#009E73", "skipped": "#CC79A7"}
"""Tokens that ran a layer, and that skipped it."""
PART_NAMES = {"all": "all tokens", "executed": "ran the layer", "skipped": "skipped it"}
_PART_DASHES = {"all": "solid", "executed": "solid", "skipped": "dash"}
_PART_SYMBOLS = {"all": "circle", "executed": "square", "skipped": "diamond"}


def specialty_map(trace: Trace, table: pl.DataFrame, *, feature: str) -> go.Figure:
    """Draw how much likelier each site is to run for each class of a feature than for others.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.analysis.specialties.specialties`` returned.
    feature
        One of its features.

    Raises
    ------
    ValueError
        If the table has no such feature.
    """
    part = table.filter(feature=feature)
    if part.is_empty():
        raise ValueError(
            f"feature={feature!r} has no class that is looked at; choose one of "
            f"{', '.join(table['feature'].unique(maintain_order=True)) or 'none'}."
        )
    classes = part["class"].unique(maintain_order=True).reverse().to_list()
    rows = units(trace)
    figure = make_subplots(
        rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.07,
        subplot_titles=[UNIT_NAMES[unit] for unit in rows],
    )  # fmt: skip
    for place, unit in enumerate(rows, start=1):
        cells = part.filter(unit=unit).sort("layer", "visit")
        _log_odds(figure, cells, classes, place)
    figure.update_xaxes(title="layer", row=len(rows), col=1)
    height = 170 + len(rows) * (50 + 24 * max(3, len(classes)))
    dress(figure, trace, title="Which tokens run which layers", height=height)
    return figure.update_layout(
        coloraxis={
            "colorscale": scale(MARGINS),
            "cmin": -ODDS_SHOWN,
            "cmax": ODDS_SHOWN,
            "colorbar": {
                "title": {"text": "log-odds of running, class over others", "side": "right"},
                "thickness": 14,
            },
        },
        legend={"itemclick": False, "itemdoubleclick": False},
        margin={"l": 10, "t": 106},
    )


def _log_odds(figure: go.Figure, cells: pl.DataFrame, classes: list[str], place: int) -> None:
    hover = cells.select("rate", "rate_outside", "low", "high", "q", "tokens", "label").rows()
    named = [html.escape(name) for name in cells["class"]]
    figure.add_trace(
        go.Heatmap(
            x=cells["layer"].to_list(),
            y=named,
            z=cells["log_odds"].to_list(),
            customdata=[[_shown(value) for value in row] for row in hover],
            coloraxis="coloraxis",
            hoverongaps=False,
            ygap=1,
            hovertemplate=(
                "%{customdata[6]}, %{y}: runs for %{customdata[0]}<br>"
                "for all others %{customdata[1]}<br>log-odds %{z:.2f}, 95% %{customdata[2]} to "
                "%{customdata[3]}<br>q %{customdata[4]}, %{customdata[5]} tokens<extra></extra>"
            ),
        ),
        row=place,
        col=1,
    )
    sure = cells.filter(pl.col("q") < LEVEL)
    figure.add_trace(
        go.Scatter(
            x=sure["layer"].to_list(),
            y=[html.escape(name) for name in sure["class"]],
            mode="markers",
            name=f"beyond chance (q < {LEVEL})",
            marker={"symbol": "circle", "size": 6, "color": "#000000",
                    "line": {"color": "#FFFFFF", "width": 1}},
            hoverinfo="skip",
            showlegend=place == 1,
        ),
        row=place,
        col=1,
    )  # fmt: skip
    figure.update_yaxes(
        title="class of token",
        categoryorder="array",
        categoryarray=[html.escape(name) for name in classes],
        automargin=True,
        row=place,
        col=1,
    )


def probe_accuracy(trace: Trace, table: pl.DataFrame, *, feature: str) -> go.Figure:
    """Draw how often a probe is right behind each layer, and on its control task.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.experiments.probes.probes`` returned.
    feature
        One of its features.
    """
    part = table.filter(feature=feature, part="all").sort("layer")
    figure = go.Figure()
    lines = (
        ("accuracy", "probe", UNIT_COLOURS["block"], "solid", "circle"),
        ("control", "control task: random labels of words", "#E69F00", "dash", "diamond"),
        ("majority", "always the largest class", INK, "dot", None),
    )
    for column, name, colour, dash, symbol in lines:
        figure.add_trace(
            go.Scatter(
                x=part["layer"].to_list(),
                y=part[column].to_list(),
                mode="lines" if symbol is None else "lines+markers",
                name=name,
                line={"color": colour, "dash": dash},
                marker={"symbol": symbol or "circle"},
                hovertemplate="layer %{x}: %{y:.1%} right<extra></extra>",
            )
        )
    _by_layer(figure)
    several = trace.tokens["sequence"].n_unique() >= FOLDS
    unseen = "unseen texts" if several else "unseen stretches of text"
    figure.update_yaxes(title=f"accuracy on {unseen}", tickformat=".0%", range=[0, 1.02])
    return dress(figure, trace, title="What a linear probe reads", height=420)


def probe_selectivity(trace: Trace, table: pl.DataFrame, *, feature: str) -> go.Figure:
    """Draw selectivity behind each layer, for tokens that ran it and that skipped it.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.experiments.probes.probes`` returned.
    feature
        One of its features.
    """
    figure = go.Figure()
    figure.add_hline(y=0.0, line={"color": INK, "dash": "dot"})
    for place, (name, colour) in enumerate(PART_COLOURS.items()):
        part = table.filter(feature=feature, part=name).sort("layer")
        if part.is_empty():
            continue
        figure.add_trace(
            go.Scatter(
                # Side by side, so that the intervals can be told apart.
                x=[layer + 0.18 * (place - 1) for layer in part["layer"]],
                y=part["selectivity"].to_list(),
                error_y={"array": (1.96 * part["error"]).to_list(), "thickness": 1, "width": 0},
                customdata=part.select("layer", "accuracy", "control", "tokens").rows(),
                mode="lines+markers",
                name=PART_NAMES[name],
                line={"color": colour, "dash": _PART_DASHES[name], "width": 1.5},
                marker={"symbol": _PART_SYMBOLS[name], "size": 6},
                hovertemplate=(
                    "layer %{customdata[0]}: %{y:.3f}<br>probe %{customdata[1]:.1%}, control "
                    "%{customdata[2]:.1%}<br>%{customdata[3]:,} tokens<extra></extra>"
                ),
            )
        )
    _by_layer(figure)
    figure.update_yaxes(title="accuracy less control (95% interval)")
    return dress(figure, trace, title="Accuracy over the control task", height=420)


def _by_layer(figure: go.Figure) -> None:
    figure.update_xaxes(title="behind layer (-1: embeddings)")


def settled_histogram(trace: Trace, settled: pl.DataFrame) -> go.Figure:
    """Draw behind which layer predictions are settled, and which gated layer ran last.

    Parameters
    ----------
    trace
        The trace.
    settled
        What ``skipviz.experiments.prediction_by_depth.settling`` returned.
    """
    figure = go.Figure()
    bars = (
        ("settled", "prediction settled behind", UNIT_COLOURS["block"]),
        ("exit_depth", "deepest gated layer that ran", "#E69F00"),
    )
    for column, name, colour in bars:
        counted = settled[column].drop_nulls().value_counts().sort(column)
        if counted.is_empty():
            continue
        figure.add_trace(
            go.Bar(
                x=counted[column].to_list(),
                y=(counted["count"] / settled.height).to_list(),
                customdata=counted["count"].to_list(),
                name=name,
                marker_color=colour,
                hovertemplate="layer %{x}: %{y:.1%} of tokens (%{customdata:,})<extra></extra>",
            )
        )
    figure.update_xaxes(title="layer (-1: embeddings)", range=[-1.6, trace.run["layers"][0] - 0.4])
    figure.update_yaxes(title="share of tokens", tickformat=".0%")
    return dress(figure, trace, title="Where predictions are settled", height=420)


def influence_bars(trace: Trace, turned: pl.DataFrame) -> go.Figure:
    """Draw how far each layer turns the hidden state.

    Parameters
    ----------
    trace
        The trace.
    turned
        What ``skipviz.experiments.prediction_by_depth.turning`` returned.
    """
    figure = go.Figure()
    for name in ("executed", "skipped"):
        part = turned.drop_nulls(name)
        if part.is_empty():
            continue
        figure.add_trace(
            go.Bar(
                x=part["layer"].to_list(),
                y=part[name].to_list(),
                customdata=part[f"{name}_tokens"].to_list(),
                name=PART_NAMES[name],
                marker_color=PART_COLOURS[name],
                hovertemplate="layer %{x}: %{y:.4f}, %{customdata:,} tokens<extra></extra>",
            )
        )
    always = turned.filter(pl.col("executed_tokens").is_null())
    if always.height:
        figure.add_trace(
            go.Bar(
                x=always["layer"].to_list(),
                y=always["influence"].to_list(),
                name="always runs (no gate)",
                marker_color=ALWAYS_RUNS,
                hovertemplate="layer %{x}: %{y:.4f}<extra></extra>",
            )
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="Block Influence: 1 - cosine (log scale)", type="log")
    return dress(figure, trace, title="How far each layer turns the state", height=420)


def difficulty_curve(trace: Trace, parts: pl.DataFrame, *, measure: str) -> go.Figure:
    """Draw layers used in equal parts of the tokens by one measure of difficulty.

    The axis of layers is the same for every measure, so that they can be compared.

    Parameters
    ----------
    trace
        The trace.
    parts
        What ``skipviz.analysis.difficulty.depth_by_difficulty`` returned.
    measure
        One of ``skipviz.analysis.difficulty.DIFFICULTIES``.

    Raises
    ------
    ValueError
        If there is no such measure.
    """
    if measure not in DIFFICULTIES:
        raise ValueError(f"measure={measure!r} is not one of {', '.join(DIFFICULTIES)}.")
    part = parts.filter(measure=measure).sort("part")
    holds = measure.endswith("_before")
    figure = go.Figure(
        go.Scatter(
            x=[("yes" if value else "no") if holds else value for value in part["value"]],
            y=part["layers"].to_list(),
            error_y={"array": (1.96 * part["error"].fill_null(0.0)).to_list()},
            customdata=part["tokens"].to_list(),
            mode="markers" if holds else "lines+markers",
            line={"color": UNIT_COLOURS["block"]},
            marker={"size": 8},
            hovertemplate="%{x}: %{y:.2f} layers, %{customdata:,} tokens<extra></extra>",
        )
    )
    figure.update_xaxes(title=DIFFICULTIES[measure], type="category" if holds else "linear")
    figure.update_yaxes(title="layers used (95% interval)", range=_reached(parts))
    dress(figure, trace, title=_titled(measure), height=330)
    figure.update_layout(showlegend=False, margin={"b": 60})
    return figure if part.height else explain(figure, "Not known for these tokens.")


def _reached(parts: pl.DataFrame) -> list[float] | None:
    """Return the layers that means and intervals reach, and one more at either end."""
    if parts.is_empty():
        return None
    layers = parts["layers"].to_numpy()
    width = 1.96 * parts["error"].fill_null(0.0).to_numpy()
    return [float((layers - width).min()) - 1, float((layers + width).max()) + 1]


def _titled(measure: str) -> str:
    return {
        "surprisal": "By surprisal",
        "entropy": "By ambiguity",
        "nll": "By loss",
        "log_frequency": "By frequency",
        "token_before": "By repetition of the token",
        "bigram_before": "By repetition of the pair",
    }[measure]


def attention_figure(trace: Trace, layers: pl.DataFrame) -> go.Figure:
    """Draw how much attention goes to tokens that skipped the layer.

    Parameters
    ----------
    trace
        The trace.
    layers
        Of ``skipviz.experiments.attention_paid.AttentionPaid``.
    """
    figure = go.Figure()
    lines = (
        ("paid", "attention paid to tokens that skipped it", UNIT_COLOURS["attn"], "solid"),
        ("blind", "if all were looked at alike", INK, "dot"),
        ("changed", "change of the output with them hidden", UNIT_COLOURS["mlp"], "dash"),
    )
    for column, name, colour, dash in lines:
        figure.add_trace(
            go.Scatter(
                x=layers["layer"].to_list(),
                y=layers[column].to_list(),
                customdata=layers.select("tokens", "first", "own", "earlier").rows(),
                mode="lines+markers",
                name=name,
                line={"color": colour, "dash": dash},
                marker={"symbol": "square" if column == "changed" else "circle"},
                hovertemplate=(
                    "layer %{x}: %{y:.1%}<br>%{customdata[0]:,} tokens; first token "
                    "%{customdata[1]:.1%}, own %{customdata[2]:.1%}, earlier %{customdata[3]:.1%} "
                    "of all attention<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="share", tickformat=".0%", rangemode="tozero")
    return dress(figure, trace, title="Attention to tokens that skipped the layer", height=440)


def task_figure(trace: Trace, table: pl.DataFrame) -> go.Figure:
    """Draw the share of all layers that each task takes, beside what was published.

    Parameters
    ----------
    trace
        The trace of the prompts.
    table
        What ``skipviz.analysis.task_depth.by_task`` returned.
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
            name=f"{html.escape(trace.run['model'][0])} ({layers} layers), 95% interval",
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
            marker={"color": "#E69F00", "size": 10, "symbol": "diamond-open", "line": {"width": 2}},
            hovertemplate="%{y}: %{x:.1%}, about %{customdata} layers<extra></extra>",
        )
    )
    figure.update_xaxes(title="layers used, share of all", tickformat=".0%")
    figure.update_yaxes(
        title="task", categoryorder="array", categoryarray=tasks[::-1], automargin=True
    )
    return dress(figure, trace, title="Layers that tasks take", height=400)


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
