"""The text in the colours of its clusters, as a Streamlit component that a click answers from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import polars as pl

from skipviz.analysis.clusters.grouping import NO_CLUSTER
from skipviz.app.components.canvas import own_values
from skipviz.app.components.canvas_payload import span_texts
from skipviz.app.components.component import component
from skipviz.plots.clustered_text import ink_on
from skipviz.plots.style.palette import CLUSTER_COLOURS
from skipviz.traces import Trace

HEIGHT = 430
"""Height of the text, in pixels; longer texts scroll."""

_COMPONENT = component("cluster_text")


def payload(
    trace: Trace, tokens: pl.DataFrame, *, key: str, lit: Collection[int] | None
) -> dict[str, Any]:
    """Return what the component needs.

    Parameters
    ----------
    trace
        The texts.
    tokens
        Their clusters.
    key
        Changes exactly when the texts or their clusters do: the component writes the text anew.
    lit
        Tokens that are looked at, the others being faint; all if None.
    """
    table = span_texts(trace).select("sequence", "source", "text", "span")
    return {
        "key": key,
        "tokens": table.with_columns(
            cluster=tokens["cluster"].fill_null(NO_CLUSTER).cast(pl.Int16)
        ).to_pandas(),
        "lit": None
        if lit is None
        else pl.DataFrame({"token": sorted(lit)}, schema={"token": pl.Int32}).to_pandas(),
        "colours": list(CLUSTER_COLOURS),
        "inks": [ink_on(colour) for colour in CLUSTER_COLOURS],
        "height": HEIGHT,
    }


def cluster_text_view(data: dict[str, Any], *, key: str) -> int | None:
    """Show the component and return the token that was clicked since the page was drawn last.

    Parameters
    ----------
    data
        What ``payload`` returned.
    key
        Streamlit's key of this place on the page.
    """
    result = _COMPONENT(key=key, data=data, on_clicked_change=lambda: None)
    own = own_values(result.clicked, data["key"])
    return None if own is None else int(own[0])
