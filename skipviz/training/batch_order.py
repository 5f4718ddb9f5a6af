"""Which windows each step of a run trains on."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from skipviz.training.recipe import Recipe


def batches(recipe: Recipe, windows: int, *, shuffled: bool) -> Int[Tensor, "s b"]:
    """Return the numbers of each step's windows.

    Parameters
    ----------
    recipe
        How many steps of how many windows, and the seed of their order.
    windows
        How many windows there are. Each is seen once before any is seen again.
    shuffled
        Whether each pass over them is in an order of its own, or all are as they were made.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    needed = recipe.steps * recipe.batch
    passes = [
        torch.randperm(windows, generator=generator) if shuffled else torch.arange(windows)
        for _ in range(-(-needed // windows))
    ]
    return torch.cat(passes)[:needed].view(recipe.steps, recipe.batch)
