"""The page of the audit: whether each decision was right, and whether the score says so."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
import streamlit as st

from skipviz import plots
from skipviz.analysis.gates.quality import (
    controls,
    implied_price,
    judged,
    quality,
    quality_by,
    reliability,
)
from skipviz.analysis.tokens.classes import token_classes
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.key_figures import key_figures
from skipviz.app.components.plain_text import plain
from skipviz.app.one_text import audited, in_context, text_to_look_into
from skipviz.experiments.decision_audit import Downstream
from skipviz.plots.audit import (
    Shown,
    quality_by_class,
    ranking_by_layer,
    reliability_figure,
    utility_map,
)
from skipviz.plots.labels import said_of
from skipviz.traces import Trace

WORST = 30
MAPS = {"Worth": "net", "Score": "margin", "Wrong decisions": "regret"}
PRICES = {"Free": False, "As the budget implies": True}
REACTIONS = {"Held": "held", "Free to react": "react"}


def page() -> None:
    """Offer the audit of the text last traced, and show what came out."""
    st.header("Is the gate right?")
    st.markdown(
        "Every decision of the gates is flipped, one at a time and exactly, and the loss on the "
        "next token tells what executing was worth: **its utility, in nats**. Then the scores are "
        "held against it."
    )
    chosen = text_to_look_into("audited")
    if chosen is None:
        return
    request, traced = chosen
    downstream = _choose_downstream()
    cells = audited(request, traced, downstream)
    if cells is not None:
        _show(traced, cells)


def _choose_downstream() -> Downstream:
    chosen = st.segmented_control(
        "Gates above a flip",
        list(REACTIONS),
        default="Held",
        required=True,
        key="downstream",
        help="Held: every other decision stays as it was. Free to react: the gates above decide "
        "anew on what the flip gives them.",
    )
    return cast(Downstream, REACTIONS[str(chosen)])


def _show(traced: Trace, cells: pl.DataFrame) -> None:
    priced = st.segmented_control(
        "FLOPs are",
        list(PRICES),
        default="As the budget implies",
        required=True,
        key="price",
        help="Free: executing is right wherever it lowers the loss. As the budget implies: at the "
        "price at which a perfect gate would have spent as much as this one did.",
    )
    price = implied_price(traced, cells) if PRICES[str(priced)] else 0.0
    marked = judged(traced, cells, price=price)
    _numbers(marked, price)
    shown = st.segmented_control("Map of", list(MAPS), default="Worth", required=True, key="map")
    st.plotly_chart(utility_map(traced, marked, shown=cast(Shown, MAPS[str(shown)])), key="utility")
    left, right = st.columns(2)
    left.plotly_chart(reliability_figure(traced, reliability(marked)), key="reliability")
    sites = quality_by(marked, "label")
    right.plotly_chart(ranking_by_layer(traced, sites), key="ranking")
    classes = _classes(traced, marked)
    _worst(traced, marked)
    st.subheader("Downloads")
    csv_buttons(
        {
            "Every decision": ("audit", marked),
            "By site": ("audit-sites", sites),
            "By token class": ("audit-classes", classes),
        }
    )
    st.caption(plain(said_of(traced)))


def _numbers(marked: pl.DataFrame, price: float) -> None:
    whole = quality(marked)
    blind = controls(marked, seed=0)
    tokens = marked["token"].n_unique()
    figures = [
        ("Decided rightly", f"{whole.right:.1%}", f"Executing is worth it in {whole.worth:.1%}."),
        (
            "AUROC of the score",
            f"{whole.auroc:.3f}",
            "How often a unit worth executing scores above one that is not. With each site's "
            f"scores shuffled among tokens {blind['shuffled'].auroc:.3f}, with random ones "
            f"{blind['random'].auroc:.3f}.",
        ),
        (
            "Regret a token",
            f"{whole.regret / tokens:.2f} nats",
            "Summed over the token's decisions, each flipped alone; flips do not add up.",
        ),
        (
            "Calibration error",
            "too few" if np.isnan(whole.calibration_error) else f"{whole.calibration_error:.3f}",
            "Of the score, made a probability by a logistic regression on other tokens; it takes "
            "some dozens of tokens.",
        ),
        (
            "Price a GFLOP",
            f"{price * 1e9:.2f} nats",
            "What a thousand million FLOPs are taken to be worth.",
        ),
    ]
    key_figures(figures)


def _classes(traced: Trace, marked: pl.DataFrame) -> pl.DataFrame:
    """Show how good the decisions are for each kind of token, and return the table."""
    kinds = token_classes(traced).select("token", "kind")
    known = marked.join(kinds, on="token", how="left")
    tokens = known.group_by("kind").agg(tokens=pl.col("token").n_unique())
    table = quality_by(known, "kind").join(tokens, on="kind", maintain_order="left")
    st.subheader("By token class")
    left, right = st.columns(2)
    left.plotly_chart(quality_by_class(traced, table), key="classes")
    right.dataframe(
        table.select(
            pl.col("kind").alias("token class"),
            "tokens",
            pl.col("right").round(3).alias("decided rightly"),
            pl.col("worth").round(3).alias("worth executing"),
            pl.col("auroc").fill_nan(None).round(3).alias("AUROC"),
            (pl.col("regret") / pl.col("tokens")).round(3).alias("regret a token, nats"),
        ),
        hide_index=True,
        width="stretch",
    )
    return table


@st.fragment
def _worst(traced: Trace, marked: pl.DataFrame) -> None:
    st.subheader("The most wrong decisions")
    worst = marked.filter(pl.col("regret") > 0).sort("regret", descending=True).head(WORST)
    if worst.is_empty():
        st.info("Every decision was right at this price.")
        return
    st.caption("Choose a row, at its left edge, to see the token in its text and its path.")
    texts = traced.tokens["text"]
    event = st.dataframe(
        worst.select(
            "token",
            pl.col("token").map_elements(lambda t: repr(texts[t]), pl.String).alias("text"),
            pl.col("label").alias("site"),
            pl.when("executed").then(pl.lit("ran")).otherwise(pl.lit("skipped")).alias("decision"),
            pl.col("regret").round(4).alias("regret, nats"),
            pl.col("utility").round(4).alias("utility, nats"),
            pl.col("margin").round(4).alias("score beyond threshold"),
        ),
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode="single-row",
        key="worst",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < worst.height:
        _one(traced, worst.row(rows[0], named=True))


def _one(traced: Trace, wrong: dict[str, Any]) -> None:
    """Show the token of a wrong decision in its text, and its path."""
    token = wrong["token"]
    st.markdown(f"**Token {token} at {wrong['label']}**")
    st.text(in_context(traced, token))
    better = (
        f"skipping would have lowered the loss by {-wrong['utility']:.3f} nats"
        if wrong["utility"] < 0
        else f"it lowered the loss by {wrong['utility']:.3f} nats, less than its FLOPs were worth"
    )
    st.caption(
        f"It ran; {better}."
        if wrong["executed"]
        else f"It was skipped; running it would have lowered the loss by {wrong['utility']:.3f} "
        f"nats, to {wrong['nll'] - wrong['utility']:.3f}."
    )
    st.plotly_chart(plots.token_path(traced, token), key="wrong_path")
