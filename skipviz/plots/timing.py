"""What skipping saves in FLOPs and in time, part by part and over a grid of settings."""

from __future__ import annotations

import html

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.timing.bench_rows import machine_lines
from skipviz.analysis.timing.measured import RUNTIMES, TIMED_PARTS, Cost
from skipviz.analysis.timing.parts import PARTS, part_totals
from skipviz.plots.style.frame import dress, note
from skipviz.plots.style.palette import (
    BLUE,
    COMPONENT_COLOURS,
    GREEN,
    INK,
    OLIVE,
    ORANGE,
    PINK,
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
BENCH_SETTINGS = {
    "length": "tokens",
    "batch": "texts at once",
    "budget": "share",
    "threads": "of torch",
    "dtype": "number format",
    "device": "where it ran",
}
"""What a bench varies, and in which unit."""
_LINES = (BLUE, VERMILION, GREEN, ORANGE, PINK, OLIVE)
_DASHES = {"prefill": "solid", "decode": "dash"}


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
        title="component", categoryorder="array", categoryarray=list(PARTS)[::-1], automargin=True
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


def bench_figure(rows: pl.DataFrame, *, along: str = "length") -> go.Figure:
    """Draw the time over dense on a grid, machines side by side.

    Parameters
    ----------
    rows
        Of one or several benches.
    along
        The setting on the horizontal axis: ``batch``, ``length``, ``budget``, ``threads`` or
        ``dtype``. Each combination of the others that vary is a line.
    """
    shown = rows.filter(pl.col("runtime") == "gathered").drop_nulls("time_over_dense")
    shown = shown.with_columns(machine=machine_lines(shown))
    machines = shown["machine"].unique(maintain_order=True).to_list()
    settings = [name for name in ("model", *BENCH_SETTINGS) if name != along]
    varied = [name for name in settings if shown[name].n_unique() > 1]
    figure = make_subplots(
        rows=1, cols=max(len(machines), 1), shared_yaxes=True,
        subplot_titles=[_wrapped(each) for each in machines],
    )  # fmt: skip
    keys = [*varied, "phase"]
    colours: dict[tuple[object, ...], str] = {}
    named: set[str] = set()
    for (machine, *key), part in shown.group_by("machine", *keys, maintain_order=True):
        part = part.sort(along)
        line = tuple(key[:-1])
        colour = colours.setdefault(line, _LINES[len(colours) % len(_LINES)])
        name = _line_name(varied, key)
        middle = part["time_over_dense"]
        figure.add_scatter(
            x=part[along].to_list(),
            y=middle.to_list(),
            error_y={
                "array": (part["high"] - middle).fill_null(0.0).to_list(),
                "arrayminus": (middle - part["low"]).fill_null(0.0).to_list(),
            },
            customdata=part.select("seconds", "flops_saved", "over_flops").rows(),
            name=name,
            legendgroup=name,
            showlegend=name not in named,
            mode="lines+markers",
            line={"color": colour, "dash": _DASHES[str(key[-1])]},
            hovertemplate=(
                f"{name}<br>%{{x}}: %{{y:.3f}} of the dense time<br>%{{customdata[0]:.4f}} s, "
                "FLOPs saved %{customdata[1]:.1%}, time over FLOPs saved %{customdata[2]:.2f}"
                "<extra></extra>"
            ),
            row=1,
            col=machines.index(str(machine)) + 1,
        )
        named.add(name)
    figure.add_hline(y=1.0, line={"color": INK, "dash": "dot"})
    kind = "category" if along in ("dtype", "budget") else "log"
    figure.update_xaxes(title=f"{along} ({BENCH_SETTINGS[along]})", type=kind)
    figure.update_yaxes(title="time over dense (share)", rangemode="tozero", col=1)
    counted = f"{shown.height:,} rows · {', '.join(sorted(set(shown['model'])))}"
    dress(figure, _escaped(counted), title="The saving depends on the machine", height=460)
    figure.update_layout(margin={"t": 120})
    return figure if shown.height else note(figure, "No row says what the gathered runtime takes.")


def _line_name(varied: list[str], key: list[object]) -> str:
    words = [f"{name} {value}" for name, value in zip(varied, key, strict=False)]
    return _escaped(", ".join([*words, str(key[-1])]))


def _wrapped(machine: str) -> str:
    return _escaped(machine).replace(", ", "<br>", 1)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("$", "&#36;")
