"""The layer by token map: every decision over a part of the text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.errors import InputError
from skipviz.plots.style.frame import (
    check_tokens,
    dress,
    note,
    ungated_layers,
    ungated_steps,
    units,
)
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import (
    ALWAYS_RUNS,
    INK,
    MARGINS,
    SKIPPED,
    UNIT_COLOURS,
    UNIT_NAMES,
    margin_end,
    scale,
)
from skipviz.traces import Trace, running_steps

Value = Literal["exec_count", "score"]

_ROW, _GAP, _EDGES = 9, 40, 170
_NAME = 104
"""How long the name of a panel is, in pixels: a panel of few layers is as high as that."""
_MOST_SHADES = 8


@dataclass(frozen=True)
class _Band:
    """Neighbouring layers that all have gates on a unit, or all have none.

    Attributes
    ----------
    first
        Row of the lowest.
    rows
        Names of the layers, the lowest first.
    sites
        The site of each row; empty where the unit always runs.
    """

    first: int
    rows: list[str]
    sites: list[int]


def layer_map(
    trace: Trace, *, value: Value = "exec_count", start: int = 0, count: int = 512
) -> go.Figure:
    """Draw layers against tokens, attention and MLP apart.

    Parameters
    ----------
    trace
        A trace of at least one token; without gates every layer shows as always run.
    value
        ``exec_count`` shows what ran. ``score`` shows how far the score lies from its threshold,
        on the gate's own scale: the same colours for every stretch of a trace.
    start
        First token, from 0.
    count
        Tokens to show, from 1; fewer are shown at the end of the trace.

    Raises
    ------
    ValueError
        If the stretch has no tokens, or there is no such value.
    """
    check_tokens(trace)
    if value not in ("exec_count", "score"):
        raise InputError(f"value={value!r} is not one of exec_count, score.")
    if not 0 <= start < len(trace) or count < 1:
        raise InputError(
            f"start={start} and count={count} select no tokens; start lies between 0 and "
            f"{len(trace) - 1}, and count is at least 1."
        )
    window = slice(start, min(start + count, len(trace)))
    panels = {unit: _bands(trace, unit) for unit in units(trace)}
    heights = [sum(len(band.rows) for band in bands) for bands in panels.values()]
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        row_heights=heights,
        vertical_spacing=0.06 if len(panels) > 1 else 0.0,
    )
    row = max(_ROW, _NAME / min(heights))
    tokens = [
        f"{number} {token_label(text, longest=16)}"
        for number, text in enumerate(trace.tokens["text"][window], start=window.start)
    ]
    cells = _Executed(trace) if value == "exec_count" else _Scores(trace)
    for place, (unit, bands) in enumerate(panels.items(), start=1):
        for band in bands:
            drawn = cells.draw(unit, band, window) if band.sites else _always(unit, band, tokens)
            drawn.update(x0=0, dx=1, y0=band.first, dy=1)
            figure.add_trace(drawn, row=place, col=1)
        figure.update_yaxes(title=f"{UNIT_NAMES[unit]}: layer", row=place, col=1)
        _name_rows(figure, bands, place)
    figure.update_xaxes(type="category", categoryarray=tokens, nticks=6, tickangle=0)
    figure.update_xaxes(title="token", row=len(panels))
    figure.update_layout(coloraxis=cells.coloraxis)
    entries = cells.legend([unit for unit, bands in panels.items() if any(b.sites for b in bands)])
    if any(not band.sites for bands in panels.values() for band in bands):
        entries.append(("always runs (no gate)", ALWAYS_RUNS))
    _add_legend(figure, entries)
    dress(
        figure,
        trace,
        title=f"{cells.title}: tokens {window.start} to {window.stop - 1} of {len(trace):,}",
        height=_EDGES + _GAP * len(panels) + round(row * sum(heights)),
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    if not trace.sites.height:
        note(figure, "This model has no gates: every layer runs for every token.", above=True)
    return figure


class _Executed:
    """Colours by how often a unit ran."""

    title = "What ran"
    coloraxis = None

    def __init__(self, trace: Trace) -> None:
        self._counts = trace.matrix("exec_count")
        self._most = int(np.clip(self._counts.max(initial=1), 1, _MOST_SHADES))

    def draw(self, unit: str, band: _Band, window: slice) -> go.Heatmap:
        return go.Heatmap(
            z=np.ascontiguousarray(self._counts[window, band.sites].T),
            zmin=-0.5,
            zmax=self._most + 0.5,
            colorscale=_steps([SKIPPED, *self._shades(unit)]),
            showscale=False,
            hovertemplate=f"token %{{x}}<br>layer %{{y}}<br>{UNIT_NAMES[unit]} ran: %{{z}}"
            "<extra></extra>",
        )

    def legend(self, gated: list[str]) -> list[tuple[str, str]]:
        entries = []
        for unit in gated:
            for times, shade in enumerate(self._shades(unit), start=1):
                often = _often(times) if self._most > 1 else ""
                entries.append((f"{UNIT_NAMES[unit]} ran{often}", shade))
        return [*entries, ("skipped", SKIPPED)] if gated else []

    def _shades(self, unit: str) -> list[str]:
        colour = UNIT_COLOURS[unit]
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        strengths = [1.0] if self._most == 1 else np.linspace(0.45, 1.0, self._most)
        return [f"rgba({red}, {green}, {blue}, {strength:.2f})" for strength in strengths]


class _Scores:
    """Colours by how far a score lies from its threshold."""

    title = "Gate scores"

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        limit = margin_end(trace)
        self.coloraxis = {
            "cmin": -limit,
            "cmax": limit,
            "colorscale": scale(MARGINS),
            "showscale": bool(trace.sites.height),
            "colorbar": {
                "title": {"text": "score - threshold, gate's own scale", "side": "right"},
                "thickness": 14,
            },
        }

    def draw(self, unit: str, band: _Band, window: slice) -> go.Heatmap:
        score, threshold, count = (
            self._trace.matrix(name)[window, band.sites].T.astype(np.float32)
            for name in ("score", "threshold", "exec_count")
        )
        return go.Heatmap(
            z=self._trace.margin[window, band.sites].T,
            coloraxis="coloraxis",
            customdata=np.stack([score, threshold, count], axis=-1),
            hovertemplate=(
                f"token %{{x}}<br>layer %{{y}}<br>{UNIT_NAMES[unit]} ran: %{{customdata[2]}}<br>"
                "score %{customdata[0]:.3f}, threshold %{customdata[1]:.3f}<extra></extra>"
            ),
            hoverongaps=False,
        )

    def legend(self, gated: list[str]) -> list[tuple[str, str]]:
        return []


def _always(unit: str, band: _Band, tokens: list[str]) -> go.Heatmap:
    return go.Heatmap(
        z=np.ones((len(band.rows), len(tokens)), dtype=np.uint8),
        colorscale=_steps([ALWAYS_RUNS]),
        showscale=False,
        hovertemplate=f"token %{{x}}<br>layer %{{y}}<br>{UNIT_NAMES[unit]} always runs"
        "<extra></extra>",
    )


def _bands(trace: Trace, unit: str) -> list[_Band]:
    sites = trace.sites.filter(pl.col("unit") == unit)
    step = running_steps(trace.sites)
    # In running order: layers that are visited again stand there again.
    rows: list[tuple[int, int, int, int | None]] = [
        (int(step[site]), layer, visit, site)
        for layer, visit, site in sites.select("layer", "visit", "site").rows()
    ]
    layers = zip(ungated_steps(trace, unit), ungated_layers(trace, unit), strict=True)
    rows += [(place, layer, 0, None) for place, layer in layers]
    rows.sort(key=lambda row: row[0])
    bands: list[_Band] = []
    for gated, group in groupby(rows, key=lambda row: row[-1] is not None):
        members = list(group)
        bands.append(
            _Band(
                first=sum(len(band.rows) for band in bands),
                rows=[
                    f"{layer}" + (f".v{visit}" if visit else "") for _, layer, visit, _ in members
                ],
                sites=[site for *_, site in members if site is not None] if gated else [],
            )
        )
    return bands


def _name_rows(figure: go.Figure, bands: list[_Band], place: int) -> None:
    rows = [row for band in bands for row in band.rows]
    if rows == [str(layer) for layer in range(len(rows))]:
        figure.update_yaxes(tickformat="d", nticks=8, row=place, col=1)
    else:
        # All of them: what is hovered shows under its name only where there is a tick.
        figure.update_yaxes(
            tickvals=list(range(len(rows))), ticktext=rows, tickfont={"size": 9}, row=place, col=1
        )


def _add_legend(figure: go.Figure, entries: list[tuple[str, str]]) -> None:
    outline = {"width": 1, "color": INK}
    for name, colour in entries:
        marker = {"symbol": "square", "size": 12, "color": colour, "line": outline}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker))


def _often(times: int) -> str:
    if times == 1:
        return " once"
    return f" {times} times" + (" or more" if times == _MOST_SHADES else "")


def _steps(colours: list[str]) -> list[list[float | str]]:
    size = len(colours)
    return [[edge / size, colour] for i, colour in enumerate(colours) for edge in (i, i + 1)]
