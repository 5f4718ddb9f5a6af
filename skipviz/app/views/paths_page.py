"""The page of skip paths: a text in, which layers each token used out."""

from __future__ import annotations

from skipviz.app.components.heading import heading
from skipviz.app.components.run_button import PATHS, traced_now
from skipviz.app.frame.opening import no_text_yet
from skipviz.app.state import state
from skipviz.app.views.paths_result import show


def page() -> None:
    """Show what came out of the text that was traced last."""
    heading(
        "Which layers did each token use?",
        "layers used", "budget", "FLOPs", "loss", "surprisal", "gate score", "threshold", "site",
        "unit", "skip path",
    )  # fmt: skip
    known = traced_now()
    shown = None if known is None else state().runs[PATHS].finished
    if known is not None and shown is not None:
        show(*known, asked=shown.request)
    elif not state().runs_under_way(PATHS):
        no_text_yet()
