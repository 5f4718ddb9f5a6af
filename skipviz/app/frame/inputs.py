"""The side bar: which text and which model, or which trace that is there already."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import streamlit as st

from skipviz.app.components.durations import takes
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs
from skipviz.app.frame.gates_input import GATES_OF, choose_gates
from skipviz.app.frame.kept_session import offer_to_open
from skipviz.app.frame.stored import stored_trace, uploaded
from skipviz.app.jobs import Request
from skipviz.app.served import folders_offered
from skipviz.app.session_file import is_session
from skipviz.app.state import restore, set_widget, state, widgets
from skipviz.errors import ModelError, TextError
from skipviz.families import Settings
from skipviz.folders import BACKBONE, FIRST, model_folder, sample_folders
from skipviz.models import read_settings
from skipviz.readings.glossary import GLOSSARY
from skipviz.text.documents import SUFFIXES, Document, check_text, read_bytes

SAMPLES = {
    "A short story": "prose.txt",
    "A question and some Python": "code.txt",
    "Lists, sums and scripts": "repetition.txt",
}
TRACE = "Trace"
FOLDER = "A folder on this machine"
KEPT = frozenset({"kind", "pasted", "sample", "model", "folder"})
KEPT_OF = ("policy of ", "budget of ", GATES_OF)
"""Keys of the side bar's widgets, and what such keys begin with, but for buttons and uploads."""
CHARS_PER_TOKEN = 4
NO_UPLOAD = "No file has been uploaded yet. Choose one, or paste a text."


def choose() -> Request | None:
    """Offer text and model; return a request when the button is pressed and the input is good.

    What is chosen so far is in ``state().chosen``.
    """
    restore(state().sidebar.items())
    request = _choose()
    held = widgets()
    drawn = {key: held[key] for key in held if key in KEPT or key.startswith(KEPT_OF)}
    state().sidebar |= drawn
    return request


def fill_in(request: Request) -> None:
    """Set text, model, gates, policy and budget to those of a request, before they are drawn."""
    known = request.model in _model_names()
    values: dict[str, Any] = {"model": request.model if known else FOLDER}
    if not known:
        values["folder"] = request.model
    if request.gates is not None:
        values[f"{GATES_OF}{request.model}"] = request.gates
    settings = settings_of(request.model)
    policy = request.policy
    if settings is not None and policy is not None and policy in settings.policies:
        values[f"policy of {request.model}"] = policy
        settings = settings.under(policy, name=request.model)
    if settings is not None and request.budget in settings.budgets:
        values[f"budget of {request.model} {policy}"] = request.budget
    if len(request.documents) == 1 and not request.documents[0].messages:
        values |= {"kind": "Paste", "pasted": request.documents[0].text}
    for key, value in values.items():
        set_widget(key, value)


def _model_names() -> list[str]:
    return [*sample_folders(), BACKBONE, *([FOLDER] if folders_offered() else [])]


def _chosen_model() -> Request:
    """Offer model, policy and budget; return a request without a text."""
    model = _choose_model()
    gates = choose_gates(model)
    policy = _choose_policy(model)
    budget = _choose_budget(model, policy)
    return Request(model=model, documents=(), budget=budget, policy=policy, gates=gates)


def _choose() -> Request | None:
    kind = st.pills(  # which wrap, where the side bar is narrow
        "Text", ["Paste", "Upload", "Sample", TRACE], default="Paste", key="kind", required=True
    )
    if kind == TRACE:
        state().chosen = None
        return _choose_stored()
    state().session = None  # Streamlit has forgotten the file
    documents, problem = _documents(str(kind))
    request = _chosen_model()
    pressed = st.button(
        "Trace the text",
        type="primary",
        width="stretch",
        key="run",
        disabled=request.model == "",
        shortcut="Ctrl+Enter",
    )
    if documents and not problem:
        _estimate(request.model, documents)
    if problem is not None and (pressed or kind == "Upload"):
        (st.info if problem == NO_UPLOAD else st.error)(plain(problem))
    asked = replace(request, documents=() if problem else documents)
    state().chosen = asked
    if not (pressed and asked.documents):
        return None
    state().documents = documents
    return asked


