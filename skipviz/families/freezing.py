"""Freezing a model's weights without its last matrix becoming slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def freeze(model: Any) -> None:
    """Have no weight of a model learn.

    For the last token alone, cut from the states of a text, PyTorch multiplies with frozen weights
    in batches: in bfloat16 it copies the whole matrix of the vocabulary then, which takes longer
    than half of all layers. States that are not cut are multiplied at once.

    Parameters
    ----------
    model
        A model of transformers. Weights that are to learn are set so afterwards.
    """
    model.requires_grad_(False)
    head: nn.Module | None = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_not_cut)


def _not_cut(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return states in memory of their own if they are a cut of others."""
    states = given[0] if given else None
    if not isinstance(states, Tensor) or states.dim() != 3:
        return None
    if states.stride(0) == states.stride(1) * states.shape[1]:
        return None
    return states.clone(memory_format=torch.contiguous_format), *given[1:]
