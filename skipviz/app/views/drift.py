"""Drift on the page of robustness: which texts are compared with which."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import streamlit as st

from skipviz.analysis.robustness.drift import SHIFTED, drift
from skipviz.analysis.robustness.two_corpora import check_sizes, select_tokens
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.notebook_cell import FROM_TRACE, SAVED_AS, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.jobs import SEED, Request
from skipviz.errors import InputError, TraceError
from skipviz.plots.robustness import DRIFTS, drift_figure
from skipviz.readings.robustness import drift_words
from skipviz.traces import Trace

MANY = 20
"""With more texts they are not chosen one by one."""
HALVES, DOCUMENTS, SAVED = "Two halves of the text", "Some of the texts", "A saved trace"


def show_drift(request: Request, traced: Trace) -> None:
    """Ask what is before and what after, and show how far scores have drifted."""
    st.subheader("Drift")
    st.caption(
        "Do the gates score one set of texts differently from another? A population stability "
        "index of 0.1 is an early warning and 0.25 an alert, unless chance explains it."
    )
    corpora = _choose(traced, request.key)
    if corpora is None:
        return
    before, after, settings, lines = corpora
    try:
        check_sizes(before, after)
    except InputError as error:
        st.info(plain(str(error)))
        return
    table = tried(
        "drift",
        "Compare the two",
        request,
        lambda: jobs().analysis(
            request,
            f"drift {settings}",
            lambda progress: drift(before, after, seed=SEED, progress=progress),
        ),
        settings=settings,
    )
    if table is not None:
        _show(traced, table)
        notebook_cells(
            *(f"skipviz.plots.drift_figure(trace, table, shown={each!r})" for each in DRIFTS),
            imports=[
                "from skipviz.analysis.robustness.drift import drift",
                "from skipviz.analysis.robustness.two_corpora import select_tokens",
            ],
            first=[FROM_TRACE, *lines, f"table = drift(before, after, seed={SEED})"],
            files=f"{SAVED_AS} A reference is the file that was uploaded above.",
        )


def _choose(traced: Trace, key: str) -> tuple[Trace, Trace, str, list[str]] | None:
    """Return the two corpora, the choice in words that differ when it does, and as code."""
    sequence = traced.tokens["sequence"].to_numpy()
    sources = (
        traced.tokens.group_by("sequence", maintain_order=True)
        .agg(pl.col("source").first())["source"]
        .to_list()
    )
    kinds = [DOCUMENTS if len(sources) > 1 else HALVES, SAVED]
    kind = st.segmented_control(
        "The reference is", kinds, default=kinds[0], required=True, key=f"drift of {kinds[0]}"
    )
    if kind == SAVED:
        return _saved(traced)
    if kind == HALVES:
        middle = len(traced) // 2
        first = np.arange(len(traced)) < middle
        lines = [
            f'first = (trace.tokens["token"] < {middle}).to_numpy()',
            "before, after = select_tokens(trace, first), select_tokens(trace, ~first)",
        ]
        return select_tokens(traced, first), select_tokens(traced, ~first), HALVES, lines
    numbers = _numbers([f"{number + 1}: {source}" for number, source in enumerate(sources)], key)
    if not all(numbers):
        st.info("Choose at least one text on each side.")
        return None
    if set(numbers[0]) & set(numbers[1]):
        st.info("A text is on both sides; remove it from one of them.")
        return None
    before, after = (select_tokens(traced, _of(sequence, each)) for each in numbers)
    of = np.unique(sequence)
    lines = [
        f'{name} = select_tokens(trace, trace.tokens["sequence"].is_in({of[each].tolist()})'
        ".to_numpy())"
        for name, each in zip(("before", "after"), numbers, strict=True)
    ]
    return before, after, f"texts {numbers}", lines


def _numbers(names: list[str], key: str) -> tuple[list[int], list[int]]:
    """Return which texts are before and which after, from 0."""
    half = len(names) // 2
    if len(names) > MANY:
        first = st.slider("Texts before; the others are after", 1, len(names) - 1, half)
        return list(range(first)), list(range(first, len(names)))
    left, right = st.columns(2)
    before = left.multiselect("Before", names, default=names[:half], key=f"before {key}")
    after = right.multiselect("After", names, default=names[half:], key=f"after {key}")
    return [names.index(name) for name in before], [names.index(name) for name in after]


def _saved(traced: Trace) -> tuple[Trace, Trace, str, list[str]] | None:
    upload = st.file_uploader(
        "A saved trace of the same model at the same budget (“Trace” under the downloads of the "
        "page “Skip paths”)",
        type=["parquet"],
        key="reference",
    )
    if upload is None:
        return None
    data = upload.getvalue()
    try:
        reference = Trace.load(io.BytesIO(data))
    except TraceError as error:
        st.error(plain(str(error)))
        return None
    st.caption(
        f"Before: {plain(upload.name)}, {len(reference):,} tokens. After: the text traced last."
    )
    lines = [f"before, after = skipviz.Trace.load({upload.name!r}), trace"]
    return reference, traced, hashlib.sha256(data).hexdigest(), lines


def _of(sequence: npt.NDArray[np.int64], numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which tokens are of some documents, by their place among all."""
    place = np.unique(sequence, return_inverse=True)[1].reshape(-1)
    found: npt.NDArray[np.bool_] = np.isin(place, list(numbers))
    return found


def _show(traced: Trace, table: pl.DataFrame) -> None:
    st.markdown(plain(drift_words(table)))
    for shown in DRIFTS:
        st.plotly_chart(drift_figure(traced, table, shown=shown), key=f"drift {shown}")
    st.caption("Faint bars are not distinguishable from chance, after correction for all gates.")
    st.dataframe(
        table.select(
            "figure",
            _level(),
            pl.col("psi").round(3).alias("stability index"),
            pl.col("psi_chance").round(3).alias("expected without drift"),
            pl.col("ks").round(3).alias("KS distance"),
            pl.col("q").round(4),
            pl.col("delta").round(3).alias("Cliff's delta"),
            pl.col("mean_before").round(3).alias("mean before"),
            pl.col("mean_after").round(3).alias("mean after"),
            (100 * pl.col("rate_before")).round(1).alias("executed before, %"),
            (100 * pl.col("rate_after")).round(1).alias("executed after, %"),
        ),
        hide_index=True,
        width="stretch",
    )
    csv_buttons({"Drift": ("drift", table)})


def _level() -> pl.Expr:
    """Return the level in words; a high index that chance may explain is not called stable."""
    unsure = (pl.col("level") == "stable") & (pl.col("psi") >= SHIFTED)
    return (
        pl.when(unsure)
        .then(pl.lit("not distinguishable from chance"))
        .otherwise("level")
        .alias("level")
    )
