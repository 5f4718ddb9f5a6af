"""Training windows: equal stretches of token ids, mixed from all sources in stated shares."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from skipviz.training.texts import sample_documents

SHARES = {
    "brown": 0.3,
    "sotu": 0.1,
    "moby_dick": 0.05,
    "documentation": 0.15,
    "code": 0.32,
    "self": 0.08,
}
MAX_DOCUMENT_CHARS = 16000
CHARS_PER_TOKEN = 3
PROMPT_CHARS = 200
SELF_BATCH = 64


def training_windows(
    model: Any, tokenizer: Any, *, count: int, length: int, seed: int
) -> Int[Tensor, "count length"]:
    """Return training windows, shuffled.

    Parameters
    ----------
    model, tokenizer
        The dense backbone, which writes a share of the text itself, and its tokenizer.
    count, length
        How many windows, and how many tokens in each.
    seed
        Seed of the choice of documents, of sampling and of the order.
    """
    sources = sample_documents(seed)
    windows: list[Tensor] = []
    done = 0
    ends = np.rint(np.cumsum(list(SHARES.values())) * count).astype(int).tolist()
    for source, end in zip(SHARES, ends, strict=True):
        wanted, done = end - done, end
        if source == "self":
            openings = sources["brown"] + sources["documentation"]
            starts = [text[:PROMPT_CHARS] for text in openings[:wanted]]
            if len(starts) < wanted:
                raise ValueError(
                    f"{len(starts)} texts are too few to open {wanted} windows with; ask for fewer "
                    "steps."
                )
            windows.append(written_by_backbone(model, tokenizer, starts, length=length, seed=seed))
        else:
            windows.append(_cut(tokenizer, sources[source], count=wanted, length=length))
    mixed = torch.cat(windows)
    order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(seed))
    return mixed[order]


@torch.inference_mode()
def written_by_backbone(
    model: Any, tokenizer: Any, starts: list[str], *, length: int, seed: int
) -> Int[Tensor, "count length"]:
    """Let the backbone answer ``starts`` in its chat format, and keep prompt and answer.

    A model that has no chat format goes on from ``starts`` as they are. What stands before a prompt
    that is shorter than others is no text, and left out.
    """
    random.Random(seed).shuffle(starts)
    torch.manual_seed(seed)
    written: list[Tensor] = []
    for first in range(0, len(starts), SELF_BATCH):
        prompts = [_prompt(tokenizer, start) for start in starts[first : first + SELF_BATCH]]
        longest = max(map(len, prompts))
        # Not by the tokenizer, which need not have a token to pad with; these are masked.
        blank = [longest - len(prompt) for prompt in prompts]
        padded = torch.tensor([[0] * b + p for b, p in zip(blank, prompts, strict=True)])
        mask = torch.arange(longest) >= torch.tensor(blank)[:, None]
        ids = model.generate(
            padded.to(model.device),
            attention_mask=mask.long().to(model.device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=length,
            min_new_tokens=length,
            pad_token_id=0,
        )
        written += [
            row[start : start + length].cpu() for row, start in zip(ids, blank, strict=True)
        ]
    return torch.stack(written)


def _prompt(tokenizer: Any, start: str) -> list[int]:
    ids: list[int]
    if tokenizer.chat_template is None:
        ids = tokenizer(start)["input_ids"]
    else:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": start}], add_generation_prompt=True, tokenize=False
        )
        # The template writes the special tokens itself.
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _cut(tokenizer: Any, documents: list[str], *, count: int, length: int) -> Tensor:
    pieces: list[str] = []
    chars = 0
    for document in documents:
        pieces.append(document[:MAX_DOCUMENT_CHARS])
        chars += len(pieces[-1])
        if chars > count * length * (CHARS_PER_TOKEN + 4):
            break
    ids = [
        token
        for encoded in tokenizer(pieces, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        for token in encoded
    ]
    if len(ids) < count * length:
        raise ValueError(
            f"{len(ids):,} tokens of text are too few for {count} windows of {length} tokens; "
            "ask for fewer steps."
        )
    return torch.tensor(ids[: count * length]).view(count, length)
