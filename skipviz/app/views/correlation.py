"""Whether gate scores correlate with what running a unit is worth."""

from __future__ import annotations

import polars as pl
import streamlit as st

from skipviz.analysis.gates.score_correlation import correlate
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.analysis.statistics.correlation import CORRELATION_METHODS
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.jobs import SEED, Request
from skipviz.app.one_text import audited, say_word_lists
from skipviz.app.views.attributions.over_depth import Shares, depth_lines
from skipviz.plots.attribution import correlation_figure
from skipviz.readings.attribution import correlation_reading
from skipviz.readings.intervals import withheld_words
from skipviz.traces import Trace

VALUES = {"Utility, from the audit": "utility", "Shares over depth": "share"}
NAMES = {"utility": "utility", "share": "shares of the loss"}


def show_correlations(request: Request, traced: Trace, shares: Shares | None) -> None:
    """Offer correlations of scores with utilities, or with shares over depth if there are any."""
    st.markdown(
        "Good gates give high scores where running a unit is worth it, as measured by the audit or "
        "by the shares over depth. Scores are correlated with it at each site, with and without "
        "controls for position, word frequency (of English texts), surprisal and length."
    )
    chosen = st.segmented_control(
        "Compared with", list(VALUES), default=next(iter(VALUES)), required=True, key="against"
    )
    column = VALUES[str(chosen)]
    if column == "utility":
        cells = audited(request, traced, "held")
    else:
        cells = None if shares is None else shares.cells
        if cells is None:
            st.info("First attribute the loss of the whole text over depth, in the part above.")
    if cells is None:
        return
    method = st.segmented_control(
        "Coefficient",
        CORRELATION_METHODS,
        default="spearman",
        required=True,
        key="coefficient",
        format_func=str.capitalize,
    )
    st.caption(
        f"Each site has {len(traced) - 1:,} tokens. The coefficient of a layer, and that of all "
        "sites, is the mean over its sites. Any two figures that drift along a text go together, "
        "so p is of the coefficient without what changes slowly, by random signs of its waves. q "
        "is p corrected for the whole table (Benjamini-Hochberg). Intervals leave out whole "
        f"blocks of {BLOCK_TOKENS} neighbouring tokens in turn."
    )
    settings = column if shares is None or column == "utility" else f"{column} {shares.steps}"
    table = tried(
        "correlations",
        "Correlate scores",
        request,
        lambda: jobs().analysis(
            request,
            f"score correlations {method} {settings}",
            lambda progress: correlate(
                traced, cells, column, methods=[method], seed=SEED, progress=progress
            ),
        ),
        settings=f"{method} {settings}",
    )
    if table is None:
        return
    value = NAMES[column]
    st.markdown(correlation_reading(table, method=method, value=value))
    say_word_lists(request, traced)
    st.plotly_chart(
        correlation_figure(traced, table, method=method, value=value), key="coefficients"
    )
    reasons = dict(table["withheld"].drop_nulls().value_counts().iter_rows())
    with_interval = table.filter(method=method).drop_nulls("low")
    bars, band = (not with_interval.filter(scope=each).is_empty() for each in ("site", "all"))
    st.caption(
        "Filled marks differ from zero at a false discovery rate of 5%"
        + ("; bars are 95% intervals" if bars else "")
        + ("; the grey band is the 95% interval over all sites. " if band else ". ")
        + withheld_words(reasons)
    )
    st.dataframe(
        table.select(
            pl.coalesce("label", pl.format("layer {}", "layer"), pl.lit("all sites")).alias(
                "scores of"
            ),
            pl.when("controlled").then(pl.lit("yes")).otherwise(pl.lit("no")).alias("controlled"),
            pl.col("r").round(3),
            pl.col("low").round(3).alias("95% from"),
            pl.col("high").round(3).alias("to"),
            pl.col("withheld").alias("no interval for"),
            pl.col("r_detrended").round(3).alias("r without slow changes"),
            pl.col("p").round(4),
            pl.col("q").round(4),
            "tokens",
        ),
        hide_index=True,
        width="stretch",
        height=320,
        placeholder="",
    )
    csv_buttons({"Correlations": ("score-correlations", table)})
    found = [FROM_TRACE, 'cells = skipviz.audit(model, trace, downstream="held")']
    if column == "share" and shares is not None:
        found = depth_lines(None, shares.steps)
    notebook_cells(
        f"skipviz.plots.correlation_figure(trace, table, method={method!r}, value={value!r})",
        imports=["from skipviz.analysis.gates.agreement import worth_of_cells"],
        first=[
            *found,
            f"table = skipviz.correlate(trace, cells, {column!r}, methods=[{method!r}], "
            f"seed={SEED})",
        ],
        model=model_line(request, traced),
    )
