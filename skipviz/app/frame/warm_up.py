"""What takes long to import and load, done in the background while a page is looked at."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules

import streamlit as st

from skipviz.app import views
from skipviz.app.components.run_button import jobs
from skipviz.folders import BACKBONE, FIRST
from skipviz.home import home

IMPORTED = (
    "skipviz.models.loading",
    "skipviz.recording.tracing",
    "skipviz.app.frame.inputs",
    "skipviz.app.views.own_thresholds_offer",
)
"""Modules that the side bar and a first run need, with torch and transformers under them."""


class WarmUp:
    """Imports what models need, loads the one that is offered first, and imports all pages."""

    def __init__(self) -> None:
        self._imported = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def has_imported(self) -> bool:
        """Whether all that the side bar needs is imported."""
        elsewhere = self._thread is None and IMPORTED[0] in sys.modules
        return elsewhere or self._imported.is_set()

    def begin(self) -> None:
        """Begin, once for this server."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="warm up", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            for name in IMPORTED:
                import_module(name)
        finally:
            self._imported.set()  # a page that needs what is broken says so itself
        if (home() / "models" / BACKBONE).is_dir():  # else the first run fetches it, and says so
            jobs().load(FIRST)
        for page in iter_modules(views.__path__, f"{views.__name__}."):
            with suppress(ImportError):  # the page says what is missing when it is opened
                import_module(page.name)


@st.cache_resource
def warm_up() -> WarmUp:
    """Return the one of this server."""
    return WarmUp()
