"""Maps tokens back to the exact characters they stand for.

Several tokens can share the characters of one emoji. Together they form one span, so that the
spans of a text, one after the other, are the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoding:
    """Tokens of a text.

    Attributes
    ----------
    ids
        Token ids.
    char_start, char_end
        Characters (code points) of each token, the end excluded.
    """

    ids: list[int]
    char_start: Ints
    char_end: Ints


def encode(tokenizer: Any, text: str) -> Encoding:
    """Tokenise a text; names of control tokens that a user typed stay text.

    Parameters
    ----------
    tokenizer
        A fast transformers tokenizer: a slow one does not say which characters a token stands for.
    text
        The text.

    Raises
    ------
    ValueError
        If the tokenizer is slow, or finds no token in the text.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for. Use a "
            "fast tokenizer (tokenizer.json)."
        )
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    if not encoded["input_ids"]:
        raise ValueError("The tokenizer finds no token in the text. Give a text with words in it.")
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    return Encoding(encoded["input_ids"], offsets[:, 0].copy(), offsets[:, 1].copy())


def group_spans(char_start: Ints, char_end: Ints) -> Ints:
    """Return each token's span, counted from 0: tokens that share characters share one.

    Parameters
    ----------
    char_start, char_end
        Characters of each token, in reading order.
    """
    furthest = np.maximum.accumulate(char_end)
    # A token without characters of its own belongs to the one before.
    fresh = (char_start[1:] >= furthest[:-1]) & (char_end[1:] > char_start[1:])
    return np.concatenate([[0], np.cumsum(fresh)]).astype(np.int64)


def span_bounds(char_start: Ints, char_end: Ints, *, length: int) -> Ints:
    """Return where each span begins and ends, so that all spans together are the whole text.

    Characters that the tokenizer dropped go to the span behind them, the last ones to the last.

    Parameters
    ----------
    char_start, char_end
        Characters of each token.
    length
        Length of the text.

    Returns
    -------
    ndarray
        Of shape [spans, 2], in code points, the end excluded.
    """
    span = group_spans(char_start, char_end)
    ends = np.zeros(span[-1] + 1, dtype=np.int64)
    np.maximum.at(ends, span, char_end)
    ends[-1] = length
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
