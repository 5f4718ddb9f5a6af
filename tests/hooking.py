"""Hooks that are on modules."""

from __future__ import annotations

from torch import nn

from skipviz.families.freezing import _not_cut


def hooks_on(model: nn.Module) -> int:
    """How many, but for what a frozen model has on its head for good."""
    return sum(
        hook is not _not_cut
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )
