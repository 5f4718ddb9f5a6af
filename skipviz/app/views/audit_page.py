"""The page of the audit: whether each decision was right, and whether scores tell."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from skipviz.analysis.gates.quality import (
    controls,
    implied_price,
    judged,
    quality,
    quality_by,
    reliability,
)
from skipviz.analysis.tokens.classes import token_classes
from skipviz.app.components.chart_clicks import select_cell
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.key_figures import key_figures
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.jobs import Request
from skipviz.app.one_text import audited, in_context, named_cells, say_word_lists, single_text
from skipviz.app.state import on_canvas
from skipviz.app.token_range import TokenRange, chosen_range
from skipviz.experiments.decision_audit import Downstream
from skipviz.plots.decision_audit import (
    Shown,
    quality_by_class,
    ranking_by_layer,
    reliability_figure,
    utility_map,
)
from skipviz.plots.lenses.found import regret_lens
from skipviz.plots.style.labels import said_of
from skipviz.readings.budgets import budget_reading
from skipviz.readings.decision_audit import (
    audit_reading,
    decision_reading,
    first_token_reading,
    rounding_reading,
)
from skipviz.readings.glossary import GLOSSARY
from skipviz.traces import Trace

WORST = 30
UTILITY_MAPS = {"Net utility": "net", "Score": "margin", "Wrong decisions": "regret"}
PRICES = {"Free": False, "Priced by the budget": True}
CLASSES_CELL = """\
known = marked.join(token_classes(trace).select("token", "kind"), on="token", how="left")
tokens = known.select("token", "kind").unique()["kind"].value_counts(name="tokens")
table = quality_by(known, "kind").join(tokens, on="kind", maintain_order="left")
skipviz.plots.quality_by_class(trace, table)"""
REACTIONS = {"Stay as they were": "held", "Decide again": "react"}


def page() -> None:
    """Offer the audit of the text last traced, and show what came out."""
    answer = heading(
        "Are the gates right?", "utility", "regret", "price", "AUROC", "calibration error", "nat",
        "gate score", "threshold", "later margin", "FLOPs",
    )  # fmt: skip
    st.markdown(
        "Every decision is reversed, one at a time, and the loss on the next token is computed "
        "again. The difference is the **utility** of running the unit, in nats. The gate scores "
        "are then compared with it."
    )
    chosen = single_text()
    if chosen is None:
        return
    request, traced = chosen
    if missed := budget_reading(traced):
        said, helps = missed
        where = " The page “Skip paths” offers thresholds for this kind of text." if helps else ""
        st.warning(plain(said + where))
    within = chosen_range(request, traced, but="The price of FLOPs is that of the whole text.")
    downstream = _choose_downstream()
    cells = audited(request, traced, downstream)
    if cells is not None:
        _show(request, traced, cells, within, downstream, answer)


def _choose_downstream() -> Downstream:
    chosen = st.segmented_control(
        "Gates in higher layers",
        list(REACTIONS),
        default=next(iter(REACTIONS)),
        required=True,
        key="downstream",
        help="Stay as they were: only one decision changes. Decide again: the gates above it "
        "decide on their changed input, and where one of them comes very near to its threshold, "
        "rounding decides.",
    )
    return cast(Downstream, REACTIONS[str(chosen)])


def _show(
    request: Request,
    traced: Trace,
    cells: pl.DataFrame,
    within: TokenRange,
    downstream: Downstream,
    answer: DeltaGenerator,
) -> None:
    priced = st.segmented_control(
        "FLOPs are",
        list(PRICES),
        default="Priced by the budget",
        required=True,
        key="price",
        help="Free: running a unit is right whenever it lowers the loss. Priced by the budget: it "
        "must lower the loss by more than its FLOPs are worth, at the price at which a perfect "
        "gate "
        "would spend as many FLOPs as this one.",
    )
    price = implied_price(traced, cells) if PRICES[str(priced)] else 0.0
    marked = within.rows(judged(traced, cells, price=price))
    if marked.is_empty():
        st.info("No decision was audited here: the last token predicts nothing. Choose others.")
        return
    _numbers(marked, price, answer)
    shown = st.segmented_control(
        "Map of", list(UTILITY_MAPS), default="Net utility", required=True, key="map"
    )
    st.plotly_chart(
        utility_map(traced, marked, shown=cast(Shown, UTILITY_MAPS[str(shown)])), key="utility"
    )
    select_cell(request, traced, "utility")
    st.caption("Click a cell to select its token and site on the canvas.")
    left, right = st.columns(2)
    left.plotly_chart(reliability_figure(traced, reliability(marked)), key="reliability")
    sites = quality_by(marked, "label")
    right.plotly_chart(ranking_by_layer(traced, sites), key="ranking")
    classes = _classes(request, traced, marked)
    _worst(request, traced, marked)
    st.subheader("Downloads")
    csv_buttons(
        {
            "Every decision": ("audit", marked),
            "By site": ("audit-sites", sites),
            "By token class": ("audit-classes", classes),
        }
    )
    priced_by = "implied_price(trace, cells)" if PRICES[str(priced)] else "0.0"
    notebook_cells(
        f"skipviz.plots.utility_map(trace, marked, shown={UTILITY_MAPS[str(shown)]!r})",
        "skipviz.plots.reliability_figure(trace, reliability(marked))",
        'skipviz.plots.ranking_by_layer(trace, quality_by(marked, "label"))',
        CLASSES_CELL,
        imports=[
            "from skipviz.analysis.gates.quality import implied_price, judged, quality_by, "
            "reliability",
            "from skipviz.analysis.tokens.classes import token_classes",
        ],
        first=[
            FROM_TRACE,
            f"cells = skipviz.audit(model, trace, downstream={downstream!r})",
            f"marked = judged(trace, cells, price={priced_by})",
            *within.lines_of_rows("marked"),
        ],
        model=model_line(request, traced),
    )
    st.caption(plain(said_of(traced)))
    on_canvas(request).paint(
        f"audit {downstream} {price}",
        lambda: [regret_lens(traced, judged(traced, cells, price=price))],
    )


def _numbers(marked: pl.DataFrame, price: float, answer: DeltaGenerator) -> None:
    whole = quality(marked)
    blind = controls(marked, seed=0)
    tokens = marked["token"].n_unique()
    answer.markdown(audit_reading(whole, blind["shuffled"], tokens=tokens))
    for more in (first_token_reading(marked), rounding_reading(marked)):
        if more:
            st.markdown(more)
    figures = [
        (
            "Right decisions",
            f"{whole.right:z.1%}",
            f"Running the unit is worth it in {whole.worth:z.1%} of the decisions.",
        ),
        (
            "AUROC of the score",
            _auroc(whole.auroc),
            f"{GLOSSARY['AUROC']} With each site's scores shuffled between tokens it is "
            f"{_auroc(blind['shuffled'].auroc)}, with random scores "
            f"{_auroc(blind['random'].auroc)}.",
        ),
        (
            "Regret per token",
            f"{whole.regret / tokens:z.2f} nats",
            f"{GLOSSARY['regret']} Summed over the decisions of a token as if each were the only "
            "one; together they may cost more or less.",
        ),
        (
            "Calibration error",
            "text too short"
            if np.isnan(whole.calibration_error)
            else f"{whole.calibration_error:z.3f} ({whole.calibrated:z.3f} if calibrated)",
            f"{GLOSSARY['calibration error']} The probabilities come from a logistic regression of "
            "the score, fitted on other tokens. In brackets is what a perfectly calibrated score "
            "has on so many decisions, on average.",
        ),
        (
            "Price per GFLOP",
            f"{price * 1e9:z.2f} nats",
            f"{GLOSSARY['price']} A GFLOP is a billion FLOPs.",
        ),
    ]
    key_figures(figures)


def _auroc(value: float) -> str:
    return "unknown" if np.isnan(value) else f"{value:z.3f}"


def _classes(request: Request, traced: Trace, marked: pl.DataFrame) -> pl.DataFrame:
    """Show how good the decisions are for each kind of token, and return the table."""
    kinds = token_classes(traced).select("token", "kind")
    known = marked.join(kinds, on="token", how="left")
    tokens = known.group_by("kind").agg(tokens=pl.col("token").n_unique())
    table = quality_by(known, "kind").join(tokens, on="kind", maintain_order="left")
    st.subheader("By token class")
    say_word_lists(request, traced)
    left, right = st.columns(2)
    left.plotly_chart(quality_by_class(traced, table), key="classes")
    right.dataframe(
        table.select(
            pl.col("kind").alias("token class"),
            "tokens",
            pl.col("right").round(3).alias("right decisions"),
            pl.col("worth").round(3).alias("worth running"),
            pl.col("auroc").fill_nan(None).round(3).alias("AUROC"),
            (pl.col("regret") / pl.col("tokens")).round(3).alias("regret per token, nats"),
        ),
        hide_index=True,
        width="stretch",
    )
    return table


def _worst(request: Request, traced: Trace, marked: pl.DataFrame) -> None:
    st.subheader("The most costly wrong decisions")
    wrong = marked.filter(pl.col("regret") > 0).sort("regret", descending=True)
    if wrong.is_empty():
        st.info("Every decision was right at this price.")
        return
    st.caption("Select a row at its left edge to select the token and the site on the canvas.")
    later = wrong.filter(pl.col("token") > 0).head(WORST)
    if later.is_empty():
        st.info("Every decision after the first token was right at this price.")
    else:
        _choose_wrong(request, traced, later, key="worst")
    first = wrong.filter(token=0).head(WORST)
    if not first.is_empty():
        with st.expander(f"The first token: {first.height} of its costly decisions"):
            _choose_wrong(request, traced, first, key="worst_first")


def _choose_wrong(request: Request, traced: Trace, worst: pl.DataFrame, *, key: str) -> None:
    """List wrong decisions, and show the one that is selected."""
    columns = [
        pl.col("regret").round(4).alias("regret, nats"),
        pl.col("utility").round(4).alias("utility, nats"),
        pl.col("margin").round(4).alias("score - threshold"),
    ]
    if worst["later_margin"].count():
        columns += [
            pl.col("later_margin").alias("smallest later margin"),
            pl.col("by_rounding").alias("decided by rounding"),
        ]
    event = st.dataframe(
        named_cells(traced, worst, *columns),
        column_config={
            "smallest later margin": st.column_config.NumberColumn(
                format="%.1e", help=GLOSSARY["later margin"]
            )
        },
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode="single-row",
        key=key,
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < worst.height:
        _one(request, traced, worst.row(rows[0], named=True), key=key)
    else:
        on_canvas(request).forget(f"row of {key}")


def _one(request: Request, traced: Trace, wrong: dict[str, Any], *, key: str) -> None:
    """Show the token of a wrong decision in its text, and select it on the canvas."""
    token = wrong["token"]
    st.markdown(f"**Token {token} at {wrong['label']}**")
    st.text(in_context(traced, token))
    st.caption(decision_reading(wrong))
    on_canvas(request).select(f"row of {key}", token, wrong["site"])
