"""Attribution over depth: which units drive a loss, beside exact flips of the decisions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import streamlit as st

from skipviz.analysis.gates.agreement import agreement, beside_flips, worth_of_cells
from skipviz.app.components.chart_clicks import clicked_point, select_cell, select_clicked
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.costs import Effort
from skipviz.app.jobs import SEED, Request
from skipviz.app.one_text import named_cells
from skipviz.experiments.attribution.over_depth import attribute_depth, flips_beside
from skipviz.experiments.attribution.target import Attribution, Target
from skipviz.models import SkipModel
from skipviz.plots.attribution import depth_bars, depth_map, share_scatter
from skipviz.progress import Progress
from skipviz.readings.attribution import depth_reading, flips_reading, paths_reading
from skipviz.traces import Trace

MOST_ROWS = 30
SCOPES = ("This token", "The whole text")


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of the whole text's loss, and the steps that they were computed with."""

    cells: pl.DataFrame
    steps: int


@dataclass(frozen=True, eq=False)
class _Depth:
    """Shares over depth and the exact flips beside them."""

    cells: pl.DataFrame
    compared: pl.DataFrame
    attributed: Attribution


def _depth_run(
    traced: Trace, token: int | None, steps: int
) -> Callable[[SkipModel, Progress, threading.Event], _Depth]:
    target = None if token is None else Target(token=token, kind="loss")

    def run(model: SkipModel, progress: Progress, stop: threading.Event) -> _Depth:
        found = attribute_depth(
            model, traced, target, steps=steps, stop=stop,
            progress=lambda share: progress(0.8 * share),
        )  # fmt: skip
        flips = flips_beside(
            model, traced, token, seed=SEED, stop=stop,
            progress=lambda share: progress(0.8 + 0.2 * share),
        )  # fmt: skip
        cells = worth_of_cells(traced, found.table)
        return _Depth(cells, beside_flips(cells, flips), found)

    return run


def show_depth(request: Request, traced: Trace, token: int) -> Shares | None:
    """Show shares over depth; return them if they are of the whole text."""
    st.markdown(
        "Here the input is which units run. Integrated gradients follow two paths: from all gated "
        "units skipped to the units that ran, and from there to all units run. The first gives "
        "shares to what ran, the second to what was skipped. Exact flips of the same decisions are "
        "shown for comparison."
    )
    left, right = st.columns([3, 1])
    whole = SCOPES[1] == left.segmented_control(
        "Loss of", SCOPES, default=SCOPES[1], required=True, key="depth_scope",
        help="The loss on the next token at the token chosen above, or the sum over all tokens.",
    )  # fmt: skip
    steps = int(
        right.number_input(
            "Steps",
            1,
            512,
            32,
            key="depth_steps",
            help="Points on each of the two paths at first. Where the shares do not add up to "
            "within 5%, more are taken, at most sixteen times as many.",
        )
    )
    if not whole and token == len(traced) - 1:
        st.info("The last token has no next token in the text. Choose another token.")
        return None
    seen = len(traced) - 1 if whole else token + 1
    effort = Effort(f"depth {'text' if whole else 'token'} {request.model}", steps * seen)
    st.caption(
        f"{len(traced):,} tokens, {steps} steps. Where the path bends it takes several times as "
        "long. You can stop at any time."
    )
    found = _depth(request, traced, None if whole else token, steps, effort)
    if found is None:
        return None
    what = "the whole text" if whole else f"token {token}"
    agreed = None if found.compared.is_empty() else agreement(found.compared)
    st.markdown(depth_reading(found.cells, agreed, what=what))
    st.markdown(paths_reading(found.attributed))
    if found.cells["share"].null_count() == found.cells.height:
        return None
    st.plotly_chart(depth_map(traced, found.cells, what=what), key="depth_map")
    # A click on another token would have its loss asked for: what is shown would go.
    if whole:
        select_cell(request, traced, "depth_map")
    left, right = st.columns(2)
    left.plotly_chart(depth_bars(traced, found.cells), key="depth_bars")
    if agreed is not None:
        right.plotly_chart(share_scatter(traced, found.compared), key="share_scatter")
        if whole and (point := clicked_point("share_scatter")):
            token, _, label = point["data"]
            site = traced.sites["label"].to_list().index(label)
            select_clicked(request, "share_scatter", int(token), site)
    if whole:
        st.caption("Click a cell or a point to select its token and site on the canvas.")
    st.caption(flips_reading(found.compared.height, whole=whole))
    st.markdown("**Decisions for which shares and flips differ most**")
    st.dataframe(
        named_cells(
            traced,
            found.compared.sort(pl.col("difference").abs(), descending=True).head(MOST_ROWS),
            pl.col("share").round(4).alias("share, nats"),
            pl.col("utility").round(4).alias("exact flip, nats"),
            pl.col("difference").round(4).alias("difference, nats"),
        ),
        hide_index=True,
        width="stretch",
        height=280,
    )
    csv_buttons(
        {
            "Shares over depth": ("attribution-depth", found.cells),
            "Shares and exact flips": ("attribution-flips", found.compared),
        }
    )
    _offer_cells(request, traced, None if whole else token, steps, what, scatter=agreed is not None)
    complete = not found.cells["share"].null_count()
    return Shares(found.cells, steps) if whole and complete else None


def depth_lines(token: int | None, steps: int) -> list[str]:
    """Return how a notebook cell attributes over depth.

    Parameters
    ----------
    token
        The token whose loss it is; None: that of the whole text.
    steps
        As chosen.
    """
    target = "" if token is None else f', skipviz.Target(token={token}, kind="loss")'
    return [
        FROM_TRACE,
        f"found = skipviz.attribute_depth(model, trace{target}, steps={steps})",
        "cells = worth_of_cells(trace, found.table)",
    ]


def _offer_cells(
    request: Request, traced: Trace, token: int | None, steps: int, what: str, *, scatter: bool
) -> None:
    figures = [
        f"skipviz.plots.depth_map(trace, cells, what={what!r})",
        "skipviz.plots.depth_bars(trace, cells)",
    ]
    if scatter:
        figures.append(
            f"flips = flips_beside(model, trace, {token}, seed={SEED})\n"
            "skipviz.plots.share_scatter(trace, beside_flips(cells, flips))"
        )
    notebook_cells(
        *figures,
        imports=[
            "from skipviz.analysis.gates.agreement import beside_flips, worth_of_cells",
            "from skipviz.experiments.attribution.over_depth import flips_beside",
        ],
        first=depth_lines(token, steps),
        model=model_line(request, traced),
    )


def _depth(
    request: Request, traced: Trace, token: int | None, steps: int, effort: Effort
) -> _Depth | None:
    settings = f"{token} {steps}"
    return tried(
        "depth",
        "Attribute over depth",
        request,
        lambda: jobs().experiment(
            request,
            f"attribution over depth {settings}",
            _depth_run(traced, token, steps),
        ),
        settings=settings,
        effort=effort,
    )
