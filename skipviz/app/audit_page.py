"""The page of the audit: whether each decision was right, and whether the score says so."""

from __future__ import annotations

from typing import cast

import numpy as np
import polars as pl
import streamlit as st

from skipviz.analysis.gate_quality import (
    controls,
    implied_price,
    judged,
    quality,
    quality_by,
    reliability,
)
from skipviz.app.jobs import Job, Request
from skipviz.app.run_view import explain, jobs, traced_now, wait
from skipviz.experiments.audit import Downstream, audit
from skipviz.plots.audit import Shown, ranking_by_layer, reliability_figure, utility_map
from skipviz.plots.labels import provenance
from skipviz.trace import Trace

FORWARDS = 40
"""About how many runs of the text an audit takes."""
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
    request: Request | None = st.session_state.get("request")
    traced = traced_now()
    if request is None or traced is None:
        st.info("Trace a text on the page “Skip paths” first; it is what will be audited here.")
        return
    problem = _unfit(traced)
    if problem is not None:
        st.info(problem)
        return
    downstream = _choose_downstream()
    speed = jobs().tokens_per_second or 150
    seconds = FORWARDS * len(traced) / speed
    st.caption(
        f"The text: {traced.tokens['source'][0]}, {len(traced):,} tokens, "
        f"{(len(traced) - 1) * traced.sites.height:,} decisions, about {max(1, seconds):,.0f} s. "
        "You can stop at any time."
    )
    if st.button("Audit this text", type="primary", key="audit"):
        st.session_state.audit_job = jobs().experiment(
            request,
            f"audit {downstream}",
            lambda model, progress, stop: audit(
                model, traced, downstream=downstream, progress=progress, stop=stop
            ),
        )
        st.session_state.audit_key = (request.key, downstream)
    job: Job[pl.DataFrame] | None = st.session_state.get("audit_job")
    if job is None or st.session_state.audit_key != (request.key, downstream):
        return
    if not job.future.done():
        wait(job)
    elif (error := job.future.exception()) is not None:
        explain(error)
    else:
        _show(traced, job.future.result())


def _unfit(traced: Trace) -> str | None:
    run = traced.run.row(0, named=True)
    if run["family"] != "gated":
        return (
            f"{run['model']} has no gates on single units (family {run['family']}), so there are "
            "no decisions to flip one by one. Trace the text with another model."
        )
    if traced.tokens["sequence"].n_unique() != 1:
        return "Several texts were traced; an audit takes one. Trace one of them alone."
    if traced.tokens["context"].to_list() != list(range(1, len(traced) + 1)):
        return "The text was traced in several windows; an audit takes one. Trace a part of it."
    if len(traced) < 2:
        return "A single token predicts nothing that is known. Trace a longer text."
    return None


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
    _worst(traced, marked)
    st.subheader("Downloads")
    first, second = st.columns(2)
    first.download_button(
        "Every decision (CSV)", marked.write_csv(), file_name="audit.csv", mime="text/csv",
        on_click="ignore", width="stretch",
    )  # fmt: skip
    second.download_button(
        "By site (CSV)", sites.write_csv(), file_name="audit-sites.csv", mime="text/csv",
        on_click="ignore", width="stretch",
    )  # fmt: skip
    st.caption(provenance(traced))


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
    for column, (label, value, meaning) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, value, help=meaning)


def _worst(traced: Trace, marked: pl.DataFrame) -> None:
    st.subheader("The most wrong decisions")
    texts = traced.tokens["text"]
    worst = marked.filter(pl.col("regret") > 0).sort("regret", descending=True).head(WORST)
    st.dataframe(
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
    )
