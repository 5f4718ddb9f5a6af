"""Where a text did not come to the budget asked for: thresholds for its kind, at one click."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import PATHS, follow, jobs, tried
from skipviz.app.jobs import Request
from skipviz.app.state import set_widget, widget
from skipviz.errors import InputError
from skipviz.evaluation.own_text import Fitted, fit_to_text
from skipviz.folders import model_folder, sample_folders
from skipviz.models import SkipModel, read_settings
from skipviz.models.own_thresholds import check_own_name, keep_own
from skipviz.progress import Progress
from skipviz.readings.budgets import calibrate_command, has_thresholds
from skipviz.traces import Trace

FIRST_NAME = "my-text"
"""What a kind of text is called where the user does not say."""


def offer_thresholds(traced: Trace, request: Request) -> None:
    """Offer to set a threshold for texts like the one traced, if it missed its budget."""
    missed = traced.budget_missed
    if missed is None or not has_thresholds(traced):
        return
    asked = missed[0]
    with st.container(border=True):
        st.markdown("**Thresholds for this kind of text**")
        st.caption(
            "Every other part of the text sets a threshold; the rest shows what it comes to on "
            "more text of this kind. In a terminal:"
        )
        st.code(calibrate_command(request.model, asked), language=None, wrap_lines=True)
        name = st.text_input(
            "Name of this kind of text", FIRST_NAME, key="own_name", max_chars=40,
            help="It becomes one more policy of this model. A threshold of this name and budget "
            "that there is already is replaced; what the model came with stays.",
        )  # fmt: skip
        found = tried(
            "own thresholds",
            "Set a threshold for it",
            request,
            lambda: jobs().experiment(
                request,
                f"threshold {name} {asked}",
                _run(request, name, asked),
            ),
            settings=f"{name} {asked}",
        )
        if found is None:
            return
        st.markdown(plain(str(found)))
        st.button(
            f"Trace the text under {name}",
            on_click=_trace_again,
            args=(request, name, asked),
            key="own_trace",
        )


def _run(
    request: Request, name: str, asked: float
) -> Callable[[SkipModel, Progress, threading.Event], Fitted]:
    def run(model: SkipModel, progress: Progress, stop: threading.Event) -> Fitted:
        if model.settings is None:
            raise InputError(f"{model.name} has no budgets to set thresholds for.")
        folder = model_folder(request.model)
        settings = read_settings(folder).under(model.policy, name=model.name)
        check_own_name(name, settings)
        found = fit_to_text(model, request.documents, budget=asked, progress=progress, stop=stop)
        keep_own(
            settings, folder, name=name, budget=asked, threshold=found.threshold,
            realised=found.held_out,
        )  # fmt: skip
        return found

    return run


def _trace_again(request: Request, name: str, asked: float) -> None:
    again = replace(request, policy=name, budget=asked, weights=None, stored=None)
    if request.model in sample_folders() and widget("model") != request.model:
        set_widget("model", request.model)
    set_widget(f"policy of {request.model}", name)
    set_widget(f"budget of {request.model} {name}", asked)
    follow(PATHS, lambda: jobs().submit(again), asked=again.key, request=again)
