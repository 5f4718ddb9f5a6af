"""Text among Markdown: what a user wrote, or the name of a file of theirs, is shown as it is."""

from __future__ import annotations

import re

_MARKS = re.compile(r"([\\`*_{}\[\]<>#$~|:])")


def plain(text: str) -> str:
    """Return a text so that Markdown shows it as it is: no link, no picture, no formula."""
    return _MARKS.sub(r"\\\1", text)
