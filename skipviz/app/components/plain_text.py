"""Text among Markdown: what a user wrote, or the name of a file of theirs, is shown as it is."""

from __future__ import annotations

import re

_MARKS = re.compile(r"([\\`*_{}\[\]<>#$~|:&@])")
_JOINER = "\u2060"
_JOINTS = re.compile(
    r"(?<=@)"  # a@b.org
    r"|(?<=:)(?=//|material/|[\w+-]+:)"  # http://, :material/home:, :streamlit:, :smile:
    r"|(?<=www)(?=\.)"
    r"|(?<=(?<!\S)[-<>~])(?=(?:->?|[>=])(?!\S))"  # -- and ->, made a dash and an arrow
    r"|^(?=[ \t]*(?:\+|-+|=+|\d+[.)])(?:\s|$)| {4}|\t)",  # lists, underlined headings, code
    re.IGNORECASE | re.MULTILINE,
)


def plain(text: str) -> str:
    """Return a text so that Markdown shows it as it is: no link, no picture, no formula."""
    # GitHub's links, Streamlit's icons and its arrows are found after backslashes are gone; an
    # invisible character that parts no words breaks them up.
    return _MARKS.sub(r"\\\1", _JOINTS.sub(_JOINER, text))
