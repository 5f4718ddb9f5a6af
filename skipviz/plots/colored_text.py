"""The text itself, coloured, as HTML that needs nothing else: what a trace shows in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.tokens.characters import new_characters
from skipviz.errors import InputError
from skipviz.plots.style.labels import html_text
from skipviz.plots.style.palette import (
    CIVIDIS,
    LOSS,
    LOSS_RANGE,
    interpolate,
    layers_used_range,
    readable_on,
    shares_along,
)
from skipviz.traces import Trace

Colour = Literal["layers_used", "nll", "surprisal"]

LIMIT = 2000
_LEVELS = 32
_STRONGEST = 0.7
_TITLES = {
    "layers_used": "layers used",
    "nll": "loss on the next token, nats",
    "surprisal": "surprisal of the token, nats",
}


@dataclass(frozen=True)
class _Scale:
    """Colours of one quantity: a CSS class a level, and the two ends in its unit."""

    prefix: str
    styles: list[str]
    gradient: str
    ends: tuple[float, float]
    labels: tuple[str, str]


def token_html(
    trace: Trace,
    *,
    colour: Colour = "layers_used",
    ends: tuple[float, float] | None = None,
    limit: int = LIMIT,
) -> str:
    """Return the text of a trace as HTML, every token coloured.

    Tokens that share characters form one coloured piece with the mean of their values. The scale
    of layers used is the model's, that of losses 0 to 10 nats, so that texts can be compared.

    Parameters
    ----------
    trace
        Any trace.
    colour
        ``layers_used``; ``nll``, the loss of predicting the next token; or ``surprisal``, of the
        token itself.
    ends
        Layers or nats at the ends of the scale, the lower first; values beyond take the colour
        of the end. Narrow it where all tokens of a text look alike.
    limit
        Tokens to show, from 1; a sentence says if there are more.

    Returns
    -------
    str
        A ``<div>`` with its own style, readable on light and dark pages.

    Raises
    ------
    ValueError
        If there is no such colouring, the ends are not in ascending order, or the limit is below 1.
    """
    if colour not in _TITLES:
        raise InputError(f"colour={colour!r} is not one of {', '.join(_TITLES)}.")
    if limit < 1:
        raise InputError(f"limit={limit} shows nothing; give at least 1.")
    if ends is not None and not ends[0] < ends[1]:
        raise InputError(f"ends={ends} are not in ascending order; give the lower end first.")
    scale = _layers_scale(trace, ends) if colour == "layers_used" else _loss_scale(ends)
    several = trace.tokens["sequence"].n_unique() > 1
    shown = trace.tokens.head(limit).with_columns(fresh=new_characters())
    values = shown.group_by("span", maintain_order=True).agg(pl.col(colour).mean())[colour]
    spans = shown.partition_by("span", maintain_order=True)
    levels = _levels(values.cast(pl.Float64).fill_null(np.nan).to_numpy(), scale.ends)
    pieces = []
    source: tuple[Any, Any] | None = None
    for span, level in zip(spans, levels, strict=True):
        first = span.row(0, named=True)
        here = (first["source"], first["sequence"])
        if several and here != source:
            pieces.append(f'<div class="skipviz-source">{html_text(str(first["source"]))}</div>')
        source = here
        class_ = f' class="{scale.prefix}{level}"' if level >= 0 else ""
        tip = html.escape(_tip(span, trace.run["layers"][0])).replace("\n", "&#10;")
        pieces.append(f'<span{class_} title="{tip}">{html_text("".join(span["fresh"]))}</span>')
    return (
        f'<div class="skipviz"><style>{_style(scale)}</style>'
        f"{_legend(trace, colour, scale)}"
        f'<div class="skipviz-text" dir="auto">{"".join(pieces)}</div>'
        f"{_rest(trace, limit)}</div>"
    )


def _layers_scale(trace: Trace, ends: tuple[float, float] | None) -> _Scale:
    fewest, most = layers_used_range(trace)
    low, high = ends or (fewest, most)
    colours = interpolate(CIVIDIS, np.linspace(0.0, 1.0, _LEVELS))
    inks = np.where(readable_on(colours), "#000", "#fff")
    return _Scale(
        prefix="skipviz-l",
        styles=[
            f"background:rgb({red},{green},{blue});color:{ink}"
            for (red, green, blue), ink in zip(colours.tolist(), inks, strict=True)
        ],
        gradient=",".join(CIVIDIS),
        ends=(low, high),
        labels=(
            f"{low:.3g}" + " or fewer" * (low > fewest),
            f"{high:.3g}" + " or more" * (high < most),
        ),
    )


def _loss_scale(ends: tuple[float, float] | None) -> _Scale:
    low, high = ends or LOSS_RANGE
    red, green, blue = (int(LOSS[i : i + 2], 16) for i in (1, 3, 5))
    strengths = np.linspace(0.0, _STRONGEST, _LEVELS)
    return _Scale(
        prefix="skipviz-n",
        # See-through, so that the page's own text colour stays readable.
        styles=[f"background:rgba({red},{green},{blue},{alpha:.2f})" for alpha in strengths],
        gradient=f"rgba({red},{green},{blue},0),rgba({red},{green},{blue},{_STRONGEST})",
        ends=(low, high),
        labels=(f"{low:g}" + " or less" * (low > 0), f"{high:g} or more"),
    )


def _levels(values: npt.NDArray[np.float64], ends: tuple[float, float]) -> npt.NDArray[np.int64]:
    """Return each value's level, from 0, or -1 where there is no value."""
    known = np.isfinite(values)
    levels = np.full(len(values), -1, dtype=np.int64)
    levels[known] = np.rint(shares_along(values[known], ends) * (_LEVELS - 1)).astype(np.int64)
    return levels


