"""The page of skip paths: a text in, which layers each token used out."""

from __future__ import annotations

from skipviz.app.components.heading import heading
from skipviz.app.components.run_button import PATHS
from skipviz.app.jobs import kept_result
from skipviz.app.one_text import no_text_yet
from skipviz.app.state import state
from skipviz.app.views.paths_result import show


def page() -> None:
    """Show what came out of the text that was traced last."""
    heading(
        "Which layers did each token use?",
        "layers used", "budget", "FLOPs", "loss", "surprisal", "gate score", "threshold", "site",
        "unit", "skip path",
    )  # fmt: skip
    run = state().runs.get(PATHS)
    shown = None if run is None else run.finished
    traced = None if shown is None else kept_result(shown.job)
    if shown is not None and traced is not None:
        show(traced, shown.request)
    elif not state().runs_under_way(PATHS):
        no_text_yet()
