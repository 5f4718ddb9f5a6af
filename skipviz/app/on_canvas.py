"""What stands on the canvas of the text beside its trace: what is selected, what pages found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import streamlit as st

from skipviz.app.components.canvas import Selection

if TYPE_CHECKING:
    from skipviz.plots.lenses.lens import Lens

CANVASES = 4
"""Texts of a session whose lenses and selections are kept: those shown last."""


@dataclass
class OnCanvas:
    """What stands on the canvas of one text.

    Attributes
    ----------
    selection
        What is selected.
    lenses
        Lenses that pages found, by their names, each with what it was made from.
    marks
        Decisions that a question changed, of shape [tokens, sites], with what they were made from.
    asked
        What a page asks to be selected: where that was clicked, the token, and the site. None once
        the browser has told of a selection since.
    followed
        The token and site that were clicked last in each place that asks.
    """

    selection: Selection = field(default_factory=Selection)
    lenses: dict[str, tuple[str, Lens]] = field(default_factory=dict)
    marks: tuple[str, npt.NDArray[np.uint8]] | None = None
    asked: tuple[str, int, int | None] | None = None
    followed: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    @property
    def made_from(self) -> str:
        """What changes exactly when lenses or marks do."""
        sources = [f"{name} {source}" for name, (source, _) in self.lenses.items()]
        return "; ".join([*sources, "" if self.marks is None else self.marks[0]])

    def paint(
        self,
        source: str,
        make: Callable[[], Sequence[Lens]],
        *,
        mark: Callable[[], npt.NDArray[np.uint8]] | None = None,
    ) -> None:
        """Add lenses, and have the page drawn anew if they were not there.

        Parameters
        ----------
        source
            What they are made from; changes exactly when they do.
        make
            Makes them, where they are not there yet.
        mark
            Makes the marks of decisions that belong to them.
        """
        if any(known == source for known, _ in self.lenses.values()):
            return
        if lenses := make():
            self.lenses |= {lens.name: (source, lens) for lens in lenses}
            if mark is not None:
                self.marks = (source, mark())
            st.rerun()

    def unpaint(self, name: str) -> None:
        """Take a lens and its marks away, and have the page drawn anew if it was there."""
        gone = self.lenses.pop(name, None)
        if gone is None:
            return
        if self.marks is not None and self.marks[0] == gone[0]:
            self.marks = None
        st.rerun()

    def select(self, source: str, token: int, site: int | None = None) -> None:
        """Have a token selected, and a site if one is given, and the page drawn anew.

        Parameters
        ----------
        source
            Where it was clicked; what is still chosen there was followed already, whatever has been
            clicked elsewhere since.
        token, site
            Their indices in the trace.
        """
        if self.followed.get(source) == (token, site):
            return
        self.followed[source] = (token, site)
        if self.selection.token != token or site not in (None, self.selection.site):
            self.asked = (f"{source} {token} {site}", token, site)
            st.rerun()

    def forget(self, source: str) -> None:
        """Note that nothing is chosen any more in a place that asks."""
        self.followed.pop(source, None)

    def take(self, selection: Selection) -> None:
        """Take in what the browser says is selected."""
        places = [(each.token, each.site) for each in (selection, self.selection)]
        # Nothing is also what it says before it has this text.
        if places[0] != places[1] and selection.token is not None:
            self.asked = None  # it was followed, or something else was clicked after it
        self.selection = selection
