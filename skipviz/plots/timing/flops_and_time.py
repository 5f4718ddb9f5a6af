"""FLOPs and time of each part, dense, masked and gathered."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.timing.measured import RUNTIMES, TIMED_PARTS, Cost
from skipviz.analysis.timing.parts import MODEL_PARTS, part_totals
from skipviz.plots.style.frame import dress, note
from skipviz.plots.style.palette import (
    BLUE,
    COMPONENT_COLOURS,
    GREEN,
    INK,
    OLIVE,
    UNIT_COLOURS,
    VERMILION,
)
from skipviz.traces import Trace

RUNTIME_COLOURS = {"dense": INK, "masked": VERMILION, "gathered": BLUE}
"""How decisions are carried out."""
TIMED_COLOURS = {
    "attention": UNIT_COLOURS["attn"],
    "MLP": UNIT_COLOURS["mlp"],
    "gates": COMPONENT_COLOURS["gates"],
    "adapters": COMPONENT_COLOURS["adapters"],
    "gathering": GREEN,
    "head": COMPONENT_COLOURS["head"],
    "other": OLIVE,
}
"""What time is spent on."""


def flops_by_part_figure(trace: Trace, parts: pl.DataFrame) -> go.Figure:
    """Draw the FLOPs of each part, dense and as decided, over the whole dense forward.

    Parameters
    ----------
    trace
        The trace.
    parts
        What ``skipviz.analysis.timing.parts.flops_by_part`` returned.
    """
    totals = part_totals(parts).filter((pl.col("dense_flops") > 0) | (pl.col("flops") > 0))
    figure = go.Figure()
    for column, name, colour in (("dense_share", "dense", INK), ("share", "as decided", BLUE)):
        flops = totals["dense_flops" if column == "dense_share" else "flops"]
        figure.add_bar(
            x=totals[column].to_list(),
            y=totals["part"].to_list(),
            customdata=(flops / 1e9).to_list(),
            orientation="h",
            name=name,
            marker={"color": colour},
            hovertemplate="%{y}: %{x:.1%}, %{customdata:.3f} GFLOPs<extra></extra>",
        )
    figure.update_xaxes(title="share of the dense model's FLOPs", tickformat=".0%")
    figure.update_yaxes(
        title="component",
        categoryorder="array",
        categoryarray=list(MODEL_PARTS)[::-1],
        automargin=True,
    )
    return dress(figure, trace, title="FLOPs by part", height=430)


def time_by_part_figure(trace: Trace, found: Cost, *, phase: str) -> go.Figure:
    """Draw where the time goes, dense, masked and gathered, and where it would ideally go.

    Parameters
    ----------
    trace
        The trace.
    found
        What ``skipviz.cost`` returned.
    phase
        ``prefill`` or ``decode``.
    """
    own = found.parts.filter(phase=phase)
    names = [runtime for runtime in RUNTIMES if runtime in own["runtime"].to_list()]
    ideal = own.filter(pl.col("ideal_seconds").is_not_null())
    bars = [(name, own.filter(runtime=name), "seconds") for name in names]
    if ideal.height:
        bars.append(("ideal", ideal.filter(runtime=ideal["runtime"][-1]), "ideal_seconds"))
    figure = go.Figure()
    for part in TIMED_PARTS:
        figure.add_bar(
            x=[float(rows.filter(part=part)[column].sum()) * 1e3 for _, rows, column in bars],
            y=[name for name, _, _ in bars],
            orientation="h",
            name=part,
            marker={"color": TIMED_COLOURS[part]},
            hovertemplate=f"%{{y}}, {part}: %{{x:.2f}} ms<extra></extra>",
        )
    what = "text" if phase == "prefill" else "token"
    figure.update_xaxes(title=f"ms per {what} ({phase})")
    figure.update_yaxes(
        title="runtime of the forward pass", categoryorder="array",
        categoryarray=[name for name, _, _ in bars][::-1], automargin=True,
    )  # fmt: skip
    figure.update_layout(barmode="relative")
    dress(figure, trace, title=f"Where the time goes ({phase})", height=400)
    return figure if bars else note(figure, "Unknown for this model.")


def latency_figure(trace: Trace, found: Cost) -> go.Figure:
    """Draw which share of decoded tokens takes at most how long.

    Parameters
    ----------
    trace
        The trace.
    found
        What ``skipviz.cost`` returned.
    """
    figure = go.Figure()
    decoded = found.runs.filter(phase="decode")
    for runtime in RUNTIMES:
        seconds = decoded.filter(runtime=runtime)["seconds"].sort().to_list()
        if seconds:
            figure.add_scatter(
                x=[each * 1e3 for each in seconds],
                y=[(place + 1) / len(seconds) for place in range(len(seconds))],
                name=runtime,
                mode="lines",
                line={"color": RUNTIME_COLOURS[runtime], "shape": "hv"},
                hovertemplate=f"{runtime}: %{{y:.1%}} take at most %{{x:.2f}} ms<extra></extra>",
            )
    figure.update_xaxes(title="ms per decoded token")
    figure.update_yaxes(title="share of tokens", tickformat=".0%", range=[0, 1.02])
    dress(figure, trace, title="Latency of decoded tokens", height=400)
    return figure if decoded.height else note(figure, "No token was decoded.")
