"""A figure as the notebook cell that draws it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st

from skipviz.app.jobs import Request
from skipviz.traces import Trace

TRACE_FILE = "trace.parquet"
"""The name under which a page offers a trace."""
FROM_TRACE = f'trace = skipviz.Trace.load("{TRACE_FILE}")'
SAVED_AS = f"“Trace” under the downloads of the page “Skip paths” saves {TRACE_FILE}."
GATES_READ = "from skipviz.families.described.spec import gate_specs_in"


def notebook_cells(
    *figures: str, imports: Sequence[str] = (), first: Sequence[str] = (FROM_TRACE,),
    files: str = SAVED_AS, model: str | None = None,
) -> None:  # fmt: skip
    """Offer the cells that draw the figures above, at the press of a button.

    Parameters
    ----------
    figures
        The last line of each cell, which is the figure; what it alone is drawn of may be above.
    imports
        Lines beside ``import skipviz``; a cell has those names of them that it uses.
    first
        Lines that come before the figure: they load what it is drawn of.
    files
        Where the files come from that are loaded; empty: none is.
    model
        The line that loads the model, of ``model_line``; None: none is run.
    """
    runs = [] if model is None else [model]
    said = [
        "The model runs again, which takes as long as on this page." if runs else "",
        f"{files} With it beside the notebook:" if files else "",
    ]
    with st.popover(f"Notebook cell{'' if len(figures) == 1 else 's'}"):
        if any(said):
            st.caption(" ".join(filter(None, said)))
        for figure in figures:
            body = "\n".join([*runs, *first, figure])
            used = [_used(line, body) for line in (*imports, GATES_READ)]
            head = sorted(filter(None, ["import skipviz", *used]), key=lambda line: line.split()[1])
            st.code("\n".join([*head, "", body]), language="python")


def model_line(request: Request, trace: Trace) -> str:
    """Return the line that loads the model of a page as the page runs it.

    Parameters
    ----------
    request, trace
        As pages have them.
    """
    asked: dict[str, object] = {"limit": request.limit}
    if request.limit is None:
        asked = {"budget": trace.run["budget"].item(), "policy": request.policy}
    said = [f"{name}={value!r}" for name, value in asked.items() if value is not None]
    if request.gates is not None:
        said.append(f"gates=gate_specs_in({request.gates!r}, name='The description of gates')")
    return f"model = skipviz.load({', '.join([repr(request.model), *said])})"


def _used(line: str, body: str) -> str | None:
    """Return an import of those names that a cell uses, if it uses any."""
    start, _, names = line.rpartition("import ")
    used = [name for name in names.split(", ") if re.search(rf"\b{name.split()[-1]}\b", body)]
    return f"{start}import {', '.join(used)}" if used else None
