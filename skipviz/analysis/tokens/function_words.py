"""English words of closed classes: what holds a sentence together rather than what it is about.

Stop-word lists hold content words too ("system", "bill", "cry"); these are the closed classes
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

_CLASSES = {
    "determiners": """a an the this that these those each every either neither some any no all both
        half such what whatever which whichever another other own same much many more most few
        fewer less least several enough""",
    "pronouns": """i me my mine myself we us our ours ourselves you your yours yourself yourselves
        he him his himself she her hers herself it its itself they them their theirs themselves
        one oneself who whom whose whoever anybody anyone anything everybody everyone everything
        nobody none nothing somebody someone something thou thee thy thine ye""",
    "prepositions": """about above across after against along amid among around as at before behind
        below beneath beside besides between beyond by despite down during except for from in
        inside into like near of off on onto out outside over past per since than through
        throughout till to toward towards under underneath until unto up upon via with within
        without""",
    "conjunctions": "and but or nor so yet because although though while whereas if unless whether",
    "auxiliaries": """am is are was were be been being do does did done doing have has had having
        can could may might must shall should will would ought need dare cannot ai sha wo""",
    "adverbs": """not never there here then thus too very just only also even again ever how when
        where why however whenever wherever therefore hence""",
}

FUNCTION_WORDS = frozenset(word for words in _CLASSES.values() for word in words.split())
"""In lower case."""
ENGLISH_SHARE = 0.25
"""Share of function words among the words of a text from which English lists say something of it.

Of running words they are 51% in English and at most 13% in the other languages of wordfreq (13% in
Hungarian, for its "a"). Of the names and keywords in modules of Python they are 14% at the median,
and below this share in nearly all; comments are English, and with many the lists apply.
``tests/analysis/tokens/test_word_lists.py`` measures this.
"""


def is_english(words: Sequence[str]) -> bool:
    """Say whether English lists of words apply to a text: no for other languages and most code.

    Parameters
    ----------
    words
        All words of the text; of none there is nothing to tell, and the lists apply.
    """
    return sum(map(is_function_word, words)) >= ENGLISH_SHARE * len(words)


def is_function_word(word: str) -> bool:
    """Say whether an English word belongs to a closed class; "don't" and "it's" do.

    Parameters
    ----------
    word
        Letters in any case, with or without an apostrophe.
    """
    plain = word.lower().replace("\u2019", "'")
    stem, _, ending = plain.partition("'")
    return stem in FUNCTION_WORDS or (ending == "t" and stem.removesuffix("n") in FUNCTION_WORDS)
