"""Loss, entropy and most likely next tokens from logits, in one pass while they are in cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from skipviz.families.causal_lm import logits_of
from skipviz.schema import TOP_K

ROWS = 16
"""Rows a pass: few enough that the logits of a pass stay in the processor's cache."""
HEAD_ROWS = 256
"""Rows of logits at once: 256 x 49,152 float32 are 50 MB."""
BLOCK = 256
"""Vocabulary entries a block of the search for the largest logits."""


@dataclass(frozen=True)
class TokenStatistics:
    """Figures of the model's prediction after each token.

    Attributes
    ----------
    nll
        Loss on the next token in nats; NaN where there is none.
    entropy
        Entropy of the prediction in nats.
    top_ids, top_probs
        The most likely next tokens, in that order, and their probabilities.
    """

    nll: Float[Tensor, " n"]
    entropy: Float[Tensor, " n"]
    top_ids: Int[Tensor, "n k"]
    top_probs: Float[Tensor, "n k"]

    def to(self, device: torch.device) -> TokenStatistics:
        """Return the same on another device."""
        return TokenStatistics(
            nll=self.nll.to(device),
            entropy=self.entropy.to(device),
            top_ids=self.top_ids.to(device),
            top_probs=self.top_probs.to(device),
        )

    def rows(self, which: slice | Tensor) -> TokenStatistics:
        """Return the statistics of some of the tokens."""
        return TokenStatistics(
            nll=self.nll[which],
            entropy=self.entropy[which],
            top_ids=self.top_ids[which],
            top_probs=self.top_probs[which],
        )


def token_statistics(logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"]) -> TokenStatistics:
    """Reduce logits to what a trace keeps of them.

    Parameters
    ----------
    logits
        Logits after each token.
    targets
        The token that came next; negative where none did.
    """
    # Fresh memory for each pass would cost more in page faults than the arithmetic.
    scratch = torch.empty(2, min(ROWS, len(logits)), logits.shape[-1], device=logits.device)
    parts = [
        _reduce(rows, wanted, scratch[:, : len(rows)])
        for rows, wanted in zip(logits.split(ROWS), targets.split(ROWS), strict=True)
    ]
    return concatenate(parts)


def next_token_losses(
    model: Any, states: Float[Tensor, "n d"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the loss of each last hidden state on its target, in nats, a few rows at a time.

    Parameters
    ----------
    model
        A causal LM.
    states
        Hidden states after the last norm.
    targets
        The tokens that came next.
    """
    parts = [
        F.cross_entropy(logits_of(model, some).float(), wanted, reduction="none")
        for some, wanted in zip(states.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
    ]
    return torch.cat(parts)


def concatenate(parts: list[TokenStatistics]) -> TokenStatistics:
    """Join statistics of consecutive tokens."""
    return TokenStatistics(
        nll=torch.cat([part.nll for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
        top_ids=torch.cat([part.top_ids for part in parts]),
        top_probs=torch.cat([part.top_probs for part in parts]),
    )


def _reduce(
    logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"], scratch: Float[Tensor, "2 n v"]
) -> TokenStatistics:
    top_logits, top_ids = largest(logits, min(TOP_K, logits.shape[-1]))
    top_logits = top_logits.float()
    shifted = torch.sub(logits, top_logits[:, :1], out=scratch[0])
    weights = torch.exp(shifted, out=scratch[1])
    shifted.clamp_(min=torch.finfo(shifted.dtype).min)  # 0 times a forbidden word's -inf is 0
    total = weights.sum(-1)
    mean_shifted = torch.linalg.vecdot(weights, shifted) / total
    log_total = total.log()
    chosen = shifted.gather(1, targets.clamp(min=0)[:, None]).squeeze(1)
    nll = torch.where(targets >= 0, log_total - chosen, torch.nan)
    missing = TOP_K - top_ids.shape[1]
    top_probs = (top_logits - top_logits[:, :1] - log_total[:, None]).exp()
    return TokenStatistics(
        nll=nll,
        entropy=log_total - mean_shifted,
        top_ids=torch.nn.functional.pad(top_ids, (0, missing), value=-1),
        top_probs=torch.nn.functional.pad(top_probs, (0, missing)),
    )


def largest(
    values: Float[Tensor, "n v"], count: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return the ``count`` largest values of each row and where they are, largest first.

    The largest ``count`` values lie in the ``count`` blocks with the largest maxima, so one pass
    of maxima over the row replaces a search through all of it.
    """
    rows, width = values.shape
    blocks = width // BLOCK
    if blocks <= count:
        found = values.topk(count, dim=1)
        return found.values, found.indices
    body = values[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    best = body.amax(-1).topk(count, dim=1).indices
    columns = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=values.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, width, device=values.device).expand(rows, -1)
    columns = torch.cat([columns, rest], dim=1)
    found = values.gather(1, columns).topk(count, dim=1)
    return found.values, columns.gather(1, found.indices)
