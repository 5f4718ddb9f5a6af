"""Cuts the documents of an input into parts, always the same for the same documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from skipviz.corpus.format import part_name
from skipviz.corpus.inputs import Entry

LEAST_COUNTED = 100
"""Characters that a document counts at least, so that a part of tiny or bad ones ends too."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive documents whose results share a file.

    Attributes
    ----------
    number
        Its place among the parts, from 0.
    name
        Of its files, fixed by what its documents hold.
    first
        Place of its first document in the input.
    entries
        Its documents.
    before, share
        How much of the input has been read at its beginning and at its end, 0 to 1; None where
        that is not known.
    """

    number: int
    name: str
    first: int
    entries: tuple[Entry, ...]
    before: float | None
    share: float | None


def cut_into_parts(
    entries: Iterable[tuple[Entry, float | None]], *, part_characters: int
) -> Iterator[Part]:
    """Yield the parts of an input.

    Parameters
    ----------
    entries
        Documents, each with how much of the input has been read with it.
    part_characters
        A part ends with the document that brings it to so many characters.
    """
    held: list[Entry] = []
    number, first, characters = 0, 0, 0
    before: float | None = 0.0
    share: float | None = None
    for entry, share in entries:
        held.append(entry)
        own = 0 if entry.document is None else entry.document.characters
        characters += max(own, LEAST_COUNTED)
        if characters >= part_characters:
            yield _part(number, first, held, before, share)
            number, first = number + 1, first + len(held)
            held, characters, before = [], 0, share
    if held:
        yield _part(number, first, held, before, share)


def _part(
    number: int, first: int, entries: list[Entry], before: float | None, share: float | None
) -> Part:
    return Part(
        number=number,
        name=part_name(number, (entry.content for entry in entries)),
        first=first,
        entries=tuple(entries),
        before=before,
        share=share,
    )
