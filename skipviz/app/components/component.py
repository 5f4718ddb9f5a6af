"""Components of our own: their HTML, CSS and JavaScript lie beside them in ``assets``."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import streamlit as st


def component(name: str) -> Any:
    """Return the Streamlit component of a name.

    ``text.js`` and ``text.css`` come before its own files: every component shows a text.
    """
    return st.components.v2.component(
        f"skipviz_{name}",
        html=_read(f"{name}.html"),
        css=_read("text.css") + _read(f"{name}.css"),
        js=_read("text.js") + _read(f"{name}.js"),
    )


def _read(name: str) -> str:
    return (files("skipviz.app.components") / "assets" / name).read_text(encoding="utf-8")
