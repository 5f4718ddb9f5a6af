"""What drives a prediction or a score: over the text, over depth, and beside exact flips."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.statistics.multiple_tests import correlation_found
from skipviz.plots.style.cell_map import cell_map
from skipviz.plots.style.frame import dress, name_what_is_drawn, units
from skipviz.plots.style.labels import html_text, provenance, token_label
from skipviz.plots.style.palette import (
    INK,
    MARGINS,
    UNIT_COLOURS,
    UNIT_NAMES,
    interpolate,
    readable_on,
    shares_along,
)
from skipviz.traces import Trace

ENDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Where colours of shares may end. The ladder is coarse: targets of one kind share a step."""


def share_end(values: pl.Series) -> float:
    """Return where the colour scale of shares ends: the first step that holds nearly all."""
    known = np.abs(values.drop_nulls().to_numpy())
    most = float(np.quantile(known, 0.98)) if len(known) else 0.0
    return next((end for end in ENDS if end >= most), ENDS[-1])


def attribution_html(
    trace: Trace, pieces: pl.DataFrame, *, target: int, what: str, unit: str = "nats"
) -> str:
    """Return the text as HTML, every piece coloured by what it contributed.

    Parameters
    ----------
    trace
        Whose text it is.
    pieces
        What ``skipviz.analysis.gates.word_shares.shares_by_word`` returned; those without a share
        stay uncoloured.
    target
        The token whose prediction or score is explained; its piece is outlined.
    what
        What is explained, for the legend.
    unit
        Of the shares.

    Returns
    -------
    str
        A ``<div>`` whose styles are its own, readable on light and dark pages.
    """
    end = share_end(pieces["attribution"])
    values = pieces["attribution"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.isfinite(values)
    colours = interpolate(MARGINS, shares_along(np.where(known, values, 0.0), (-end, end)))
    inks = np.where(readable_on(colours), "#000", "#fff")
    written = []
    for row, (red, green, blue), ink in zip(
        pieces.iter_rows(named=True), colours.tolist(), inks, strict=True
    ):
        share = row["attribution"]
        styles = ["border-radius:2px"]
        tip = f"token {row['first']}"
        if row["last"] > row["first"]:
            tip = f"tokens {row['first']} to {row['last']}"
        if share is None:
            styles.append("opacity:.5")
        else:
            styles.append(f"background:rgb({red},{green},{blue});color:{ink}")
            tip += f": {share:+z.4f} {unit}"
        if row["first"] <= target <= row["last"]:
            styles.append(f"outline:2px solid {INK}")
            tip += " (explained here)"
        written.append(
            f'<span style="{";".join(styles)}" title="{html.escape(tip)}">'
            f"{html_text(row['text'])}</span>"
        )
    return (
        '<div style="font-family:system-ui,sans-serif;line-height:1.9">'
        f"{_legend(end, what, unit)}"
        '<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;font-size:1.1em">'
        f"{''.join(written)}</div>"
        f'<div style="font-size:.85em;margin:.3em 0">{provenance(trace)}</div></div>'
    )


def depth_map(trace: Trace, cells: pl.DataFrame, *, what: str) -> go.Figure:
    """Draw what executing each unit for each token was worth, by its share of a loss.

    Parameters
    ----------
    trace
        The trace whose loss was attributed.
    cells
        What ``skipviz.analysis.gates.agreement.worth_of_cells`` returned; those without a share
        stay blank.
    what
        Whose loss, for the title.
    """
    values = np.full((int(cells["token"].max()) + 1, trace.sites.height), np.nan)  # type: ignore[arg-type]
    shares = cells["share"].fill_null(np.nan).to_numpy()
    values[cells["token"].to_numpy(), cells["site"].to_numpy()] = shares
    return cell_map(
        trace,
        values,
        title=f"What running each unit is worth: {what}",
        unit="loss lowered by (nats)",
    )


def depth_bars(trace: Trace, cells: pl.DataFrame) -> go.Figure:
    """Draw the shares of each layer, summed over tokens, the two paths apart.

    Parameters
    ----------
    trace, cells
        As for ``depth_map``.
    """
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=["what ran", "what was skipped"], horizontal_spacing=0.12
    )
    for column, executed in enumerate((True, False), start=1):
        for unit in units(trace):
            part = (
                cells.filter(
                    pl.col("executed") == executed,
                    pl.col("unit") == unit,
                    pl.col("share").is_not_null(),
                )
                .group_by("layer")
                .agg(pl.col("share").sum(), cells=pl.len())
                .sort("layer")
            )
            figure.add_trace(
                go.Bar(
                    x=part["layer"].to_list(),
                    y=part["share"].to_list(),
                    customdata=part["cells"].to_list(),
                    name=UNIT_NAMES[unit],
                    legendgroup=unit,
                    marker={"color": UNIT_COLOURS[unit]},
                    hovertemplate=(
                        f"{UNIT_NAMES[unit]} of layer %{{x}}<br>%{{y:.4f}} nats over "
                        "%{customdata:,} tokens<extra></extra>"
                    ),
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title="layer", row=1, col=column)
    figure.update_yaxes(title="loss lowered by (nats)", row=1, col=1)
    figure.update_yaxes(title="nats", row=1, col=2)
    dress(name_what_is_drawn(figure), trace, title="Which layers lowered the loss", height=420)
    return figure.update_layout(barmode="group", margin={"t": 116})


def share_scatter(trace: Trace, compared: pl.DataFrame) -> go.Figure:
    """Draw shares against the exact utilities of the same cells.

    Parameters
    ----------
    trace
        The trace whose loss was attributed.
    compared
        What ``skipviz.analysis.gates.agreement.beside_flips`` returned.
    """
    texts = trace.tokens["text"]
    figure = go.Figure()
    ends = [
        float(f(compared["utility"]))  # type: ignore[arg-type]
        for f in (pl.Series.min, pl.Series.max)
    ]
    figure.add_trace(
        go.Scatter(
            x=ends, y=ends, mode="lines", line={"color": INK, "dash": "dash"}, name="equal",
            hoverinfo="skip",
        )
    )  # fmt: skip
    for executed, name, symbol, colour in (
        (True, "ran", "circle", UNIT_COLOURS["attn"]),
        (False, "skipped", "diamond-open", UNIT_COLOURS["mlp"]),
    ):
        part = compared.filter(pl.col("executed") == executed)
        figure.add_trace(
            go.Scatter(
                x=part["utility"].to_list(),
                y=part["share"].to_list(),
                mode="markers",
                name=name,
                marker={"symbol": symbol, "color": colour, "size": 8},
                customdata=[
                    (token, token_label(texts[token]), label)
                    for token, label in part.select("token", "label").rows()
                ],
                hovertemplate=(
                    "token %{customdata[0]}: %{customdata[1]}<br>%{customdata[2]}<br>"
                    "exact %{x:.4f} nats<br>share %{y:.4f} nats<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(title="exact utility of the flip (nats)")
    figure.update_yaxes(title="share (nats)")
    return dress(figure, trace, title="Do shares agree with exact flips?", height=460)


def correlation_figure(trace: Trace, table: pl.DataFrame, *, method: str, value: str) -> go.Figure:
    """Draw the coefficient of each site, plain beside controlled for covariates.

    Filled marks differ from 0 at a false discovery rate of 5%; the dashed line is 0, the band the
    interval over all sites. An interval that would not hold is not drawn.

    Parameters
    ----------
    trace
        Whose scores.
    table
        What ``skipviz.correlate`` returned.
    method
        The coefficient to draw.
    value
        What the scores were correlated with, for the title.
    """
    titles = {False: "not controlled", True: "controlled for covariates"}
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=list(titles.values()),
        horizontal_spacing=0.06,
    )  # fmt: skip
    mine = table.filter(pl.col("method") == method)
    for column, controlled in enumerate(titles, start=1):
        part = mine.filter(pl.col("controlled") == controlled)
        over_all = part.filter(pl.col("scope") == "all").row(0, named=True)
        if over_all["low"] is not None:
            figure.add_hrect(
                y0=over_all["low"], y1=over_all["high"], fillcolor=INK, opacity=0.2, line_width=0,
                row=1, col=column,
            )  # fmt: skip
        figure.add_hline(y=0.0, line={"color": INK, "dash": "dash"}, row=1, col=column)
        sites = part.filter(pl.col("scope") == "site", pl.col("r").is_not_null()).join(
            trace.sites.select("label", "unit"), on="label"
        )
        for unit in units(trace):
            of_unit = sites.filter(pl.col("unit") == unit).sort("layer")
            figure.add_trace(_coefficients(of_unit, unit), row=1, col=column)
        figure.update_xaxes(title="layer", row=1, col=column)
    figure.update_yaxes(title=f"{method.capitalize()} coefficient", row=1, col=1)
    title = f"Do scores correlate with {value}?"
    dress(name_what_is_drawn(figure), trace, title=title, height=440)
    return figure.update_layout(margin={"t": 116})


def _coefficients(sites: pl.DataFrame, unit: str) -> go.Scatter:
    sure = sites.select(correlation_found()).to_series().to_list()
    shape = "circle" if unit == "attn" else "square"
    return go.Scatter(
        x=sites["layer"].to_list(),
        y=sites["r"].to_list(),
        error_y={
            "array": (sites["high"] - sites["r"]).to_list(),
            "arrayminus": (sites["r"] - sites["low"]).to_list(),
            "thickness": 1,
            "width": 0,
        },
        customdata=[
            (
                "not tested" if p is None else f"p {p:.4f}, q {q:.4f}",
                " (no interval)" if low is None else f" (95%: {low:z.3f} to {high:z.3f})",
            )
            for p, q, low, high in sites.select("p", "q", "low", "high").rows()
        ],
        mode="markers",
        name=UNIT_NAMES[unit],
        legendgroup=unit,
        marker={
            "color": UNIT_COLOURS[unit],
            "symbol": [shape if each else f"{shape}-open" for each in sure],
            "size": 8,
        },
        hovertemplate=(
            f"{UNIT_NAMES[unit]} of layer %{{x}}<br>%{{y:.3f}}%{{customdata[1]}}<br>"
            "%{customdata[0]}"
            "<extra></extra>"
        ),
    )


def _legend(end: float, what: str, unit: str) -> str:
    return (
        f'<div style="font-size:.85em;margin:.3em 0">{html_text(what)}: lowered by {end:g} {unit} '
        'or more <span style="display:inline-block;width:10em;max-width:40%;height:.8em;'
        "margin:0 .4em;border:1px solid rgba(128,128,128,.6);background:"
        f'linear-gradient(to right,{",".join(MARGINS)})"></span> raised by {end:g} {unit} or more'
        "</div>"
    )
