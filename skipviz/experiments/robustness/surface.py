"""The same meaning with another surface: how far paths and loss move."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Mapping, Sequence

import polars as pl

from skipviz.analysis.tokens.words import Words, word_changes
from skipviz.errors import InputError
from skipviz.experiments.robustness.perturbations import (
    PERTURBATIONS,
    Perturbation,
    Surface,
    surface,
)
from skipviz.models import SkipModel
from skipviz.progress import Progress, no_progress
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document, check_no_conversation
from skipviz.traces import Trace

SURFACE_CHARACTERS = 3000
"""Characters that are run with each surface, if nothing else is asked: about 750 tokens."""
LEAST_CHARACTERS = 400
"""Characters of a text that are taken at least, so that many texts are not all cut to a line."""
STRETCH_WORDS = 16
"""Words that are drawn together for intervals."""
SURFACE_SCHEMA = {
    "kind": pl.String,
    "source": pl.String,
    "unit": pl.String,
    "word": pl.Int64,
    "before": pl.String,
    "after": pl.String,
    "touched": pl.Boolean,
    "tokens_before": pl.Int64,
    "tokens_after": pl.Int64,
    "moved": pl.Float64,
    "apart": pl.Float64,
    "layers_before": pl.Float64,
    "layers_after": pl.Float64,
    "loss_before": pl.Float64,
    "loss_after": pl.Float64,
}
"""The columns of a frame of aligned words."""


def surface_changes(
    model: SkipModel,
    documents: Sequence[Document],
    *,
    perturbations: Mapping[str, Perturbation] = PERTURBATIONS,
    most: int = SURFACE_CHARACTERS,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Run texts as they are and with other surfaces, and compare them word by word.

    Parameters
    ----------
    model
        A model that skips.
    documents
        The texts; of long ones the beginning is taken, so that all together have at most ``most``
        characters.
    perturbations
        What to do to them, by name.
    most
        Characters.
    seed
        Seed of what is drawn.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    pl.DataFrame
        One row per perturbation and word: ``kind``, the perturbation; ``source``; ``unit``, the
        stretch of ``STRETCH_WORDS`` words it is in; ``word``, its place; ``before`` and ``after``,
        its forms; ``touched``, whether it or the white space before it was changed; and the columns
        of ``skipviz.analysis.tokens.words.word_changes``.

    Raises
    ------
    ValueError
        If the model has no gates, or there is no text.
    Stopped
        If ``stop`` was set.
    """
    check_gates(model)
    taken = beginnings(documents, most=most)
    originals = [surface(document.text) for document in taken]
    changed = {
        kind: [change(document.text, seed=seed) for document in taken]
        for kind, change in perturbations.items()
    }
    surfaces = [*originals, *(each for several in changed.values() for each in several)]
    traced = trace(model, [each.text for each in surfaces], progress=progress, stop=stop)
    words = [Words.of(traced, number, each.spans) for number, each in enumerate(surfaces)]
    parts = [
        aligned_words(
            (original, words[number]),
            (after, words[len(taken) * place + number]),
            [(i, i) for i in range(len(original.spans))],
            kind=kind,
            source=taken[number].source,
            unit=f"{number}",
        )
        for place, (kind, several) in enumerate(changed.items(), start=1)
        for number, (original, after) in enumerate(zip(originals, several, strict=True))
    ]
    return pl.concat(parts)


