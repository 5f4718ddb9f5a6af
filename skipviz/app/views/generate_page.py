"""The page of generating: a prompt in, a text out that is coloured as it comes."""

from __future__ import annotations

from functools import partial
from typing import Any

import polars as pl
import streamlit as st

from skipviz.app.components.downloads import trace_csv, trace_file
from skipviz.app.components.heading import heading, skipping_badges
from skipviz.app.components.key_figures import key_figures, said_or_unknown
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import (
    PATHS,
    explain,
    follow,
    give_up,
    how_far,
    jobs,
    outcome,
    traced_now,
)
from skipviz.app.components.written_text import layers_scale, written_text
from skipviz.app.frame.inputs import settings_of
from skipviz.app.generations import (
    Writing,
    Written,
    WrittenTexts,
    is_current,
    make_current,
    write,
)
from skipviz.app.jobs import Request, kept_result
from skipviz.app.served import most_tokens
from skipviz.app.sessions import this_session
from skipviz.app.state import StartedRun, restore, set_widget, state, widgets
from skipviz.app.worker import Job
from skipviz.errors import InputError, TextError
from skipviz.folders import FIRST
from skipviz.plots.style.labels import said_of
from skipviz.readings.generation import (
    comparison_reading,
    generation_reading,
    writer_reading,
)
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.skipping import needs_next_token
from skipviz.recording.generating import Generation, Phase
from skipviz.recording.generation_comparison import GenerationComparison, compare_generations
from skipviz.text.documents import Document, check_text
from skipviz.traces import Trace

GENERATION_RUN = "generation"
KEYS = "generate "
"""What the keys of this page's inputs begin with."""
DEFAULTS: dict[str, Any] = {
    "kind": "Text", "prompt": "", "system": "", "message": "", "tokens": 64, "temperature": 0.0,
    "top p": 1.0, "top k": 0, "seed": 0, "stop": "", "runtime": "masked", "dense": False,
}  # fmt: skip
MOST_WRITTEN = 4096
"""Tokens that can be asked for, where the page is served to this machine alone."""


def page() -> None:
    """Show the prompt, the text as it comes, and what came out."""
    heading(
        "What does the model write, and with which layers?",
        "prefill", "decode", "layers used", "runtime", "temperature", "dense model",
        of_text=False,
    )  # fmt: skip
    shown = _latest()
    if shown is not None:
        skipping_badges(shown.own.trace)
    chosen = state().chosen or Request(model=FIRST, documents=())
    known = traced_now()
    of_chosen = known is not None and known[0].model == chosen.model
    told = needs_next_token(known[1], "it cannot write") if known and of_chosen else None
    if told is None:
        if known is not None:
            _say_who_writes(chosen, known[1])
        _inputs(chosen)
    else:
        st.info(told)
    run = state().runs.get(GENERATION_RUN)
    if run is None and told is not None:
        return
    if run is None:
        st.caption(
            "Enter a prompt and press **Generate**: the text comes token by token, each in the "
            "colour of the layers that it used. When it has ended, all other pages show it, unless "
            "another text was traced meanwhile."
        )
        return
    if run.under_way:
        _watch(run.job)
        return
    found: WrittenTexts | None = outcome(GENERATION_RUN, asked=run.asked)
    finished = run.finished
    if found is None and finished is not None:  # the text before one that was stopped
        found = kept_result(finished.job)
    if found is None or finished is None:
        return
    if finished is run and state().generated != run.asked:
        state().generated = run.asked
        if state().runs.get(PATHS) is state().traced_before:  # else a newer text would be lost
            make_current(run.request, run.asked, found.own)
        _go_on(run.request, found.own)
        st.rerun()
    _show(found, finished)


def _say_who_writes(chosen: Request, shown: Trace) -> None:
    """Say with what the page writes, where that is not what made the trace that is shown."""
    if chosen.model == "":
        st.info("This page writes with the model of the side bar. Name its folder there.")
        return
    policy, budget = chosen.policy, chosen.budget
    settings = settings_of(chosen.model)
    if settings is not None and policy is None:  # the model's own choice
        policy, budget = settings.policy, settings.budget if budget is None else budget
    told = writer_reading(
        shown, model=chosen.model, policy=policy, budget=budget, asked=state().chosen is not None
    )
    if told is not None:
        st.info(plain(told))


def _latest() -> WrittenTexts | None:
    """Return the text that the page shows, unless another is being written."""
    run = state().runs.get(GENERATION_RUN)
    finished = None if run is None or run.under_way else run.finished
    return None if finished is None else kept_result(finished.job)