def _choose_stored() -> Request | None:
    """Offer a trace instead of a text; return what made it when the button is pressed."""
    try:
        upload = uploaded()
        if is_session(upload.getvalue()):
            offer_to_open(upload)
            return None
        request, trace = stored_trace(upload)
    except TextError as error:
        st.info(plain(str(error)))
        return None
    texts = "1 text" if len(request.documents) == 1 else f"{len(request.documents):,} texts"
    st.caption(f"{texts}, traced by {plain(request.model)}. Showing it runs no model.")
    if not st.button("Show the trace", type="primary", width="stretch", key="show"):
        return None
    jobs().keep(request, trace)
    state().documents = request.documents
    return request


def _choose_model() -> str:
    names = _model_names()
    name = st.selectbox("Model", names, index=names.index(FIRST), key="model")
    if name != FOLDER:
        return str(name)
    path = st.text_input(
        "Folder",
        key="folder",
        placeholder="/path/to/model",
        help="A transformers causal LM (config.json and .safetensors), or gates trained with "
        "skipviz (skipviz.json). No Python code in it is run.",
    )
    if not path.strip():
        return ""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:  # ~name, of a user that does not exist here
        return str(Path(path).absolute())


def settings_of(model: str) -> Settings | None:
    """Return the settings of a model that skips; None of any other."""
    try:
        return read_settings(model_folder(model))
    except ModelError:  # dense, or broken: loading it says which
        return None


def _choose_policy(model: str) -> str | None:
    """Offer the policies of a model that has several, such as the rules of early exits."""
    settings = settings_of(model)
    if settings is None or len(settings.policies) < 2:
        return None
    chosen = st.segmented_control(
        settings.policy_name,
        settings.policies,
        default=settings.policy,
        required=True,
        key=f"policy of {model}",
        format_func=lambda policy: plain(policy if policy in settings.own else policy.capitalize()),
        help=settings.policy_help,
    )
    return str(chosen)


def _choose_budget(model: str, policy: str | None) -> float | None:
    """Offer the budgets of a model that has several."""
    settings = settings_of(model)
    if settings is not None and policy is not None:
        settings = settings.under(policy, name=model)
    if settings is None or len(settings.budgets) < 2:
        return None
    budgets = sorted(settings.budgets, reverse=True)
    chosen = st.segmented_control(
        "Budget",
        budgets,
        default=settings.budget,
        required=True,
        key=f"budget of {model} {policy}",
        format_func=lambda budget: f"{budget:.0%}",
        help=GLOSSARY["budget"],
    )
    return float(chosen)


def _documents(kind: str) -> tuple[tuple[Document, ...], str | None]:
    try:
        if kind == "Upload":
            return _uploaded(), None
        if kind == "Sample":
            document = sample_document(st.selectbox("Sample text", list(SAMPLES), key="sample"))
            st.text(document.text[:400] + ("…" if len(document.text) > 400 else ""))
            return (document,), None
        text = st.text_area(
            "Paste a text", key="pasted", height=220, placeholder="Any language, any length"
        )
        return (Document(source="pasted text", text=check_text(text)),), None
    except TextError as error:
        return (), str(error)


def sample_document(title: str = next(iter(SAMPLES))) -> Document:
    """Return one of the texts that come with the page, the first if none is named."""
    name = SAMPLES[title]
    text = (files("skipviz.app") / "samples" / name).read_text(encoding="utf-8")
    return Document(source=name, text=text)


def _uploaded() -> tuple[Document, ...]:
    megabytes = int(st.get_option("server.maxUploadSize"))
    uploads = st.file_uploader(
        f"Upload texts (at most {megabytes} MB each)",
        type=[suffix.lstrip(".") for suffix in SUFFIXES],
        accept_multiple_files=True,
        key="files",
        help='Plain text, Markdown, or JSON Lines: a "text" in each line, or "messages" with '
        '"role" and "content", which the model\'s chat template writes.',
    )
    documents = [
        document
        for upload in uploads
        for document in read_bytes(
            upload.getvalue(), name=upload.name, limit=megabytes * 1024 * 1024
        )
    ]
    foreign = {document.encoding for document in documents} - {"utf-8"}
    if foreign:
        st.info(f"Read as {', '.join(sorted(foreign))}. Check that all letters are right.")
    if not documents:
        raise TextError(NO_UPLOAD)
    return tuple(documents)


def _estimate(model: str, documents: tuple[Document, ...]) -> None:
    tokens = sum(document.characters for document in documents) / CHARS_PER_TOKEN
    duration = takes(jobs().costs.seconds(Request(model=model, documents=documents).effort))
    st.caption(f"About {max(1.0, tokens):,.0f} tokens: {duration}. You can stop at any time.")
