"""What flipping one decision would do: asked on the canvas, on whichever page, and shown there."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.counterfactual import WhatIf, dependent_sites
from skipviz.app.components.canvas_payload import changed_payload
from skipviz.app.components.run_button import follow, jobs, problem_words
from skipviz.app.jobs import Request, kept_result
from skipviz.app.on_canvas import Changed, OnCanvas
from skipviz.app.one_window import one_window
from skipviz.app.state import state
from skipviz.plots.lenses.lens import UTILITY_LENS
from skipviz.progress import Progress
from skipviz.readings.counterfactual import flip_reading
from skipviz.readings.skipping import needs_next_token
from skipviz.traces import Trace

FLIP_RUN = "flip"
"""The run that answers what flipping the decision asked about last would do."""
AUDIT_RUN = "audit"
"""The run of the audit, on every page that offers it."""


def no_flips(trace: Trace) -> str:
    """Return why nothing can be asked about single decisions of a trace; empty if it can."""
    if not trace.sites.height:
        return "This model has no gates: there is no decision to flip."
    told = needs_next_token(trace, "there is no loss that a flip could change")
    return told or one_window(trace) or ""


def ask_flip(request: Request, trace: Trace, token: int, site: int) -> None:
    """Begin to find out what flipping a decision would do.

    Parameters
    ----------
    request, trace
        As pages have them.
    token, site
        Of the decision.
    """
    run = not trace.matrix("exec_count")[token, site]
    sites: dict[tuple[int | None, str | int | None], bool]
    sites = {(token, str(trace.sites["label"][site])): bool(run)}

    def ask(model: Any, progress: Progress, stop: threading.Event) -> WhatIf:
        from skipviz.experiments.counterfactuals.answering import what_if  # brings torch

        return what_if(model, trace, sites=sites, progress=progress, stop=stop)

    follow(
        FLIP_RUN,
        lambda: jobs().experiment(request, f"flip {token} {site}", ask),
        asked=(request.key, token, site),
        request=request,
    )


def flip_payload(request: Request) -> dict[str, Any] | None:
    """Return what the canvas needs of the flip asked about last, if it is of this text."""
    run = state().runs.get(FLIP_RUN)
    if run is None or run.request.key != request.key:
        return None
    asked: Any = run.asked
    cell = (int(asked[1]), int(asked[2]))
    told: dict[str, Any] = {"cell": cell, "stays": False, "cone": [], "words": []}
    found: WhatIf | None = None if run.stopped else kept_result(run.job)
    if found is not None:
        jobs().look_at(run.job)
        key = f"flip on canvas {request.key} {cell}"
        return jobs().made(key, lambda: _told(changed_by(found, cell), request, told))
    problem = run.problem
    told |= {"waits": True} if problem is None else {"problem": problem_words(problem)}
    return changed_payload(None, key=request.key, name=FLIP_RUN, **told)


def question_payload(request: Request, on: OnCanvas) -> dict[str, Any] | None:
    """Return what the canvas needs of what the question of a page changed."""
    if on.changed is None:
        return None
    source, changed = on.changed
    return jobs().made(
        f"question on canvas {request.key} {source}",
        lambda: _told(changed, request, {"cell": changed.cell, "stays": True}, name="question"),
    )


def changed_by(answer: WhatIf, cell: tuple[int, int] | None = None) -> Changed:
    """Return which decisions an answer changes, and in words what the flip of one does.

    Parameters
    ----------
    answer
        What ``skipviz.what_if`` returned.
    cell
        The token and site that were asked about; None: the one that changed as asked, if it is one.
    """
    before, after = (each.matrix("exec_count") > 0 for each in (answer.before, answer.trace))
    marks = np.where(before == after, 0, np.where(answer.asked, 1, 2)).astype(np.uint8)
    asked = np.argwhere(answer.asked)
    if cell is None and len(asked) == 1:
        cell = (int(asked[0][0]), int(asked[0][1]))
    if cell is None:
        return Changed(marks=marks)
    cone = dependent_sites(answer.before.sites, cell[1])
    words = flip_reading(answer, *cell, can_depend=_cells_in(cone, cell[0], len(before)))
    return Changed(marks=marks, cell=cell, cone=tuple(cone), words=words)


def add_audit(request: Request, trace: Trace, on: OnCanvas) -> None:
    """Put what an audit of this text found on the canvas, wherever it was run."""
    run = state().runs.get(AUDIT_RUN)
    shown = None if run is None else run.finished
    if shown is None or shown.request.key != request.key:
        return
    source = f"audit {shown.asked}"
    if on.lenses.get(UTILITY_LENS, ("",))[0] == source:
        return
    cells: pl.DataFrame | None = kept_result(shown.job)
    if cells is not None:
        from skipviz.plots.lenses.found import utility_lens  # brings what only audits need

        on.add(source, utility_lens(trace, cells))


def _told(
    changed: Changed, request: Request, told: dict[str, Any], *, name: str = FLIP_RUN
) -> dict[str, Any]:
    told = told | {"cone": list(changed.cone), "words": list(changed.words)}
    return changed_payload(changed.marks, key=request.key, name=name, **told)


def _cells_in(cone: list[int], token: int, tokens: int) -> int:
    """Return how many decisions are in a cone."""
    sizes = {0: 0, 1: 1, 2: tokens - token, 3: tokens}
    return sum(sizes[each] for each in cone)