def _inputs(chosen: Request) -> None:
    """Show prompt and settings; start a run when the button is pressed and the input is good."""
    try:
        most = min(most_tokens() or MOST_WRITTEN, MOST_WRITTEN)
    except InputError as error:
        explain(error)
        return
    restore(
        (f"{KEYS}{name}", min(most, value) if name == "tokens" else value)
        for name, value in DEFAULTS.items()
    )
    kind = st.pills("Prompt", ["Text", "Chat"], key=f"{KEYS}kind", required=True)
    document = _chat() if kind == "Chat" else _text()
    asked = _settings(most)
    pressed = st.button("Generate", type="primary", key="write", disabled=chosen.model == "")
    state().sidebar |= {key: value for key, value in widgets().items() if key.startswith(KEYS)}
    if not pressed:
        return
    try:
        check_text(document.messages[-1]["content"] if document.messages else document.text)
    except TextError as error:
        st.error(plain(str(error)))
        return
    _begin(
        Request(
            model=chosen.model, documents=(document,), budget=chosen.budget, policy=chosen.policy,
            gates=chosen.gates,
        ),
        asked,
    )  # fmt: skip


def _begin(request: Request, asked: Writing) -> None:
    """Start a run of its own: it takes its time, and may be ended early."""
    state().generations += 1
    state().traced_before = state().runs.get(PATHS)
    name = f"{GENERATION_RUN} {state().generations} of {this_session()}"
    follow(
        GENERATION_RUN,
        lambda: jobs().writing(
            request,
            name,
            lambda model, backbone, job: write(model, backbone, job, request=request, asked=asked),
        ),
        asked=(name, request.key, asked),
        request=request,
    )


def _text() -> Document:
    text = st.text_area(
        "Go on from", key=f"{KEYS}prompt", height=140,
        placeholder="Once upon a time, in a small village by the sea,",
    )  # fmt: skip
    return Document(source="prompt", text=text)


def _chat() -> Document:
    """Take the next message of a conversation, which the chat template writes."""
    said = state().chat
    system = "" if said else st.text_input("System message (optional)", key=f"{KEYS}system")
    for message in said:
        with st.chat_message("user" if message["role"] == "user" else "assistant"):
            st.caption(plain(message["role"]))
            st.text(message["content"])
    if state().clear_message:  # it is in the conversation now
        state().clear_message = False
        set_widget(f"{KEYS}message", "")
    text = st.text_area(
        "Your message", key=f"{KEYS}message", height=100, placeholder="Why is the sky blue?",
        help="Names of control tokens that you type are text.",
    )  # fmt: skip
    if said and st.button("New chat", key="new chat"):
        state().chat = ()
        st.rerun()
    first = ({"role": "system", "content": system},) if system.strip() else ()
    asked = {"role": "user", "content": text}
    return Document(
        source="chat", text="" if text.strip() else text, messages=(*first, *said, asked)
    )


def _settings(most: int) -> Writing:
    left, middle, right = st.columns(3)
    tokens = left.number_input(
        "Tokens to write, at most", min_value=1, max_value=most, step=16, key=f"{KEYS}tokens"
    )
    temperature = middle.slider(
        "Temperature", min_value=0.0, max_value=2.0, step=0.1, key=f"{KEYS}temperature",
        help=GLOSSARY["temperature"],
    )  # fmt: skip
    runtime = right.segmented_control(
        "Runtime", ["masked", "gathered"], key=f"{KEYS}runtime", required=True,
        help=GLOSSARY["runtime"],
    )  # fmt: skip
    with st.expander("More settings"):
        left, middle, right = st.columns(3)
        top_p = left.slider(
            "Top p", min_value=0.05, max_value=1.0, step=0.05, key=f"{KEYS}top p",
            help="Draw among the most likely tokens whose probabilities come to this; 1: all.",
        )  # fmt: skip
        top_k = middle.number_input(
            "Top k", min_value=0, step=10, key=f"{KEYS}top k",
            help="Draw among so many of the most likely tokens; 0: all.",
        )  # fmt: skip
        seed = right.number_input(
            "Seed", min_value=0, max_value=2**31, step=1, key=f"{KEYS}seed",
            help="The same seed draws the same text.",
        )  # fmt: skip
        stop = st.text_area(
            "Stop strings, one per line", key=f"{KEYS}stop", height=68,
            help="The text ends where it has one of these.",
        )  # fmt: skip
    dense = st.checkbox(
        "Let the dense model write beside it, from the same seed", key=f"{KEYS}dense",
        help=GLOSSARY["dense model"],
    )  # fmt: skip
    return Writing(
        max_new_tokens=int(tokens),
        temperature=float(temperature),
        top_p=float(top_p),
        top_k=int(top_k),
        seed=int(seed),
        stop_strings=tuple(line for line in stop.split("\n") if line),
        runtime="gathered" if runtime == "gathered" else "masked",
        beside_dense=bool(dense),
    )


