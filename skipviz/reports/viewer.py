"""The app's canvas for pages without Python: the same files, given a trace as JSON."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

from skipviz.app.components.canvas_payload import payload
from skipviz.reports.page import asset, inline_json
from skipviz.traces import Trace

CANVAS_SCRIPTS = (
    "text", "canvas_data", "canvas_parts", "canvas_colours", "canvas_text", "canvas_map",
    "canvas_panel", "canvas_selection", "canvas_search", "canvas_address", "canvas",
)  # fmt: skip
"""In the order in which the app puts them together."""
_ENTRY = "export default function (component)"


def viewer(trace: Trace) -> str:
    """Return text, map and panel of a trace as HTML that needs nothing else."""
    data = inline_json(trace_json(trace, key="trace"))
    return (
        '<div id="canvas"></div>'
        f'<script type="application/json" id="canvas-data">{data}</script>'
        f"<script>{viewer_script()}\n"
        'viewerIn(document.getElementById("canvas"), TEMPLATE, STYLE)'
        '(JSON.parse(document.getElementById("canvas-data").textContent));\n})();</script>'
    )


def viewer_script() -> str:
    """Return the start of a script that defines ``viewerIn``, ``TEMPLATE`` and ``STYLE``.

    All of it stands in one function, which the caller closes: ``})();``.
    """
    canvas = "".join(_canvas_file(f"{name}.js") for name in CANVAS_SCRIPTS)
    style = _canvas_file("text.css") + _canvas_file("canvas.css") + asset("viewer.css")
    return (
        '(() => {\n"use strict";\n'
        f"{canvas.replace(_ENTRY, 'function canvasComponent(component)')}\n{asset('viewer.js')}\n"
        f"const TEMPLATE = {inline_json(json.dumps(_canvas_file('canvas.html')))};\n"
        f"const STYLE = {inline_json(json.dumps(style))};\n"
    )


def trace_json(trace: Trace, *, key: str) -> str:
    """Return a trace as the viewer takes it: JSON, where arrays are bytes in base64.

    Parameters
    ----------
    trace
        The trace.
    key
        What it is called on the page.
    """
    data: dict[str, Any] = payload(trace, key=key)
    column = data["bytes"]["b"].to_numpy()
    data["bytes"] = base64.b64encode(column.tobytes()).decode("ascii")
    return json.dumps(data, ensure_ascii=False, allow_nan=False, default=float)


def _canvas_file(name: str) -> str:
    folder = files("skipviz.app.components") / "assets"
    return (folder / name).read_text(encoding="utf-8")
