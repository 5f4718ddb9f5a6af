"""Text to token ids, and tokens back to the exact characters they stand for.

A byte-level tokenizer may give one emoji several tokens, none of which is a character of its own.
Such tokens form one *span*: the spans of a text, one after the other, are the text.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from skipviz.arrays import Ints
from skipviz.errors import InputError

TOKENIZING = threading.Lock()
"""One thread calls a tokenizer at a time: calls of transformers 5.0 set its options, which fails
while another thread uses it."""


@dataclass(frozen=True)
class Encoding:
    """Tokens of a text.

    Attributes
    ----------
    ids
        Token ids.
    char_start, char_end
        Characters (code points) that each token touches, the end excluded. Several tokens may
        touch the same one.
    """

    ids: list[int]
    char_start: Ints
    char_end: Ints


def encode(tokenizer: Any, text: str, *, around: bool = False) -> Encoding:
    """Tokenise a text as nothing but text: no name of a special token in it is obeyed.

    Parameters
    ----------
    tokenizer
        A fast transformers tokenizer: a slow one does not say which characters a token stands for.
    text
        The text. ``<|im_start|>`` in it is spelt out in ordinary tokens.
    around
        Whether the tokenizer puts its own tokens around the text, as encoders want it; they have no
        characters.

    Returns
    -------
    Encoding
        Token ids and the characters they touch.

    Raises
    ------
    ValueError
        If the tokenizer is slow, or finds no token in the text.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for. Use a "
            "fast tokenizer: a model folder with a tokenizer.json gives one."
        )
    with TOKENIZING:
        encoded = tokenizer(
            text,
            add_special_tokens=around,
            split_special_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            # It would warn of texts beyond the context, which are run in windows.
            verbose=False,
        )
    if not encoded["input_ids"]:
        raise InputError("The tokenizer finds no token in the text. Give a text with words in it.")
    start, end = np.array(encoded["offset_mapping"], dtype=np.int64).T.copy()
    # What stands behind the text has the offsets of what stands before it: 0 and 0.
    behind = (end == 0) & (np.arange(len(end)) > int(end.argmax()))
    start[behind] = end[behind] = end.max()
    return Encoding(encoded["input_ids"], start, end)


def group_spans(char_start: Ints, char_end: Ints) -> Ints:
    """Return each token's span, counted from 0: tokens that touch a common character share one.

    Parameters
    ----------
    char_start, char_end
        Characters of each token, in reading order.

    Returns
    -------
    ndarray
        One number per token, without gaps and never decreasing. A token without characters of its
        own goes with the next one that has some, or else with the last.
    """
    touching = np.flatnonzero(char_end > char_start)
    if not touching.size:
        return np.zeros(len(char_start), dtype=np.int64)
    spans = _number(char_start[touching], char_end[touching])
    next_touching = np.searchsorted(touching, np.arange(len(char_start)))
    return spans[np.minimum(next_touching, touching.size - 1)]


def span_bounds(char_start: Ints, char_end: Ints, *, length: int) -> Ints:
    """Return where each span begins and ends, so that all spans together are the whole text.

    Characters that the tokenizer dropped go to the span behind them, the last ones to the last.
    A text in which there is no token is one span.

    Parameters
    ----------
    char_start, char_end
        Characters of each token, in reading order.
    length
        Length of the text in characters (code points).

    Returns
    -------
    ndarray
        Of shape [spans, 2], in code points, the end excluded; each begins where the last ended.

    Raises
    ------
    ValueError
        If a token ends beyond the text.
    """
    if not len(char_end):
        return np.array([[0, length]], dtype=np.int64)[: min(length, 1)]
    if (furthest := int(char_end.max())) > length:
        raise InputError(
            f"A token ends at character {furthest} of a text with {length}. Give the length of the "
            "text that was tokenised, in code points."
        )
    firsts = np.flatnonzero(np.diff(group_spans(char_start, char_end), prepend=-1))
    ends = np.maximum.reduceat(char_end, firsts)
    ends[-1] = length
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)


def _number(start: Ints, end: Ints) -> Ints:
    """Open a span at each token that begins where all before it have ended."""
    reach = np.maximum.accumulate(end)
    opens = start[1:] >= reach[:-1]
    return np.concatenate([[0], np.cumsum(opens)]).astype(np.int64)