def paraphrase_changes(
    model: SkipModel,
    pairs: Sequence[tuple[str, str]],
    *,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run pairs of texts that mean the same, and compare the words that both have.

    Parameters
    ----------
    model
        A model that skips.
    pairs
        The same said in two ways.
    progress, stop
        As for ``surface_changes``.

    Returns
    -------
    tuple of pl.DataFrame
        The words that both texts of a pair have in the same order, case and punctuation aside, as
        ``surface_changes`` has them, each pair a unit; and one row per pair: ``before``, ``after``,
        ``words_before``, ``words_after``, ``shared``, how many words are compared, ``moved``,
        their mean or null, ``layers_before``, ``layers_after``, mean layers used of all tokens,
        ``loss_before``, ``loss_after``, nats for the whole text but its first token, null where
        the model predicts no next token.

    Raises
    ------
    ValueError
        If the model has no gates, or there are no pairs.
    Stopped
        If ``stop`` was set.
    """
    check_gates(model)
    if not pairs:
        raise InputError("There are no pairs of texts; give at least one.")
    surfaces = [surface(text) for pair in pairs for text in pair]
    traced = trace(model, [each.text for each in surfaces], progress=progress, stop=stop)
    words = [Words.of(traced, number, each.spans) for number, each in enumerate(surfaces)]
    parts, rows = [], []
    for number in range(len(pairs)):
        first, second = 2 * number, 2 * number + 1
        part = aligned_words(
            (surfaces[first], words[first]),
            (surfaces[second], words[second]),
            shared_words(surfaces[first].words, surfaces[second].words),
            kind="paraphrase",
            source=f"pair {number + 1}",
            unit=None,
        )
        parts.append(part)
        rows.append(
            {
                "before": pairs[number][0],
                "after": pairs[number][1],
                "words_before": len(surfaces[first].spans),
                "words_after": len(surfaces[second].spans),
                "shared": part.height,
                "moved": part["moved"].mean(),
                **_whole(traced, first, "before"),
                **_whole(traced, second, "after"),
            }
        )
    losses = {"loss_before": pl.Float64, "loss_after": pl.Float64}
    return pl.concat(parts), pl.DataFrame(rows, schema_overrides=losses, infer_schema_length=None)


def beginnings(documents: Sequence[Document], *, most: int = SURFACE_CHARACTERS) -> list[Document]:
    """Return as much of each text as fits ``most`` characters, cut between words if it can be.

    Texts share the characters alike; what one leaves goes to those after it. Each gives at least
    ``LEAST_CHARACTERS`` characters, so of very many texts only the first are taken.

    Raises
    ------
    InputError
        If there are no words in them, or one is a conversation.
    """
    check_no_conversation(documents)
    taken: list[Document] = []
    left = most
    for number, document in enumerate(documents):
        if taken and left < LEAST_CHARACTERS:
            break
        size = min(left, max(LEAST_CHARACTERS, left // (len(documents) - number)))
        text = _cut(document.text, size)
        if text.strip():
            taken.append(Document(source=document.source, text=text))
            left -= len(text)
    if not taken:
        raise InputError("There is no text with words in it; give at least one.")
    return taken


def shared_words(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """Return places of words that two texts have in the same order, case and punctuation aside."""

    def bare(words: Sequence[str]) -> list[str]:
        # Marks alone stay as they are: they would all be the same word otherwise.
        kept = ["".join(filter(str.isalnum, word)).casefold() for word in words]
        return [form or word for form, word in zip(kept, words, strict=True)]

    matcher = difflib.SequenceMatcher(None, bare(before), bare(after), autojunk=False)
    return [
        (block.a + place, block.b + place)
        for block in matcher.get_matching_blocks()
        for place in range(block.size)
    ]


def aligned_words(
    before: tuple[Surface, Words],
    after: tuple[Surface, Words],
    pairs: Sequence[tuple[int, int]],
    *,
    kind: str,
    source: str,
    unit: str | None,
) -> pl.DataFrame:
    """Return the rows of aligned words of two texts, with the columns of ``SURFACE_SCHEMA``.

    Parameters
    ----------
    before, after
        The texts and their words as the model ran them.
    pairs
        Which word of the first belongs to which of the second.
    kind, source
        What was done, and to what.
    unit
        Begins the name of each stretch of words; if None, all words are of one, named after the
        source.
    """
    old, new = before[0], after[0]
    rows = word_changes(before[1], after[1], pairs)
    old_words, new_words = old.words, new.words
    forms = [(old_words[i], new_words[j]) for i, j in pairs]
    gaps = [(old.gaps[i], new.gaps[j]) for i, j in pairs]
    touched = [a != b or c != d for (a, b), (c, d) in zip(forms, gaps, strict=True)]
    return rows.with_columns(
        kind=pl.lit(kind),
        source=pl.lit(source),
        unit=pl.lit(source)
        if unit is None
        else pl.format(f"{unit}:{{}}", pl.col("word") // STRETCH_WORDS),
        before=pl.Series([form for form, _ in forms], dtype=pl.String),
        after=pl.Series([form for _, form in forms], dtype=pl.String),
        touched=pl.Series(touched, dtype=pl.Boolean),
    ).select([pl.col(name).cast(dtype) for name, dtype in SURFACE_SCHEMA.items()])


def check_gates(model: SkipModel) -> None:
    """Raise ``ValueError`` if a model has no decisions that could move."""
    if not model.family.sites(model.model):
        raise InputError(
            f"{model.name} has no gates, so there are no paths that could move. Take a model that "
            "skips."
        )


def _cut(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    kept = text[: size + 1]
    # Half of it is worth a whole word; writing without spaces is cut where it must be.
    place = max((i for i, letter in enumerate(kept) if letter.isspace()), default=-1)
    return kept[:place] if place > size // 2 else text[:size]


def _whole(traced: Trace, sequence: int, when: str) -> dict[str, float | None]:
    tokens = traced.tokens.filter(sequence=sequence)
    lossless = traced.run["loss"].item() == "none"
    return {
        f"layers_{when}": float(tokens["layers_used"].to_numpy().mean()),
        f"loss_{when}": None if lossless else float(tokens["surprisal"].sum()),
    }
