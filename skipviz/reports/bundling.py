"""A folder of traces and their viewer: opens from disk and from any web server, without Python."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from skipviz.analysis.flops import cost_summary
from skipviz.atomic import atomic_write
from skipviz.errors import InputError
from skipviz.plots.style.labels import html_text, said_of
from skipviz.progress import Progress, no_progress
from skipviz.readings.paths import cost_reading
from skipviz.reports.citation import bibtex
from skipviz.reports.page import asset, key_numbers, prose
from skipviz.reports.viewer import trace_json, viewer_script
from skipviz.reports.whole_text import key_figures_of
from skipviz.text.arguments import checked
from skipviz.traces import Trace

_TITLE = "Which layers does each token use?"
_POLICY = "connect-src 'none'; img-src data: blob:; font-src 'none'; object-src 'none'"
"""Nothing is fetched but what lies in the folder, which is loaded as scripts: from disk a page may
read nothing else."""


@checked
def bundle(
    traces: Mapping[str, Trace], folder: Path | str, *, progress: Progress = no_progress
) -> None:
    """Write a folder that shows traces in a browser: no Python, no network, for a paper's page.

    ``index.html`` opens from disk and from any web server. What stands behind ``#`` in its address
    is a link to a place: ``index.html#trace=fox&token=12&site=L7.mlp``.

    Parameters
    ----------
    traces
        Each by its name; links have the name with other characters than letters, digits and ``_``
        as ``-``.
    folder
        The folder to make; it must be empty if it exists.
    progress
        Called with the share of the traces written, 0 to 1.

    Raises
    ------
    InputError
        If there are no traces, one has no tokens, or the folder is not empty.

    Examples
    --------
    >>> skipviz.bundle({"fox": trace}, tmp / "page")
    >>> sorted(path.name for path in (tmp / "page").rglob("*.*"))
    ['fox.js', 'fox.parquet', 'index.html', 'viewer.js']
    """
    target = Path(folder)
    if not traces:
        raise InputError("There are no traces to show; give at least one.")
    for name, trace in traces.items():
        if not len(trace):
            raise InputError(f"The trace {name!r} has 0 tokens, so there is nothing to show.")
    _check_empty(target)
    identifiers = _identifiers(list(traces))
    inside = target / "traces"
    inside.mkdir(parents=True, exist_ok=True)
    for place, (name, trace) in enumerate(traces.items()):
        known = identifiers[name]
        data = trace_json(trace, key=known)
        _write(inside / f"{known}.js", f"skipvizTrace({json.dumps(known)}, {data});\n")
        trace.save(inside / f"{known}.parquet")
        progress((place + 1) / len(traces))
    _write(target / "viewer.js", f"{viewer_script()}{asset('bundle.js')}\n}})();\n")
    _write(target / "index.html", _page({identifiers[n]: (n, t) for n, t in traces.items()}))


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; empty it, or name another.")


def _identifiers(names: list[str]) -> dict[str, str]:
    """Return what each trace is called in links and files, no two alike."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W+", "-", name, flags=re.ASCII).strip("-")[:60] or "trace"
        known, more = plain, 1
        while known.lower() in {each.lower() for each in found.values()}:
            more += 1
            known = f"{plain}-{more}"
        found[name] = known
    return found


def _page(traces: Mapping[str, tuple[str, Trace]]) -> str:
    options = "".join(
        f'<option value="{known}">{html_text(name)}</option>' for known, (name, _) in traces.items()
    )
    abouts = "".join(_about(known, trace) for known, (_, trace) in traces.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{_TITLE}</title><style>{asset('report.css')}</style></head><body>"
        f"<header><h1>{_TITLE}</h1></header><main>"
        '<p class="choice"><label for="choice">Trace</label> '
        f'<select id="choice">{options}</select> '
        '<button type="button" id="link">Copy a link to this place</button> '
        '<span id="copied" aria-live="polite"></span></p>'
        f'{abouts}<section><h2>The text and its layers</h2><p class="reading">Click a token, or '
        "use the arrow keys, to see its path through the layers and the most likely next tokens. "
        'Press ? for all keys.</p><div id="canvas"></div><p id="missing" role="alert"></p>'
        "</section>"
        f"<section><h2>Citation</h2><pre>{html_text(bibtex())}</pre></section></main>"
        '<script src="viewer.js"></script></body></html>\n'
    )


def _about(known: str, trace: Trace) -> str:
    figures = cost_summary(trace)
    return (
        f'<section class="about" data-trace="{known}" hidden><p class="subject">'
        f'{html_text(said_of(trace))}</p><p class="answer">{prose(cost_reading(trace, figures))}'
        f"</p>{key_numbers(key_figures_of(trace, figures))}"
        f'<p><a href="traces/{known}.parquet" download>The whole trace</a>, for '
        "<code>skipviz.Trace.load</code></p></section>"
    )


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
