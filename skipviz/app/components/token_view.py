"""The text as a heatmap and, linked to it, the map of layers and tokens: one Streamlit component.

The component gets a trace once. Recolouring, hovering and scrolling happen in the browser, so
they never run Python; only the selected token comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.tokens.characters import new_characters
from skipviz.app.components.component import component
from skipviz.plots.style.palette import (
    ALWAYS_RUNS_SHARE,
    CIVIDIS,
    GREY,
    LOSS,
    LOSS_RANGE,
    MARGINS,
    SKIPPED_SHARE,
    UNIT_COLOURS,
    UNIT_NAMES,
    layers_used_range,
    margin_end,
)
from skipviz.traces import Trace, layer_order, running_steps

TEXT_HEIGHT = 340
"""Height of the text, in pixels; longer texts scroll."""


PALETTE: dict[str, Any] = {
    "names": UNIT_NAMES,
    "units": UNIT_COLOURS,
    "layers": CIVIDIS,
    "margins": MARGINS,
    "loss": LOSS,
    "lossTop": LOSS_RANGE[1],
    "skipped": (GREY, SKIPPED_SHARE),
    "alwaysRuns": (GREY, ALWAYS_RUNS_SHARE),
}
"""The colours and scales of all figures, as the component takes them."""
_COMPONENT = component("token_view")


def payload(trace: Trace, *, key: str) -> dict[str, Any]:
    """Return what the component needs of a trace.

    Parameters
    ----------
    trace
        The trace.
    key
        Changes exactly when the trace does: the component redraws when it sees another.
    """
    tokens = span_texts(trace)
    executed, score = trace.matrix("exec_count"), trace.matrix("score")
    limits = trace.matrix("threshold")
    constant = [len(np.unique(limits[:, site])) <= 1 for site in range(trace.sites.height)]
    columns = {f"e{site}": executed[:, site] for site in range(trace.sites.height)}
    columns |= {f"s{site}": score[:, site] for site in range(trace.sites.height)}
    columns |= {f"t{site}": limits[:, site] for site, same in enumerate(constant) if not same}
    thresholds = [
        float(limits[0, site]) if same and len(limits) else float("nan")
        for site, same in enumerate(constant)
    ]
    kept = ("label", "layer", "visit", "unit", "polarity", "skip_path")
    sites = trace.sites.select(kept).with_columns(
        pl.Series("threshold", thresholds, dtype=pl.Float64),
        pl.Series("row", running_steps(trace.sites), dtype=pl.Int64),
    )
    fewest, most = layers_used_range(trace)
    return {
        "key": key,
        "tokens": tokens.with_columns(
            [pl.Series(name, np.ascontiguousarray(values)) for name, values in columns.items()]
        ).to_pandas(),
        "sites": sites.to_pandas(),
        "layers": int(trace.run["layers"].item()),
        "rows": len(layer_order(trace.sites, layers=trace.run["layers"].item())),
        "fewest": fewest,
        "most": most,
        "margin": margin_end(trace),
        "palette": PALETTE,
        "height": TEXT_HEIGHT,
    }


def span_texts(trace: Trace) -> pl.DataFrame:
    """Return a row per token, the characters of its whole span on the span's first token.

    Tokens of one span overlap; each adds the characters that those before it have not reached.
    """
    tokens = trace.tokens.select(
        "source", "text", "char_start", "char_end",
        *(pl.col(name).cast(pl.Int32) for name in ("sequence", "span", "token_id", "context")),
        *(pl.col(name).fill_null(float("nan")) for name in ("layers_used", "nll", "surprisal")),
    )  # fmt: skip
    tokens = tokens.with_columns(new_characters().alias("text"))
    whole = pl.col("text").str.join("").over("span")
    return tokens.with_columns(whole).drop("char_start", "char_end")


def token_view(
    data: dict[str, Any],
    *,
    key: str,
    start: int | None,
    on_select: Callable[[], None],
) -> int | None:
    """Show the component and return the selected token.

    Parameters
    ----------
    data
        What ``payload`` returned; the same object for the same trace.
    key
        Streamlit's key of this place on the page.
    start
        Token to select at first; read once.
    on_select
        Called before the page reruns with another selection.

    Returns
    -------
    int or None
        Index of the selected token in ``trace.tokens``; None if none is selected.
    """
    result = _COMPONENT(
        key=key,
        data=data if start is None else {**data, "start": start},
        default={"selected": None if start is None else [data["key"], start]},
        on_selected_change=on_select,
    )
    return selected_of(result.selected, data["key"])


def selected_of(value: Any, key: str) -> int | None:
    """Return the selected token, unless it is one of an earlier text that stood in this place."""
    if value is None or value[0] != key:
        return None
    return int(value[1])
