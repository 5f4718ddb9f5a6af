"""Training windows: equal stretches of token ids, mixed from all sources in stated shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from skipviz.corpora.training_texts import sample_documents
from skipviz.errors import InputError

SOURCE_SHARES = {
    "brown": 0.33,
    "sotu": 0.1,
    "moby_dick": 0.05,
    "documentation": 0.17,
    "code": 0.35,
}
MAX_DOCUMENT_CHARS = 16000
LEAST_CHARS_PER_TOKEN = 3


def training_windows(
    tokenizer: Any, *, count: int, length: int, seed: int
) -> Int[Tensor, "count length"]:
    """Return training windows, shuffled.

    Parameters
    ----------
    tokenizer
        The backbone's.
    count, length
        How many windows, and how many tokens in each.
    seed
        Seed of the choice of documents and of their order.
    """
    sources = sample_documents(seed)
    windows: list[Tensor] = []
    done = 0
    ends = np.rint(np.cumsum(list(SOURCE_SHARES.values())) * count).astype(int).tolist()
    for source, end in zip(SOURCE_SHARES, ends, strict=True):
        wanted, done = end - done, end
        windows.append(_cut(tokenizer, sources[source], count=wanted, length=length))
    mixed = torch.cat(windows)
    order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(seed))
    return mixed[order]


def _cut(tokenizer: Any, documents: list[str], *, count: int, length: int) -> Tensor:
    pieces: list[str] = []
    chars = 0
    for document in documents:
        pieces.append(document[:MAX_DOCUMENT_CHARS])
        chars += len(pieces[-1])
        if chars > count * length * (LEAST_CHARS_PER_TOKEN + 4):
            break
    ids = [
        token
        for encoded in tokenizer(pieces, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        for token in encoded
    ]
    if len(ids) < count * length:
        raise InputError(
            f"{len(ids):,} tokens of text are too few for {count} windows of {length} tokens; "
            "ask for fewer steps."
        )
    return torch.tensor(ids[: count * length]).view(count, length)
