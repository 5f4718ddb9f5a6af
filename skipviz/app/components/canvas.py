"""The canvas: text, map of layers and tokens, and panel of the selected token, as one component.

It gets a trace once. Painting with another lens, hovering, scrolling and the panel happen in the
browser, so they never run Python; only the selected token, site and range come back. The component
keeps them, the pins and the lens in the page's address itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from skipviz.app.components.component import component

_COMPONENT = component(
    "canvas",
    scripts=(
        "canvas_data", "canvas_parts", "canvas_colours", "canvas_text", "canvas_map",
        "canvas_panel", "canvas_selection", "canvas_search", "canvas_address", "canvas",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """What is selected on a canvas.

    Attributes
    ----------
    token
        Index of a token in ``trace.tokens``; None if none is selected.
    site
        Index of a site in ``trace.sites``; None if none is selected.
    range
        The first and the last token of the range that was chosen, if one was.
    followed
        The number of what a page asked to be selected that the browser followed last; 0: nothing.
    """

    token: int | None = None
    site: int | None = None
    range: tuple[int, int] | None = None
    followed: int = 0


def canvas(
    data: dict[str, Any],
    *,
    key: str,
    on_pick: Callable[[], None] | None = None,
    on_flip: Callable[[], None] | None = None,
    no_flips: str = "",
    on_address: Callable[[], None] | None = None,
) -> Selection:
    """Show the canvas and return what is selected.

    Parameters
    ----------
    data
        What ``payload`` returned.
    key
        Streamlit's key of this place on the page.
    on_pick
        Called before the page reruns with a cell that was clicked, selected already or not; it is
        in Streamlit's state under ``key``, as ``cell``: the trace's key, token and site.
    on_flip
        Called before the page reruns because someone asked what flipping a decision would do; it is
        in Streamlit's state under ``key``, as ``flip``: the trace's key, token and site.
    no_flips
        Why that cannot be asked of this trace; empty if it can.
    on_address
        Called before the page reruns because someone went back to an address of another trace; it
        is in Streamlit's state under ``key``, as ``address``.
    """
    offers: dict[str, Any] = {"picks": on_pick is not None}
    if on_flip is not None:
        offers["flips"] = no_flips or True
    result = _COMPONENT(
        key=key,
        data=data | offers,
        default={"selected": None, "range": None},
        on_selected_change=_nothing,
        on_range_change=_nothing,
        on_address_change=on_address or _nothing,
        on_cell_change=on_pick or _nothing,
        on_flip_change=on_flip or _nothing,
    )
    return selection_of(
        result.selected,
        result.range,
        data=data,
        address={name: st.query_params.get(name) for name in ("trace", "token", "site")},
    )


def selection_of(
    selected: Any, chosen: Any = None, *, data: dict[str, Any], address: dict[str, str | None]
) -> Selection:
    """Return what the component's values select in a trace: token and site, and the range.

    A value of an earlier trace that stood in this place counts for nothing. Where the component has
    not said anything yet, the page's address does, if it names this trace. Later it does not: what
    Streamlit knows of the address may be older than what the component has written there.
    """
    key, count, sites = data["key"], data["count"], data["sites"]
    named = _named(data, address) if selected is None else [None, None]
    token, site, followed = own_values(selected, key) or [*named, 0]
    first, last = own_values(chosen, key) or [None, None]
    return Selection(
        token=int(token) if token is not None and 0 <= token < count else None,
        site=int(site) if site is not None and 0 <= site < len(sites) else None,
        range=None if first is None or not 0 <= first <= last < count else (int(first), int(last)),
        followed=int(followed),
    )


def own_values(value: Any, key: str) -> list[Any] | None:
    """Return what a value says of a trace, without the trace's key; None if it is of another."""
    return None if not value or value[0] != key else list(value[1:])


def _named(data: dict[str, Any], address: dict[str, str | None]) -> list[int | None]:
    """Return the token and site that the page's address names of this trace."""
    if data["address"] is None or address["trace"] != data["address"]:
        return [None, None]
    token = address["token"] or ""
    labels = [site["label"] for site in data["sites"]]
    site = address["site"]
    return [
        int(token) if token.isdecimal() and len(token) <= len(str(data["count"])) else None,
        labels.index(site) if site in labels else None,
    ]


def _nothing() -> None:
    """Streamlit wants a callback for each value that a component returns."""
