"""What stands on the canvas of the text beside its trace: what is selected, what pages found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import streamlit as st

from skipviz.app.components.canvas import Selection

if TYPE_CHECKING:
    from skipviz.plots.lenses.lens import Lens

CANVASES = 4
"""Texts of a session whose lenses and selections are kept: those shown last."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Changed:
    """Which decisions a question changes.

    Attributes
    ----------
    marks
        Of shape [tokens, sites]: 1 where a decision changed as asked, 2 where it changed
        downstream, 0 elsewhere.
    cell
        The token and the site of the one decision that it flips; None where it asks for more.
    cone
        What can depend on that decision, as ``dependent_sites`` returns it.
    words
        The answer, a sentence each.
    """

    marks: npt.NDArray[np.uint8]
    cell: tuple[int, int] | None = None
    cone: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


@dataclass
class OnCanvas:
    """What stands on the canvas of one text.

    Attributes
    ----------
    selection
        What is selected.
    lenses
        Lenses that pages found, by their names, each with what it was made from.
    changed
        What the question of a page changed, with what it was made from.
    numbers
        Numbers what is asked of the browser, each higher than the one before; those of all texts
        of a session are from one count, as the browser remembers them longer than is kept here.
    fresh
        The lens that was found last by a page, and its number.
    asked
        What a page asks to be selected: its number, the token, and the site. None once the browser
        has told that it followed.
    range_clears
        How often the range was taken back elsewhere than on the canvas.
    cleared
        The range that was taken back there last; None once the browser has heard of it.
    followed
        The token and site that were clicked last in each place that asks.
    """

    selection: Selection = field(default_factory=Selection)
    lenses: dict[str, tuple[str, Lens]] = field(default_factory=dict)
    changed: tuple[str, Changed] | None = None
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    fresh: tuple[str, int] = ("", 0)
    asked: tuple[int, int, int | None] | None = None
    range_clears: int = 0
    cleared: tuple[int, int] | None = None
    followed: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def add(self, source: str, lens: Lens) -> None:
        """Add a lens before the canvas is drawn; it is not looked through until it is chosen.

        Parameters
        ----------
        source
            What it is made from; changes exactly when it does.
        lens
            The lens.
        """
        self.lenses[lens.name] = (source, lens)

    def paint(
        self,
        source: str,
        make: Callable[[], Sequence[Lens]],
        *,
        change: Callable[[], Changed] | None = None,
        offered: bool = False,
    ) -> None:
        """Add lenses, and have the page drawn anew if they were not there.

        Parameters
        ----------
        source
            What they are made from; changes exactly when they do.
        make
            Makes them, where they are not there yet. The first is looked through at once, unless
            one of its name was there before.
        change
            Makes what belongs to them of decisions that a question changes.
        offered
            Whether they are offered alone, since no one asked for them: the page was only opened.
        """
        if any(known == source for known, _ in self.lenses.values()):
            return
        if lenses := make():
            if lenses[0].name not in self.lenses and not offered:
                self.fresh = (lenses[0].name, next(self.numbers))
            self.lenses |= {lens.name: (source, lens) for lens in lenses}
            if change is not None:
                self.changed = (source, change())
            st.rerun()

    def unpaint(self, name: str) -> None:
        """Take a lens and the changes of its question away, and have the page drawn anew."""
        gone = self.lenses.pop(name, None)
        if gone is None:
            return
        if self.changed is not None and self.changed[0] == gone[0]:
            self.changed = None
        st.rerun()

    def clear_range(self) -> None:
        """Have the range taken back that was chosen on the canvas."""
        self.range_clears += 1
        self.cleared = self.selection.range
        self.selection = replace(self.selection, range=None)

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
            self.ask(token, site)
            st.rerun()

    def ask(self, token: int, site: int | None = None) -> None:
        """Have a token selected, and a site if one is given, once the page is drawn anew."""
        self.asked = (next(self.numbers), token, site)

    def forget(self, source: str) -> None:
        """Note that nothing is chosen any more in a place that asks."""
        self.followed.pop(source, None)

    def take(self, selection: Selection) -> None:
        """Take in what the browser says is selected."""
        # Whatever else was selected since: what was told before it heard is followed by this.
        if self.asked is not None and selection.followed == self.asked[0]:
            self.asked = None
        if selection.range != self.cleared:
            self.cleared = None
        elif selection.range is not None:  # it has not heard yet that this was taken back
            selection = replace(selection, range=None)
        self.selection = selection
