"""What goes to the canvas beside its trace, each part on its own: lenses, answers, selections.

Streamlit sends all data of a component anew when any of it changes. So each part is a component of
its own, which shows nothing and, in the browser, hands what it got to the canvas of its trace.
"""

from __future__ import annotations

from typing import Any

from skipviz.app.components.component import component

_COMPONENT = component("canvas_beside", shows=False)


def hand_over(data: dict[str, Any]) -> None:
    """Hand a part to the canvas.

    Parameters
    ----------
    data
        What ``lens_payload`` or ``changed_payload`` returned; of a lens also ``fresh``, a number
        that grows with each one that is to be looked through at once, None for others. Or what is
        asked of the canvas under the ``name`` ``asked``: ``key``, that of the trace; ``select``, as
        ``OnCanvas`` has it in ``asked``; and ``rangeClears``, how often the range was taken back.
    """
    _COMPONENT(key=f"beside canvas {data['name']}", data=data)
