"""What each token is, from the text alone: its kind, its casing, its place in word and sentence."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.analysis.tokens import linguistics
from skipviz.analysis.tokens.characters import repeated_characters
from skipviz.analysis.tokens.function_words import is_english, is_function_word
from skipviz.arrays import Ints
from skipviz.errors import InputError
from skipviz.text.sentences import sentence_ends
from skipviz.traces import Trace

KINDS = ("function words", "content words", "digits", "punctuation", "symbols", "white space")
"""What a token is by its first visible character, and English lists of words."""
WORDS = "words"
"""Function and content words together, in a text to which English lists do not apply."""
CASINGS = ("lower-case words", "capitalised words", "upper-case words", "mixed-case words")
PIECES = ("whole words", "first pieces", "continuations")
PLACES = ("sentence starts", "sentence ends", "sentence middles")
FEATURE_NAMES = {
    "kind": "kind of token",
    "casing": "casing",
    "piece": "place in the word",
    "in_sentence": "place in the sentence",
    "part_of_speech": "part of speech",
    "entity": "named entity",
}
"""What the features that ``token_classes`` returns are called, in the order they are shown."""

_SPACE = re.compile(r"\s*")
_LETTERS, _FUNCTION = KINDS.index("content words"), KINDS.index("function words")
_KIND_OF = {
    "L": _LETTERS,
    "M": _LETTERS,
    "N": KINDS.index("digits"),
    "P": KINDS.index("punctuation"),
}


def token_classes(trace: Trace, *, linguistic: bool = False) -> pl.DataFrame:
    """Return the classes of each token.

    A token is what its first visible character is; its word and its sentence are those that this
    character stands in. Function words are English: a text with hardly any is of another language,
    or code, and its words are one class. The rest holds for any script that has it.

    Parameters
    ----------
    trace
        A trace of at least one token.
    linguistic
        Whether to add ``part_of_speech`` and ``entity``, for English, by spaCy.

    Returns
    -------
    pl.DataFrame
        One row per token: ``token``; ``kind``, one of ``KINDS``, but ``WORDS`` for words of a text
        of which ``word_lists`` says that it is not ``english``; ``casing`` of its word, one of
        ``CASINGS``, null in scripts without case; ``piece``, one of ``PIECES``; ``word_piece``,
        how many tokens of the word come before; all three null outside words. ``sentence``,
        counted from 0 over all texts; ``in_sentence``, one of ``PLACES``, and
        ``sentence_position``, how many tokens of the sentence come before, both null for space
        alone. ``part_of_speech`` and ``entity`` are in the words of ``linguistics``, null where
        there is none.

    Raises
    ------
    ImportError
        If ``linguistic`` is asked for and spaCy or its model is missing; says what to install.
    ValueError
        If the trace has no tokens.
    """
    if not len(trace):
        raise InputError("The trace has 0 tokens, so there is nothing to class; trace a text.")
    if linguistic:
        linguistics.tagger()  # who lacks it should not wait for the rest
    parts, sentences = [], 0
    for (_,), tokens in trace.tokens.group_by("sequence", maintain_order=True):
        text, anchor = _text_of(tokens)
        layout = _Layout.of(text)
        part = _classes(layout, anchor).with_columns(
            tokens["token"], sentence=pl.col("sentence") + sentences
        )
        if linguistic:
            starts = np.flatnonzero(np.diff(layout.sentence)) + 1
            part = part.hstack(linguistics.tagged(text, starts)[anchor])
        sentences += int(layout.sentence[-1]) + 1
        parts.append(part)
    return pl.concat(parts).sort("token").select("token", pl.exclude("token"))


def token_words(trace: Trace) -> pl.DataFrame:
    """Return the word that each token's first visible character stands in.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    pl.DataFrame
        One row per token: ``token``; ``word``, counted from 0 over all texts, and ``word_text``,
        the whole word; both null outside words. ``english``, whether English lists of words apply
        to its text, as ``word_lists`` says.
    """
    schema = {
        "token": pl.Int64, "word": pl.Int64, "word_text": pl.String, "english": pl.Boolean,
    }  # fmt: skip
    parts, words = [pl.DataFrame(schema=schema)], 0
    for (_,), tokens in trace.tokens.group_by("sequence", maintain_order=True):
        text, anchor = _text_of(tokens)
        layout = _Layout.of(text)
        number = layout.word[anchor]
        inside = pl.col("word") >= 0
        part = pl.DataFrame(
            {
                "token": tokens["token"],
                "word": number,
                "word_text": pl.Series([*layout.words, None], dtype=pl.String)[number],
            }
        ).with_columns(
            word=pl.when(inside).then(pl.col("word") + words),
            english=pl.lit(is_english(layout.words)),
        )
        parts.append(part)
        words += len(layout.words)
    return pl.concat(parts).sort("token")


def word_lists(trace: Trace) -> pl.DataFrame:
    """Return to which texts of a trace English lists of words apply.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    pl.DataFrame
        One row per text: ``sequence``; ``source``; ``words``, how many it has; ``function_words``,
        how many of them are English function words; ``english``, whether that is at least
        ``ENGLISH_SHARE`` of them, or there are none.
    """
    rows = []
    for (sequence,), tokens in trace.tokens.group_by("sequence", maintain_order=True):
        words = _Layout.of(text_of_tokens(tokens)).words
        function = sum(map(is_function_word, words))
        rows.append((sequence, tokens["source"][0], len(words), function, is_english(words)))
    return pl.DataFrame(
        rows,
        schema={
            "sequence": trace.tokens.schema["sequence"], "source": pl.String, "words": pl.Int64,
            "function_words": pl.Int64, "english": pl.Boolean,
        },
        orient="row",
    )  # fmt: skip


def kinds_of_texts(texts: pl.Series) -> pl.Series:
    """Return the kind of each text by itself, as of a token of which no neighbour is known.

    That of a piece of a word differs from what ``token_classes`` says of it where the piece or the
    word is a function word: ``the`` in ``theology`` is one here. By English lists in every
    language, since by itself a token does not tell which it is of.

    Parameters
    ----------
    texts
        Strings.

    Returns
    -------
    pl.Series
        For each, one of ``KINDS``.
    """
    pieces = [text or " " for text in texts]
    layout = _Layout.of("\n".join(pieces))
    starts = np.cumsum([0, *(len(piece) + 1 for piece in pieces)])[:-1].astype(np.int64)
    blank = np.array([len(piece) - len(piece.lstrip()) for piece in pieces], dtype=np.int64)
    within = np.where(blank < [len(piece) for piece in pieces], blank, 0)
    return _kinds(layout, starts + within)


def text_of_tokens(tokens: pl.DataFrame) -> str:
    """Return the text that the tokens of one sequence were cut from."""
    return _text_of(tokens)[0]


@dataclass(frozen=True)
class _Layout:
    """What each character of a text is.

    Attributes
    ----------
    kind
        Index into ``KINDS`` of each character; letters count as content words.
    word
        Number of its word, -1 outside words.
    words
        The words.
    sentence
        Number of its sentence, from 0.
    """

    kind: Ints
    word: Ints
    words: list[str]
    sentence: Ints

    @classmethod
    def of(cls, text: str) -> _Layout:
        # Code points: an array of characters would lose NUL.
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        distinct, which = np.unique(points, return_inverse=True)
        kind = np.array([_kind(chr(point)) for point in distinct], dtype=np.int64)[which]
        letter = kind == _LETTERS
        # An apostrophe between letters belongs to the word.
        apostrophe = np.isin(points[1:-1], [ord("'"), ord("\u2019")]) & letter[:-2] & letter[2:]
        letter[1:-1] |= apostrophe
        places = np.arange(len(text))
        starts = np.flatnonzero(np.diff(letter.astype(np.int8), prepend=0) == 1)
        ends = np.flatnonzero(np.diff(letter.astype(np.int8), append=0) == -1) + 1
        # White space behind a sentence is still its own, and a single line break may be wrapping.
        spaces = [_SPACE.match(text, end) for end in sentence_ends(text, lines=False)]
        breaks = np.array([space.end() for space in spaces if space], dtype=np.int64)
        return cls(
            kind=np.where(letter, _LETTERS, kind),
            word=np.where(letter, np.searchsorted(starts, places, side="right") - 1, -1),
            words=[text[start:end] for start, end in zip(starts, ends, strict=True)],
            sentence=np.searchsorted(breaks, places, side="right").astype(np.int64),
        )


def _kind(character: str) -> int:
    if character.isspace():
        return KINDS.index("white space")
    return _KIND_OF.get(unicodedata.category(character)[0], KINDS.index("symbols"))


def _casing(word: str) -> str | None:
    if word.lower() == word.upper():
        return None
    if word == word.lower():
        return CASINGS[0]
    if word[0].isupper() and word[1:] == word[1:].lower():
        return CASINGS[1]
    return CASINGS[2] if word == word.upper() else CASINGS[3]


def _text_of(tokens: pl.DataFrame) -> tuple[str, Ints]:
    """Return the text of one sequence, and where in it each token's first visible character is.

    Tokens of one span repeat characters; each adds those that the ones before have not reached.
    """
    size = pl.col("text").str.len_chars().cast(pl.Int64)
    parts = tokens.select(
        "text", size=size, repeated=pl.min_horizontal(repeated_characters(), size)
    )
    text = "".join(parts.select(pl.col("text").str.slice("repeated"))["text"]) or " "
    fresh = (parts["size"] - parts["repeated"]).to_numpy()
    start = np.cumsum(fresh) - fresh - parts["repeated"].to_numpy()
    visible = np.flatnonzero([not character.isspace() for character in text])
    first_visible = np.append(visible, len(text))[np.searchsorted(visible, start)]
    anchor = np.where(first_visible < start + parts["size"].to_numpy(), first_visible, start)
    return text, np.clip(anchor, 0, len(text) - 1)


def _kinds(layout: _Layout, anchor: Ints) -> pl.Series:
    """Return the kind of the character at each anchor, that of its word where it is in one."""
    # One more than there are words, for the -1 outside them.
    function = np.array([*map(is_function_word, layout.words), False])[layout.word[anchor]]
    return pl.Series(KINDS)[np.where(function, _FUNCTION, layout.kind[anchor])]


def _classes(layout: _Layout, anchor: Ints) -> pl.DataFrame:
    word = layout.word[anchor]
    casing = pl.Series([*map(_casing, layout.words), None], dtype=pl.String)[word]
    kind = _kinds(layout, anchor)
    if not is_english(layout.words):
        kind = kind.replace([KINDS[_FUNCTION], KINDS[_LETTERS]], WORDS)
    place, in_word = pl.int_range(pl.len()), pl.col("word") >= 0
    visible = pl.col("kind") != "white space"
    names = {"kind": kind, "casing": casing, "word": word, "sentence": layout.sentence[anchor]}
    return (
        pl.DataFrame(names)
        .with_columns(
            word_piece=pl.when(in_word).then(place.over("word")),
            pieces=pl.when(in_word).then(pl.len().over("word")),
            sentence_position=pl.when(visible).then(place.over("sentence", visible)),
            sentence_tokens=pl.when(visible).then(pl.len().over("sentence", visible)),
        )
        .select(
            "kind",
            "casing",
            _one_of(PIECES, pl.col("pieces") == 1, pl.col("word_piece") == 0).alias("piece"),
            "word_piece",
            "sentence",
            _one_of(
                PLACES,
                pl.col("sentence_position") == 0,
                pl.col("sentence_position") == pl.col("sentence_tokens") - 1,
            ).alias("in_sentence"),
            "sentence_position",
        )
    )


def _one_of(names: tuple[str, str, str], first: pl.Expr, second: pl.Expr) -> pl.Expr:
    """Return the first name where the first holds, else the second or third; null stays null."""
    rest = pl.when(second).then(pl.lit(names[1])).otherwise(pl.lit(names[2]))
    return pl.when(first.is_not_null()).then(pl.when(first).then(pl.lit(names[0])).otherwise(rest))
