"""Whether English lists of words were used on a text, in a sentence of several pages."""

from __future__ import annotations

from skipviz.analysis.tokens.classes import WORDS, word_lists
from skipviz.traces import Trace

KINDS_ARE_ENGLISH = (
    "Kinds of tokens are by English lists of words, whatever the language: in other languages, and "
    "in code, nearly all words count as content words."
)
"""Of tokens that are judged by themselves."""


def word_lists_reading(trace: Trace) -> str:
    """Say which texts the English lists of words do not apply to, and what that leaves unknown.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    str
        Empty if they apply to all texts.
    """
    table = word_lists(trace)
    others = table.filter(~table["english"])
    if others.is_empty():
        return ""
    function = int(others["function_words"].sum())
    few = f"only {function / int(others['words'].sum()):z.0%}" if function else "none"
    if table.height == 1:
        where, whose = "Here ", "of this text"
    elif others.height == table.height:
        where, whose = "Here ", "of these texts"
    else:
        where, whose = f"In {others.height:,} of {table.height:,} texts, ", "there"
    return (
        f"{where}function and content words are one class, “{WORDS}”, and word frequency is "
        "unknown and not controlled for: both lists are English and were not used, as "
        f"{few} of the words {whose} are English function words. In English text about half are."
    )
