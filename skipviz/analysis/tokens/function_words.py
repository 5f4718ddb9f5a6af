"""English words of closed classes: what holds a sentence together rather than what it is about.

Stop-word lists hold content words too ("system", "bill", "cry"); these are the closed classes
alone.
"""

from __future__ import annotations

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
