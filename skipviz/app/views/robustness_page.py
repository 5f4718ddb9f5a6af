"""The page of robustness: whether paths follow the meaning of a text or how it is written."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import streamlit as st

from skipviz.analysis.robustness.decision_shift import shift_of_decisions
from skipviz.analysis.robustness.tails import over_dense, tails, worst_places
from skipviz.analysis.tokens.classes import text_of_tokens
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import explain, jobs, tried
from skipviz.app.frame.inputs import settings_of
from skipviz.app.jobs import SEED, Experiment, Request
from skipviz.app.one_text import text_caption, traced_text
from skipviz.app.state import on_canvas
from skipviz.app.token_range import chosen_range
from skipviz.app.views.drift import show_drift
from skipviz.errors import InputError
from skipviz.experiments.robustness import paraphrases
from skipviz.experiments.robustness.context_and_batch import (
    SENTENCES,
    batch_changes,
    context_changes,
    why_no_batch,
)
from skipviz.experiments.robustness.surface import (
    SURFACE_CHARACTERS,
    paraphrase_changes,
    surface_changes,
)
from skipviz.plots.lenses.found import over_dense_lens
from skipviz.plots.robustness import CHANGE_AXES, TAILS, change_figure, tails_figure
from skipviz.plots.style.labels import said_of
from skipviz.readings.robustness import (
    batch_words,
    context_words,
    paraphrase_words,
    places_words,
    surface_words,
    tails_words,
)
from skipviz.readings.skipping import needs_next_token
from skipviz.traces import Trace

TEXT_READ = "from skipviz.analysis.tokens.classes import text_of_tokens"
SHOWN_CHARACTERS = 44
"""Characters of text on each side of a place; the files have more."""


def page() -> None:
    """Offer what can be tried on the text traced last, and show what came out."""
    heading(
        "How robust are the paths?", "depth profile", "layers used", "loss over dense", "nat",
        "population stability index", "Kolmogorov-Smirnov distance", "q-value", "95% interval",
    )  # fmt: skip
    st.markdown(
        "Gates that follow the meaning of a text should change little with its spelling, the words "
        "before it, or the other texts in its batch. Each part below tests one of these on the "
        "text "
        "traced last. Nothing runs until you press a button."
    )
    known = traced_text(gates="there are no paths to compare")
    if known is None:
        return
    request, traced = known
    text_caption(traced)
    _surface(request, traced)
    _paraphrases(request, traced)
    _context(request, traced)
    _batch(request, traced)
    _worst(request, traced)
    show_drift(request, traced)
    st.caption(plain(said_of(traced)))


def _surface(request: Request, traced: Trace) -> None:
    st.subheader("Surface form")
    st.caption(
        "The text in upper case, in lower case, with typos, with double spaces, and with "
        "look-alike letters of other scripts; of a long text the first "
        f"{SURFACE_CHARACTERS:,} characters. Each word is compared with itself."
    )
    _shifts(
        request, traced, name="surface", button="Change the surface", rows="change",
        reading=surface_words,
        run=lambda model, progress, stop: surface_changes(
            model, request.documents, seed=SEED, progress=progress, stop=stop
        ),
    )  # fmt: skip


def _paraphrases(request: Request, traced: Trace) -> None:
    st.subheader("Paraphrases")
    st.caption("Pairs of sentences with the same meaning. The words that both share are compared.")
    with st.expander("The pairs"):
        text = st.text_area(
            f"One pair per line, with {paraphrases.MARK} between the two sentences",
            value=paraphrases.pair_lines(),
            height=220,
            key="pairs",
        )
    try:
        pairs = paraphrases.read_pairs(text)
    except InputError as error:
        explain(error)
        return
    found = tried(
        "paraphrases",
        f"Compare {len(pairs)} pair{'' if len(pairs) == 1 else 's'}",
        request,
        lambda: jobs().experiment(
            request,
            f"paraphrases {pairs}",
            lambda model, progress, stop: paraphrase_changes(
                model, pairs, progress=progress, stop=stop
            ),
        ),
        settings=text,
    )
    if found is None:
        return
    words, by_pair = found
    table = shift_of_decisions(words)
    st.markdown(plain(paraphrase_words(table, by_pair)))
    loss = (pl.col("loss_after") - pl.col("loss_before")).round(2).alias("loss, change in nats")
    st.dataframe(
        by_pair.select(
            pl.col("before").alias("one sentence"),
            pl.col("after").alias("the other"),
            pl.col("shared").alias("words in common"),
            (100 * pl.col("moved")).round(0).alias("decisions that differ, %"),
            (pl.col("layers_after") - pl.col("layers_before")).round(2).alias("layers, change"),
            *([loss] if by_pair["loss_after"].count() else []),
        ),
        hide_index=True,
        width="stretch",
    )
    csv_buttons(
        {
            "By pair": ("paraphrases-by-pair", by_pair),
            "Every word": ("paraphrases-every-word", words),
        }
    )


def _context(request: Request, traced: Trace) -> None:
    st.subheader("Context")
    st.caption(
        f"Up to {SENTENCES} sentences of the text, each after the words before it, after the words "
        "before another sentence, and alone."
    )
    _shifts(
        request, traced, name="context", button="Change the context", rows="context",
        reading=context_words,
        run=lambda model, progress, stop: context_changes(
            model, request.documents, seed=SEED, progress=progress, stop=stop
        ),
    )  # fmt: skip


def _batch(request: Request, traced: Trace) -> None:
    st.subheader("Batch")
    told = _why_no_batch(request, traced)
    if told is not None:
        st.info(plain(told))
        return
    st.caption(
        "Parts of the text, each run alone and all in one padded batch. No decision should differ."
    )
    table = tried(
        "batch",
        "Change the batch",
        request,
        lambda: jobs().experiment(
            request,
            "batch",
            lambda model, progress, stop: batch_changes(
                model, request.documents, seed=SEED, progress=progress, stop=stop
            ),
        ),
    )
    if table is None:
        return
    st.markdown(plain(batch_words(table)))
    st.dataframe(
        table.select(
            "piece", "tokens", "padding", "decisions", "flips", "followed", "ties",
            pl.col("score_difference").alias("score difference"),
            pl.col("loss_difference").alias("loss difference, nats"),
        ),
        column_config={
            "piece": st.column_config.TextColumn(width="medium"),
            **{
                name: st.column_config.NumberColumn(format="%.1e")
                for name in ("score difference", "loss difference, nats")
            },
        },
        hide_index=True,
        width="stretch",
    )  # fmt: skip
    csv_buttons({"By piece": ("batch-by-piece", table)})


def _why_no_batch(request: Request, traced: Trace) -> str | None:
    """Return why a batch would be refused, as far as it is known before one is run."""
    run = traced.run.row(0, named=True)
    traits = jobs().traits(request)
    # Of a model that is not loaded, this much is known of the trace.
    batchable = run["loss"] != "none" if traits is None else traits.batchable
    return why_no_batch(run["model"], batchable=batchable, dtype=run["dtype"] or "float32")


def _worst(request: Request, traced: Trace) -> None:
    st.subheader("Worst case")
    told = needs_next_token(traced, "there is no loss to compare with the dense model's")
    if told is not None:
        st.info(told)
        return
    st.caption(
        "The text is run again under the dense model. Where does skipping hurt, and how much of "
        "the "
        "loss comes from few tokens?"
    )
    backbone = _backbone(request.model)
    if backbone is None:
        st.info(
            f"The files of {plain(request.model)} do not name the dense model that it was made "
            "from, so there is nothing to compare it with."
        )
        return
    dense = tried(
        "dense",
        "Compare with the dense model",
        request,
        lambda: jobs().submit(Request(model=backbone, documents=request.documents)),
    )
    if dense is None:
        return
    try:
        costs = over_dense(traced, dense)
    except InputError as error:
        explain(error)
        return
    on_canvas(request).paint("dense", lambda: [over_dense_lens(traced, dense)])
    table = tails(traced, costs)
    st.markdown(plain(tails_words(table, costs, layers=traced.run["layers"].item())))
    for column, shown in zip(st.columns(len(TAILS)), TAILS, strict=True):
        column.plotly_chart(tails_figure(traced, table, shown=shown), key=f"tails {shown}")
    notebook_cells(
        *(f"skipviz.plots.tails_figure(trace, tails(trace, costs), shown={each!r})"
          for each in TAILS),
        imports=[TEXT_READ, "from skipviz.analysis.robustness.tails import over_dense, tails"],
        first=[
            FROM_TRACE,
            *_document_lines(request, traced),
            "costs = over_dense(trace, skipviz.trace(model, documents))",
        ],
        model=f"model = skipviz.load({backbone!r})",
    )  # fmt: skip
    chosen = chosen_range(
        request, traced, but="That is of the places below; all else is of the whole text."
    )
    shown_costs = chosen.rows(costs)
    worst = worst_places(traced, shown_costs)
    st.markdown(
        "**Where skipping hurts most.** Each row is a place in the text, with the text before it "
        "and the next token, which the dense model predicted better. "
        + places_words(worst, shown_costs)
    )
    st.dataframe(
        worst.select(
            pl.col("over_dense").round(2).alias("nats over dense"),
            pl.col("nll").round(2).alias("loss, nats"),
            _end_of("before").alias("text before"),
            pl.col("next").map_elements(repr, pl.String).alias("next token"),
            pl.col("after").str.head(SHOWN_CHARACTERS).alias("text after"),
            pl.col("layers_used").alias("layers used"),
            "token",
            "source",
        ),
        hide_index=True,
        width="stretch",
    )
    csv_buttons(
        {
            "By document": ("worst-by-document", table),
            "Every token": ("worst-every-token", costs),
            "Worst places": ("worst-places", worst),
        }
    )


def _shifts(
    request: Request,
    traced: Trace,
    *,
    name: str,
    button: str,
    rows: str,
    reading: Callable[[pl.DataFrame], str],
    run: Experiment[pl.DataFrame],
) -> None:
    """Offer an experiment on the words of the text, and show how far their decisions shift."""
    words = tried(name, button, request, lambda: jobs().experiment(request, name, run))
    if words is None:
        return
    table = shift_of_decisions(words)
    st.markdown(plain(reading(table)))
    axes = [shown for shown in CHANGE_AXES if table[shown].count() or shown == "moved"]
    for column, shown in zip(st.columns(len(CHANGE_AXES)), axes, strict=False):
        column.plotly_chart(change_figure(traced, table, shown=shown), key=f"{name} {shown}")
    csv_buttons(
        {
            f"By {rows}": (f"{name}-by-{rows}", table),
            "Every word": (f"{name}-every-word", words),
        }
    )
    notebook_cells(
        *(f"skipviz.plots.change_figure(trace, table, shown={each!r})" for each in axes),
        imports=[
            TEXT_READ,
            "from skipviz.analysis.robustness.decision_shift import shift_of_decisions",
            "from skipviz.experiments.robustness.context_and_batch import context_changes",
            "from skipviz.experiments.robustness.surface import surface_changes",
        ],
        first=[
            FROM_TRACE,
            *_document_lines(request, traced),
            f"table = shift_of_decisions({name}_changes(model, documents, seed={SEED}))",
        ],
        model=model_line(request, traced),
    )


def _document_lines(request: Request, traced: Trace) -> list[str]:
    """Return how a notebook cell comes by the texts: from the tokens, where those give them."""
    # Reading the tokens takes its time, and a page is drawn at every click.
    return jobs().made(
        f"texts in a cell {request.key}", lambda: _lines_of_documents(request, traced)
    )


def _lines_of_documents(request: Request, traced: Trace) -> list[str]:
    by_text = traced.tokens.partition_by("sequence", maintain_order=True)
    read = [(each["source"][0], text_of_tokens(each)) for each in by_text]
    if read == [(each.source, each.text) for each in request.documents]:
        return [
            "documents = [",
            '    skipviz.Document(tokens["source"][0], text_of_tokens(tokens))',
            '    for tokens in trace.tokens.partition_by("sequence", maintain_order=True)',
            "]",
        ]
    written = [
        f"    skipviz.Document({each.source!r}, {each.text!r}, messages={each.messages!r}),"
        for each in request.documents
    ]
    return ["documents = [", *written, "]"]


def _end_of(column: str) -> pl.Expr:
    long = pl.col(column).str.len_chars() > SHOWN_CHARACTERS
    return (
        pl.when(long)
        .then(pl.lit("…") + pl.col(column).str.tail(SHOWN_CHARACTERS))
        .otherwise(column)
    )


def _backbone(model: str) -> str | None:
    """Return the dense model that gates were made for, if it is written beside them."""
    settings = settings_of(model)
    return None if settings is None else settings.backbone