def _tip(span: pl.DataFrame, layers: int) -> str:
    lines = []
    for row in span.iter_rows(named=True):
        parts = [f"token {row['token']}", f"{row['layers_used']:g} of {layers} layers"]
        if row["surprisal"] is not None:
            parts.append(f"surprisal {row['surprisal']:.2f} nats")
        if row["nll"] is not None:
            parts.append(f"loss {row['nll']:.2f} nats")
        lines.append(" · ".join(parts))
    return "\n".join(lines)


def _style(scale: _Scale) -> str:
    return (
        ".skipviz{font-family:system-ui,sans-serif;line-height:1.7}"
        ".skipviz-text{white-space:pre-wrap;overflow-wrap:anywhere}"
        ".skipviz-text span{border-radius:2px}"
        ".skipviz-source{font-weight:600;margin-top:.6em}"
        ".skipviz-note{font-size:.85em;margin:.3em 0}"
        ".skipviz-bar{display:inline-block;width:12em;height:.8em;margin:0 .5em;"
        "border:1px solid rgba(128,128,128,.6)}"
        + "".join(f".{scale.prefix}{i}{{{style}}}" for i, style in enumerate(scale.styles))
    )


def _legend(trace: Trace, colour: str, scale: _Scale) -> str:
    run = trace.run.row(0, named=True)
    budget = "" if run["budget"] is None else f" · budget {run['budget']:.2f}"
    source = f"{run['model']} · {run['policy']} policy{budget} · {run['dtype']}"
    missing = (
        " This trace has none. Trace with statistics=True to see it."
        if len(trace) and trace.tokens[colour].null_count() == len(trace)
        else ""
    )
    low, high = scale.labels
    return (
        f'<div class="skipviz-note">{_TITLES[colour]}: {low}'
        f'<span class="skipviz-bar" style="background:linear-gradient(to right,{scale.gradient})">'
        f"</span>{high}{missing}<br>{html_text(source)}</div>"
    )


def _rest(trace: Trace, limit: int) -> str:
    if not len(trace):
        return '<div class="skipviz-note">The trace has no tokens.</div>'
    if len(trace) <= limit:
        return ""
    return (
        f'<div class="skipviz-note">The first {limit:,} of {len(trace):,} tokens are shown. To '
        f"see all, call skipviz.plots.token_html(trace, limit={len(trace)}).</div>"
    )
