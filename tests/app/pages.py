"""What tests of pages without a browser share."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamlit.testing.v1 import AppTest

PATIENCE = 60


def framed(view: str) -> None:
    """The script of a page in its frame."""
    from importlib import import_module

    from skipviz.app.frame.frame import draw_in_frame

    draw_in_frame(import_module(f"skipviz.app.views.{view}").page, lambda _: None)


def page_of_text(view: str, folder: str, text: str, budget: float | None = 0.8) -> None:
    """The script of a page after a text was traced."""
    from importlib import import_module

    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=budget)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    import_module(f"skipviz.app.views.{view}").page()


def until(page: AppTest, ready: Callable[[], object]) -> None:
    """Run a page until something holds; it is not run where that holds already."""
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, [each.value for each in page.error]
        page.run(timeout=PATIENCE)
        assert not page.exception, page.exception[0].message
        time.sleep(0.05)


def until_ended(page: AppTest) -> None:
    """Run a page until no run of it is under way."""
    until(page, lambda: not any(button.label == "Stop" for button in page.button))
