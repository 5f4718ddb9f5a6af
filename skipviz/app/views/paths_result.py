"""What came out of a run: text and map, one token's path, whole-text figures, downloads."""

from __future__ import annotations

import io

import polars as pl
import streamlit as st

from skipviz import plots
from skipviz.analysis.flops import cost_summary
from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.app.components.downloads import csv_buttons, trace_csv, trace_figure, trace_file
from skipviz.app.components.key_figures import key_figures, said_or_unknown
from skipviz.app.components.notebook_cell import FROM_TRACE, TRACE_FILE, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.report_downloads import report_buttons
from skipviz.app.frame.warm_up import warm_up
from skipviz.app.jobs import Request
from skipviz.app.token_range import chosen_range
from skipviz.app.views.paths.own_column import offer_own_column
from skipviz.plots.style.labels import said_of
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.paths import class_reading, class_words, cost_reading, loss_words
from skipviz.readings.skipping import needs_next_token
from skipviz.traces import Trace

FIGURE = "Figure (HTML)"
FIGURE_TOKENS = 20_000
"""Tokens of a text that the downloaded figure holds at most."""


def show(request: Request, trace: Trace, *, asked: Request) -> None:
    """Show what a trace comes to.

    Parameters
    ----------
    request, trace
        As pages have them.
    asked
        The request as the side bar made it.
    """
    chosen = chosen_range(request, trace, but="The downloads are of the whole text.")
    part = chosen.part(trace)
    show_numbers(part, whole=chosen.ends is None)
    st.subheader("The whole text" if chosen.ends is None else "These tokens")
    left, right = st.columns(2)
    left.plotly_chart(plots.layers_used_histogram(part), key="histogram")
    right.plotly_chart(plots.execution_rate_by_layer(part), key="rates")
    st.plotly_chart(plots.compute_share_figure(part), key="share")
    offer_own_column(request, trace)
    st.subheader("Downloads")
    _downloads(trace)
    report_buttons(trace)
    notebook_cells(
        *(
            f"skipviz.plots.{name}({chosen.variable})"
            for name in (
                "layers_used_histogram", "execution_rate_by_layer", "compute_share_figure"
            )
        ),
        imports=chosen.imports,
        first=[FROM_TRACE, *chosen.lines],
    )  # fmt: skip
    if warm_up().has_imported:
        from skipviz.app.views.own_thresholds_offer import offer_thresholds

        offer_thresholds(trace, asked)


def show_numbers(trace: Trace, *, whole: bool = True) -> None:
    """Show what the decisions of a trace come to, first in words.

    Parameters
    ----------
    trace
        The trace.
    whole
        Whether it is of all that was traced: a part need not come to the budget asked for.
    """
    names = trace.tokens["source"].unique(maintain_order=True)
    others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    figures = cost_summary(trace)
    st.markdown(cost_reading(trace, figures, whole=whole))
    if said := class_reading(trace):
        st.markdown(plain(said))
    st.caption(f"{plain(names[0])}{others}: {plain(said_of(trace))}")
    cells = [
        (
            "Tokens",
            f"{figures.tokens:,}",
            "The units into which the model's tokenizer splits the text.",
        ),
        (
            "Layers used, mean",
            f"{figures.layers_mean:.1f} of {figures.layers}",
            GLOSSARY["layers used"],
        ),
        (
            "Budget realised",
            said_or_unknown(figures.budget, ".3f"),
            f"On {'this text' if whole else 'these tokens'}. {GLOSSARY['budget']}",
        ),
        (
            "Whole-model FLOPs",
            said_or_unknown(figures.flop_share, ".1%"),
            "Share of the dense model's FLOPs, including keys, values and the head. FLOPs are not "
            "time: a unit that is skipped for some tokens only is still computed here, and its "
            "result discarded for those tokens.",
        ),
    ]
    if needs_next_token(trace, "there is none") is None:
        mean = f"Mean over {'all' if whole else 'these'} tokens. {GLOSSARY['loss']}"
        cells.append(("Loss", loss_words(trace, figures.loss), mean))
    else:
        cells.append(("Predicted class", class_words(trace), GLOSSARY["predicted class"]))
    key_figures(cells)
    classes = predicted_classes(trace)
    if classes.height > 1:
        st.dataframe(
            classes.select(
                pl.col("source").alias("text"),
                "tokens",
                pl.col("class_label").alias("predicted class"),
                pl.col("class_prob").round(4).alias("probability"),
                pl.col("layers_used").round(2).alias("layers used, mean"),
            ),
            hide_index=True,
            width="stretch",
        )
        csv_buttons({"Predicted classes": ("predicted-classes", classes)})


def _downloads(trace: Trace) -> None:
    def parquet() -> bytes:
        buffer = io.BytesIO()
        trace.to_long().write_parquet(buffer)
        return buffer.getvalue()

    kinds = [
        ("Decisions (CSV)", lambda: trace_csv(trace), "decisions.csv", "text/csv"),
        ("Decisions (Parquet)", parquet, "decisions.parquet", "application/octet-stream"),
        ("Trace", lambda: trace_file(trace), TRACE_FILE, "application/octet-stream"),
        (FIGURE, lambda: trace_figure(trace, FIGURE_TOKENS), "skip-paths.html", "text/html"),
    ]
    most = f"The first {FIGURE_TOKENS:,} tokens." if len(trace) > FIGURE_TOKENS else None
    for column, (label, make, name, mime) in zip(st.columns(len(kinds)), kinds, strict=True):
        column.download_button(
            label,
            make,
            file_name=name,
            mime=mime,
            on_click="ignore",
            width="stretch",
            help=most if label == FIGURE else None,
        )
