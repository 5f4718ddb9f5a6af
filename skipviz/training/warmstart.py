"""Adapters to start from: the best affine map of the given rank from a unit's input to its output.

Reduced-rank regression has a closed form, so one dense pass over some text spares the gradient
steps that an adapter would spend on finding its unit's linear part (Izenman, "Reduced-rank
regression for the multivariate linear model", 1975).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipviz.families.gated.modules import LowRankAdapter, gated_units
from skipviz.families.hooks import Hook, after, hooked
from skipviz.families.llama import states_given, states_made

RIDGE = 1e-3


class Moments:
    """Sums over tokens of what regression needs: inputs, outputs and their products.

    Parameters
    ----------
    width
        Width of the hidden state.
    device
        Where the sums are kept.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.count = 0
        self.inputs = torch.zeros(width, device=device)
        self.outputs = torch.zeros(width, device=device)
        self.inputs_inputs = torch.zeros(width, width, device=device)
        self.inputs_outputs = torch.zeros(width, width, device=device)

    def add(self, inputs: Float[Tensor, "n d"], outputs: Float[Tensor, "n d"]) -> None:
        """Add a batch of tokens."""
        self.count += len(inputs)
        self.inputs += inputs.sum(0)
        self.outputs += outputs.sum(0)
        self.inputs_inputs += inputs.T @ inputs
        self.inputs_outputs += inputs.T @ outputs

    def solve(
        self, rank: int
    ) -> tuple[Float[Tensor, "r d"], Float[Tensor, "d r"], Float[Tensor, " d"]]:
        """Return (down, up, bias) of the affine map of that rank with the least squared error."""
        mean_in = (self.inputs / self.count).double()
        mean_out = (self.outputs / self.count).double()
        xx = self.inputs_inputs.double() / self.count - torch.outer(mean_in, mean_in)
        xy = self.inputs_outputs.double() / self.count - torch.outer(mean_in, mean_out)
        xx.diagonal().add_(RIDGE * xx.diagonal().mean())
        full = torch.linalg.solve(xx, xy)
        # Principal directions of the fitted outputs.
        _, vectors = torch.linalg.eigh(full.T @ xx @ full)
        basis = vectors[:, -rank:]
        down = (full @ basis).T
        bias = mean_out - mean_in @ full @ basis @ basis.T
        return down.float(), basis.float(), bias.float()


@torch.no_grad()
def fit_adapters(model: Any, windows: Int[Tensor, "n t"], *, batch: int) -> None:
    """Set every adapter of a gated model to the regression of its unit on dense hidden states.

    Parameters
    ----------
    model
        A gated model, in eval mode; its gates are ignored.
    windows
        Token ids to measure on.
    batch
        Windows in each forward.
    """
    device = next(model.parameters()).device
    width = model.config.hidden_size
    moments: dict[LowRankAdapter, Moments] = {}
    hooks: list[Hook] = []

    def measure(adapter: LowRankAdapter) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            hidden, output = states_given(args, kwargs), states_made(result)
            moments[adapter].add(hidden.flatten(0, 1).float(), output.flatten(0, 1).float())

        return hook

    for _, _, gated in gated_units(model):
        moments[gated.adapter] = Moments(width, device)
        hooks.append(after(gated.unit, measure(gated.adapter), with_kwargs=True))
        hooks.append(after(gated.decide, lambda *_: torch.ones_like(_[2])))
    with hooked(hooks):
        for part in windows.split(batch):
            model.model(part.to(device), use_cache=False)
    for adapter, sums in moments.items():
        down, up, bias = sums.solve(adapter.down.out_features)
        adapter.down.weight.copy_(down)
        adapter.up.weight.copy_(up)
        adapter.up.bias.copy_(bias)
