"""Components of our own: their HTML, CSS and JavaScript lie beside them in ``assets``."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import streamlit as st


def component(name: str, *, scripts: tuple[str, ...] = (), shows: bool = True) -> Any:
    """Return the Streamlit component of a name.

    ``text.js`` and ``text.css`` come before its own files: every component that shows something
    shows a text.

    Parameters
    ----------
    name
        Of the component and its files.
    scripts
        The names of its scripts in order, each with one purpose; only ``name`` if empty. They
        are put together to one.
    shows
        Whether it shows anything; one that does not is a script alone.
    """
    if not shows:
        return st.components.v2.component(f"skipviz_{name}", js=_read(f"{name}.js"))
    return st.components.v2.component(
        f"skipviz_{name}",
        html=_read(f"{name}.html"),
        css=_read("text.css") + _read(f"{name}.css"),
        js="".join(_read(f"{script}.js") for script in ("text", *(scripts or (name,)))),
    )


def _read(name: str) -> str:
    return (files("skipviz.app.components") / "assets" / name).read_text(encoding="utf-8")
