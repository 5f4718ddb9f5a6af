"""Texts in figures: escaped, bounded, and with what cannot be seen made visible."""

from __future__ import annotations

import html
from collections.abc import Sequence

from skipviz.analysis.one_model import traces_of_one_model
from skipviz.traces import Trace

_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20)}
_VISIBLE |= {0x7F: "\u2421", ord("\n"): "↵", ord("\r"): "␍", ord("\t"): "⇥"}
_ISOLATE, _POP = "\u2068", "\u2069"
LONGEST = 24
# Characters that HTML drops or changes, shown by their pictures instead.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"}
_PICTURES |= {0x7F: "\u2421", ord("\r"): "&#13;"}


def token_label(text: str, *, longest: int = LONGEST) -> str:
    """Return a token's text for a Plotly figure.

    Plotly takes ``<b>`` in a text for markup and two dollar signs for a formula; both are escaped.

    Parameters
    ----------
    text
        Any text.
    longest
        Characters to show, from 1; the rest becomes an ellipsis.
    """
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    shown = shown.translate(_VISIBLE) or "(no characters)"
    if shown.isspace() or shown != shown.strip():
        shown = _show_edges(shown)
    # Isolated, so that a right-to-left token does not turn the words around it.
    return f"{_ISOLATE}{html.escape(shown, quote=False).replace('$', '&#36;')}{_POP}"


def html_text(text: str) -> str:
    """Return a text for HTML: escaped, and every character of it there."""
    # The carriage return's reference must come after escaping, the pictures may as well.
    return html.escape(text).translate(_PICTURES)


def provenance(traces: Trace | Sequence[Trace]) -> str:
    """Return ``said_of`` traces, escaped for a Plotly figure or HTML."""
    return html.escape(said_of(traces), quote=False).replace("$", "&#36;")


def said_of(traces: Trace | Sequence[Trace]) -> str:
    """Return model, policy, budget, number of tokens and number format in one line.

    Parameters
    ----------
    traces
        A trace, or several under one model.
    """
    several = traces_of_one_model(traces)
    tokens = sum(len(trace) for trace in several)
    run = several[0].run.row(0, named=True)
    parts = [run["model"] or "unknown model"]
    parts.append("unknown policy" if run["policy"] is None else f"{run['policy']} policy")
    if run["budget"] is not None:
        parts.append(f"budget {run['budget']:.2f}")
    parts.append("1 token" if tokens == 1 else f"{tokens:,} tokens")
    parts.append(run["dtype"] or "unknown number format")
    return " · ".join(parts)


def _show_edges(text: str) -> str:
    core = text.strip(" ")
    if not core:
        return "␣" * len(text)
    start = text.index(core)
    return "␣" * start + core + "␣" * (len(text) - start - len(core))