@st.fragment(run_every=0.4)
def _watch(job: Job[WrittenTexts]) -> None:
    """Show what there is so far until the run is done."""
    if job.future.done():
        st.rerun()
    st.progress(job.share, text=plain(how_far(job, before=jobs().before(job))))
    live: Written | None = job.partial
    if st.button("Stop", key=f"stop {GENERATION_RUN}"):
        if live is None or not live.has_begun:
            give_up(GENERATION_RUN)
            st.rerun()
        else:
            live.enough = True  # what was written stays
    if live is None:
        return
    layers_scale(live.ends)
    beside = bool(live.tokens["dense"])
    for place, side in zip(st.columns(1 + beside), ("own", "dense"), strict=False):
        with place:
            if beside:
                st.caption("Skipping" if side == "own" else "Dense")
            written_text(live.tokens["own" if side == "own" else "dense"], live.ends)


def _go_on(request: Request, generation: Generation) -> None:
    """Keep a conversation, so that the next message goes on from it."""
    messages = request.documents[0].messages
    if messages:
        answer = {"role": "assistant", "content": generation.text}
        state().chat = (*messages, answer)
        state().clear_message = True


def _show(found: WrittenTexts, run: StartedRun) -> None:
    own, dense = found.own, found.dense
    st.caption(plain(said_of(own.trace)))
    compared = None if dense is None else compare_generations(own, dense)
    st.markdown(plain(generation_reading(own)))
    if compared is not None:
        st.markdown(plain(comparison_reading(compared)))
    if found.why_no_dense is not None:
        st.warning(plain(f"The dense model wrote nothing. {found.why_no_dense}"))
    _numbers(own)
    layers_scale(found.ends)
    if dense is None or compared is None:
        written_text(own.tokens, found.ends)
    else:
        _beside(own, dense, compared, found.ends)
    if is_current(run.asked):
        st.caption("All other pages now show this text.")
    else:
        st.button(
            "Show it on all pages", key="make current",
            on_click=make_current, args=(run.request, run.asked, own),
        )  # fmt: skip
    _downloads(own)


def _numbers(own: Generation) -> None:
    layers = own.trace.run["layers"].item()
    cells = [("Tokens written", f"{len(own.written):,}", "The last one was written and not read.")]
    phases: dict[Phase, str] = {"decode": "Layers used, written", "prefill": "Layers used, prompt"}
    for phase, label in phases.items():
        used = own.mean_layers(phase)
        shown = said_or_unknown(used, ".1f", f" of {layers}")
        cells.append((label, shown, f"Mean per token. {GLOSSARY['layers used']}"))
    cells.append((
        "Tokens per second", said_or_unknown(own.tokens_per_second, ".1f"),
        "After the first token, in this one run, with every decision recorded.",
    ))  # fmt: skip
    cells.append((
        "To the first token", f"{own.seconds_to_first:.2f} s",
        "The prefill, in this one run, with every decision recorded.",
    ))  # fmt: skip
    key_figures(cells)


def _beside(
    own: Generation, dense: Generation, compared: GenerationComparison, ends: tuple[float, float]
) -> None:
    parts = None if compared.token is None else len(own.read) + compared.token
    for column, side, label in zip(st.columns(2), (own, dense), ("Skipping", "Dense"), strict=True):
        with column:
            st.caption(label)
            written_text(side.tokens, ends, parts=parts)
    table = compared.figures.select(
        pl.Series("", ["skipping", "dense"]),
        pl.col("tokens").alias("tokens written"),
        pl.col("ended"),
        pl.col("layers_used").round(2).alias("layers used"),
        pl.col("tokens_per_second").round(2).alias("tokens per second"),
        pl.col("seconds_to_first").round(3).alias("seconds to the first"),
    )
    st.dataframe(table.to_pandas(), hide_index=True)


def _downloads(own: Generation) -> None:
    kinds = [
        ("Decisions (CSV)", trace_csv, "generated-decisions.csv", "text/csv"),
        ("Trace", trace_file, "generated-trace.parquet", "application/octet-stream"),
    ]
    for column, (label, make, name, mime) in zip(st.columns(3), kinds, strict=False):
        column.download_button(
            label, partial(make, own.trace), file_name=name, mime=mime, on_click="ignore",
            width="stretch",
        )  # fmt: skip
