"""Whether scores go with what executing is worth, gate by gate."""

from __future__ import annotations

import polars as pl
import streamlit as st

from skipviz.analysis.gates.score_correlation import score_correlations
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.analysis.statistics.correlation import CORRELATION_METHODS, MIN_BLOCKS_FOR_INTERVAL
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.run_button import jobs
from skipviz.app.components.trials import tried
from skipviz.app.jobs import Request
from skipviz.app.one_text import audited
from skipviz.plots.attribution import correlation_figure
from skipviz.readings.attribution import correlation_reading
from skipviz.traces import Trace

SEED = 0
VALUES = {"Utility, by the audit": "utility", "Shares over depth": "share"}
WORDS = {"utility": "utility", "share": "shares of the loss"}


def show_correlations(request: Request, traced: Trace, shares: pl.DataFrame | None) -> None:
    """Offer correlations of scores with utilities, or with shares over depth if there are any."""
    st.markdown(
        "Gates that know their business score high where executing is worth it: by the audit, "
        "exactly, or by the shares over depth. Scores are held against it site by site, plainly "
        "and with what position, word frequency, surprisal and length explain taken out."
    )
    chosen = st.segmented_control(
        "Held against", list(VALUES), default="Utility, by the audit", required=True, key="against"
    )
    column = VALUES[str(chosen)]
    if column == "utility":
        cells = audited(request, traced, "held")
    else:
        cells = shares
        if cells is None:
            st.info("Attribute the whole text's loss over depth first, in the part above.")
    if cells is None:
        return
    method = st.segmented_control(
        "Coefficient",
        CORRELATION_METHODS,
        default="spearman",
        required=True,
        key="coefficient",
        format_func=str.capitalize,
        help="Kendall's takes minutes on a long text, the others seconds.",
    )
    st.caption(
        f"Coefficients of a site's {len(traced) - 1:,} tokens; a layer's, and the one over all, is "
        f"the mean of its sites'. Intervals and p-values move whole blocks of {BLOCK_TOKENS} "
        "neighbouring tokens; q is p after Benjamini and Hochberg over the whole table."
    )
    settings = column if column == "utility" else f"{column} {st.session_state.depth_steps}"
    table = tried(
        "correlations",
        "Correlate scores with it",
        request,
        lambda: jobs().analysis(
            request,
            f"score correlations {method} {settings}",
            lambda progress: score_correlations(
                traced, cells, column, methods=[method], seed=SEED, progress=progress
            ),
        ),
        settings=f"{method} {settings}",
    )
    if table is None:
        return
    if table["low"].is_null().all():
        st.info(
            f"The text has {table['tokens'][0]} whole tokens, fewer than "
            f"{MIN_BLOCKS_FOR_INTERVAL} blocks of {BLOCK_TOKENS}: too few to draw intervals from, "
            "and p-values rest on few orders. Take a longer text."
        )
    value = WORDS[column]
    st.markdown(correlation_reading(table, method=method, value=value))
    st.plotly_chart(
        correlation_figure(traced, table, method=method, value=value), key="coefficients"
    )
    st.caption(
        "Filled marks are sure at a false discovery rate of 5%; bars are 95% intervals; the grey "
        "band is the interval over all sites."
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
            pl.col("p").round(4),
            pl.col("q").round(4),
            "tokens",
        ),
        hide_index=True,
        width="stretch",
        height=320,
    )
    csv_buttons({"Correlations": ("score-correlations", table)})
