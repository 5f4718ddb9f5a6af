"""Whether what was traced is one text that can be run again with other decisions."""

from __future__ import annotations

from skipviz.traces import Trace


def one_window(traced: Trace) -> str | None:
    """Return why what was traced is not one text that fits one window, or None."""
    if traced.tokens["sequence"].n_unique() != 1:
        return "Several texts were traced; this page takes one. Trace one of them alone."
    if traced.tokens["context"].null_count():
        return (
            "The trace does not say how many tokens each token could see, so nothing can be run "
            "again on it. Trace the text here."
        )
    if traced.tokens["context"].to_list() != list(range(1, len(traced) + 1)):
        return "The text was traced in several windows; this page takes one. Trace a part of it."
    if len(traced) < 2:
        return "The text has a single token, so there is no next token. Trace a longer text."
    return None
