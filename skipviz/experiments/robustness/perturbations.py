"""The same text with another surface, word for word.

A word is what stands between white space; each change keeps their number and order, so that word
for word can be compared. In writing without spaces a word is whatever the text has between two.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

SHARE = 0.2
"""Share of words, of those that can be, that typos and look-alikes change."""
LETTERS = 4
"""Letters of a word from which it gets a typo: its first and last stay as they are."""
LOOK_ALIKES = dict(zip("aceijopsxyABCEHIJKMOPSTXYZ", "асеіјорѕхуАВСЕНІЈКМОРЅТХΥΖ", strict=True))  # noqa: RUF001
"""Latin letters and what looks like them in Cyrillic or Greek (Unicode Technical Standard 39)."""

_PARTS = re.compile(r"(\s*)(\S+)")


@dataclass(frozen=True)
class Surface:
    """A text and where its words are.

    Attributes
    ----------
    text
        The text.
    spans
        First character of each word and the one after its last, in order.
    gaps
        The white space before each word.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    gaps: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The words, in order."""
        return [self.text[start:end] for start, end in self.spans]


@runtime_checkable
class Perturbation(Protocol):
    """From a text and a seed to the text with another surface."""

    def __call__(self, text: str, *, seed: int = 0) -> Surface:
        """Return the text with another surface."""


def surface(text: str) -> Surface:
    """Return a text as it is, with its words."""
    return _rebuilt(text, lambda gap: gap, lambda word: word)


def upper_case(text: str, *, seed: int = 0) -> Surface:
    """Return the text in capitals."""
    return _rebuilt(text, lambda gap: gap, str.upper)


def lower_case(text: str, *, seed: int = 0) -> Surface:
    """Return the text without capitals."""
    return _rebuilt(text, lambda gap: gap, str.lower)


def spacing(text: str, *, seed: int = 0) -> Surface:
    """Return the text with every space between words doubled."""
    return _rebuilt(text, lambda gap: gap.replace(" ", "  "), lambda word: word)


def typos(text: str, *, seed: int = 0) -> Surface:
    """Return the text with a slip in one of five words: letters swapped, dropped or doubled."""
    generator = random.Random(seed)
    return _some(text, generator, lambda word: _slip(word, generator))


def look_alikes(text: str, *, seed: int = 0) -> Surface:
    """Return the text with letters of other scripts that look the same in one of five words."""
    table = str.maketrans(LOOK_ALIKES)
    return _some(text, random.Random(seed), lambda word: word.translate(table))


PERTURBATIONS: dict[str, Perturbation] = {
    "upper case": upper_case,
    "lower case": lower_case,
    "typos": typos,
    "spacing": spacing,
    "look-alikes": look_alikes,
}


def _rebuilt(text: str, gap: Callable[[str], str], word: Callable[[str], str]) -> Surface:
    """Put a text together from changed white space and changed words."""
    parts: list[str] = []
    spans, gaps = [], []
    length = end = 0
    for found in _PARTS.finditer(text):
        before, form = gap(found[1]), word(found[2])
        parts += [before, form]
        spans.append((length + len(before), length + len(before) + len(form)))
        gaps.append(before)
        length, end = spans[-1][1], found.end()
    return Surface("".join([*parts, text[end:]]), tuple(spans), tuple(gaps))


def _some(text: str, generator: random.Random, change: Callable[[str], str]) -> Surface:
    """Change a share of the words that can be changed, at least one."""
    words = surface(text).words
    changed = [change(word) for word in words]
    able = [place for place, word in enumerate(words) if changed[place] != word]
    count = min(len(able), max(1, round(SHARE * len(able))))
    chosen = set(generator.sample(able, count))
    forms = iter([changed[i] if i in chosen else word for i, word in enumerate(words)])
    return _rebuilt(text, lambda gap: gap, lambda word: next(forms))


def _slip(word: str, generator: random.Random) -> str:
    inside = [i for i in range(1, len(word) - 2) if word[i : i + 2].isalpha()]
    if sum(letter.isalpha() for letter in word) < LETTERS or not inside:
        return word
    place = generator.choice(inside)
    first, second = word[place], word[place + 1]
    kinds = [first + first + second, first]
    if first != second:
        kinds.append(second + first)
    return word[:place] + generator.choice(kinds) + word[place + 2 :]
