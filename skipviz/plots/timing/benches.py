"""Time over dense on a grid of settings, machines side by side."""

from __future__ import annotations

import html

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.timing.bench_rows import machine_lines
from skipviz.plots.style.frame import dress, naming_intervals, note
from skipviz.plots.style.palette import BLUE, GREEN, INK, OLIVE, ORANGE, PINK, VERMILION

BENCH_SETTINGS = {
    "length": "tokens",
    "batch": "texts at once",
    "budget": "share",
    "threads": "of torch",
    "dtype": "number format",
    "device": "where it ran",
}
"""What a bench varies, and in which unit."""
_LINES_APART = ("model", "version", "policy", "text", "decoded", "rounds")
"""What has lines of its own where it varies, beside ``BENCH_SETTINGS``."""
_LINES = (BLUE, VERMILION, GREEN, ORANGE, PINK, OLIVE)
_DASHES = {"prefill": "solid", "decode": "dash"}


def bench_figure(rows: pl.DataFrame, *, along: str = "length") -> go.Figure:
    """Draw the time over dense on a grid, machines side by side.

    Parameters
    ----------
    rows
        Of one or several benches.
    along
        The setting on the horizontal axis: one of ``BENCH_SETTINGS``. Each
        combination of the others that vary is a line.
    """
    shown = rows.filter(pl.col("runtime") == "gathered").drop_nulls("time_over_dense")
    shown = shown.with_columns(machine=machine_lines(shown))
    machines = shown["machine"].unique(maintain_order=True).to_list()
    shown = _numbered(shown)
    settings = [name for name in (*_LINES_APART, *BENCH_SETTINGS) if name != along]
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
                "array": (part["high"] - middle).to_list(),
                "arrayminus": (middle - part["low"]).to_list(),
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
    kind = "category" if along in ("dtype", "budget", "device") else "log"
    figure.update_xaxes(title=f"{along} ({BENCH_SETTINGS[along]})", type=kind)
    axis = naming_intervals("time over dense, share", shown["low"])
    figure.update_yaxes(title=axis, rangemode="tozero", col=1)
    counted = f"{shown.height:,} rows · {', '.join(sorted(set(shown['model'])))}"
    dress(figure, _escaped(counted), title="The gathered runtime over the dense model", height=460)
    figure.update_layout(margin={"t": 120})
    return figure if shown.height else note(figure, "No row says what the gathered runtime takes.")


def _numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with numbers, from 1, for what only hashes tell apart: texts, and versions."""
    found = rows.with_row_index("_row")
    for name, hashes, within in (
        ("version", ("weights_sha256", "setup_sha256"), ("model", "policy", "budget", "dtype")),
        ("text", ("text_sha256",), ("model",)),
    ):
        first = pl.col("_row").min().over(*within, *hashes)
        found = found.with_columns(first.alias(name)).with_columns(
            pl.col(name).rank("dense").over(within)
        )
    return found.drop("_row")


def _line_name(varied: list[str], key: list[object]) -> str:
    words = [f"{name} {value}" for name, value in zip(varied, key, strict=False)]
    return _escaped(", ".join([*words, str(key[-1])]))


def _wrapped(machine: str) -> str:
    return _escaped(machine).replace(", ", "<br>", 1)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("$", "&#36;")
