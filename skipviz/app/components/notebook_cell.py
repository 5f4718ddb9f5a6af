"""A figure as the notebook cell that draws it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

TRACE_FILE = "trace.parquet"
"""The name under which a page offers a trace."""
FROM_TRACE = f'trace = skipviz.Trace.load("{TRACE_FILE}")'
SAVED_AS = f"“Trace” under the downloads of the page “Skip paths” saves {TRACE_FILE}."


def notebook_cells(
    *figures: str, imports: Sequence[str] = (), first: Sequence[str] = (FROM_TRACE,),
    files: str = SAVED_AS,
) -> None:  # fmt: skip
    """Offer the cells that draw the figures above, at the press of a button.

    Parameters
    ----------
    figures
        The last line of each cell, which is the figure.
    imports
        Lines beside ``import skipviz``.
    first
        Lines that come before the figure: they load what it is drawn of.
    files
        Where the files come from that are loaded.
    """
    head = "\n".join(sorted(["import skipviz", *imports], key=lambda line: line.split()[1]))
    body = "\n".join(first)
    with st.popover(f"Notebook cell{'' if len(figures) == 1 else 's'}"):
        st.caption(f"{files} With it beside the notebook:")
        for figure in figures:
            st.code(f"{head}\n\n{body}\n{figure}", language="python")
