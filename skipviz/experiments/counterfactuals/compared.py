"""Predictions after a change beside those before, a few rows of logits at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.errors import ModelError
from skipviz.families.causal_lm import logits_of
from skipviz.models import SkipModel
from skipviz.recording.statistics import (
    HEAD_ROWS,
    ROWS,
    TokenStatistics,
    concatenate,
    token_statistics,
)
from skipviz.traces import Trace


def compared(
    model: SkipModel,
    was: Float[Tensor, "n _"],
    now: Float[Tensor, "n d"],
    targets: Int[Tensor, " n"],
    *,
    apart: bool,
    known: bool,
) -> tuple[TokenStatistics, Float[Tensor, " n"]]:
    """Return the figures of new predictions, and how far each is from the one before.

    Parameters
    ----------
    model
        What makes logits of hidden states.
    was, now
        Last hidden states before and after, or logits.
    targets
        The tokens that came next; -1 where none did.
    apart
        Whether they are hidden states.
    known
        Whether those before are ``log_probabilities`` instead.

    Returns
    -------
    tuple
        Statistics after, and the KL divergence from the prediction before, in nats.

    Raises
    ------
    ModelError
        If a prediction is not finite.
    """
    figures, divergences = [], []
    for before, after, wanted in zip(
        was.split(HEAD_ROWS), now.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True
    ):
        logits = _logits(model, after, apart=apart)
        figures.append(token_statistics(logits, wanted))
        before = before if known else log_probabilities(model, before, apart=apart)
        divergences.append(kl_divergence(before, logits))
    found, divergence = concatenate(figures), torch.cat(divergences)
    if found.entropy.isnan().any() or divergence.isnan().any():
        raise ModelError(
            f"{model.name} gives NaN or infinite numbers under these decisions. Its weights may be "
            f"damaged, or {model.dtype} too short for it; try dtype='float32'."
        )
    return found, divergence


def log_probabilities(
    model: SkipModel, made: Float[Tensor, "n d"], *, apart: bool
) -> Float[Tensor, "n v"]:
    """Return the logarithms of the probabilities of all next tokens, in float32 and finite.

    Parameters
    ----------
    model, made, apart
        As ``model``, ``now`` and ``apart`` of ``compared``.
    """
    parts = [
        _finite(_logits(model, rows, apart=apart).float().log_softmax(-1))
        for rows in made.split(HEAD_ROWS)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def kl_divergence(was: Float[Tensor, "n v"], now: Float[Tensor, "n v"]) -> Float[Tensor, " n"]:
    """Return the KL divergence of predictions from those before, sum of p log(p / q), in nats.

    Parameters
    ----------
    was
        ``log_probabilities`` before (p).
    now
        Logits after (q).
    """
    # Fresh memory for each pass would cost more in page faults than the arithmetic.
    scratch = was.new_empty(2, min(ROWS, len(was)), was.shape[-1])
    parts = []
    for p, after in zip(was.split(ROWS), now.split(ROWS), strict=True):
        q, weights = scratch[:, : len(p)]
        # 0 times a forbidden word's -inf is 0.
        _finite(torch.log_softmax(after.float(), -1, out=q))
        torch.exp(p, out=weights)
        parts.append(torch.linalg.vecdot(weights, torch.sub(p, q, out=q)).clamp(min=0.0))
    return torch.cat(parts)


def _finite(logarithms: Tensor) -> Tensor:
    return logarithms.clamp_(min=torch.finfo(logarithms.dtype).min)


def _logits(model: SkipModel, rows: Tensor, *, apart: bool) -> Tensor:
    return logits_of(model.model, rows) if apart else rows


def known_statistics(trace: Trace) -> TokenStatistics:
    """Return the figures of predictions that a trace has."""
    tokens = trace.tokens
    return TokenStatistics(
        nll=torch.tensor(tokens["nll"].fill_null(float("nan")).to_numpy().copy()),
        entropy=torch.tensor(tokens["entropy"].to_numpy().copy()),
        top_ids=torch.tensor(tokens["top_ids"].to_numpy().copy()),
        top_probs=torch.tensor(tokens["top_probs"].to_numpy().copy()),
    )
