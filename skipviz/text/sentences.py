"""Where sentences end."""

from __future__ import annotations

import re

_STOP = r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*"  # noqa: RUF001
_AT_LINES = re.compile(rf"{_STOP}|\S(?=\s*\n)")
_AT_EMPTY_LINES = re.compile(rf"{_STOP}|\S(?=\s*\n\s*\n)")


def sentence_ends(text: str, *, lines: bool) -> list[int]:
    """Return the characters behind which a sentence ends, marks and closing quotes included.

    The end of the text is not one of them.

    Parameters
    ----------
    text
        Any text.
    lines
        Whether a sentence ends with its line, as headings and items of a list do; otherwise it
        goes on until a stop or an empty line.
    """
    return [found.end() for found in (_AT_LINES if lines else _AT_EMPTY_LINES).finditer(text)]
