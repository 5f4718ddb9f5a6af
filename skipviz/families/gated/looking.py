"""What the gathered runtime makes first of every token: its score, and half of its stand-in."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from skipviz.families.gated.modules import Gate, GatedUnit
from skipviz.families.weights import weights_identity

ROOT_OF_HALF = math.sqrt(0.5)


class Look:
    """Scores tokens and starts on their stand-ins, in one matrix where gate and adapter allow it.

    Both read the same states, and for a single token calling them costs more than their
    arithmetic. The weights become views of the matrix, so that they are in memory once and what is
    written to them is written to it; it is made anew when they are exchanged.
    """

    def __init__(self) -> None:
        self._made: tuple[int, Tensor, Tensor] | None = None
        self._known: tuple[Any, ...] = ()
        self._held: list[Tensor] = []
        """Aliases: the memory of weights that are exchanged is not given to those that come."""

    def __call__(
        self, unit: GatedUnit, states: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b t r"] | None]:
        """Return scores, and what the adapter's first matrix makes of the tokens, or None.

        Parameters
        ----------
        unit
            Whose gate and adapter.
        states
            Normalised hidden states.
        """
        # The dictionaries are asked, since attributes of modules are slow to look up.
        gate: Any = unit._modules["gate"]
        first = self._first(gate, unit._modules["adapter"]) if type(gate) is Gate else None
        if first is None:
            score: Tensor = gate(states)
            return score, None
        up = gate._modules["up"]._parameters
        width, matrix, bias = first
        states = states if states.dtype is matrix.dtype else states.to(matrix.dtype)
        if states.numel() == states.shape[-1]:
            made = torch.addmv(bias, matrix, states.view(-1))
            # ``F.gelu`` asks a library that takes longer to start than to compute so few. The half
            # in it is left to the last matrix.
            hidden = made[:width]
            hidden = torch.addcmul(hidden, hidden, torch.erf(hidden * ROOT_OF_HALF))
            found = torch.addmv(up["bias"], up["weight"], hidden, alpha=0.5)
            return found.view(1, 1), made[width:].view(1, 1, -1)
        made = F.linear(states, matrix, bias)
        hidden = F.gelu(made[..., :width])
        found = F.linear(hidden, up["weight"], up["bias"]).squeeze(-1)
        return found, made[..., width:]

    def _first(self, gate: Any, adapter: Any) -> tuple[int, Tensor, Tensor] | None:
        """Return how many rows are the gate's, the matrix of both, and its bias.

        None where they cannot be one: they learn, or are numbers of two formats.
        """
        own = gate._modules["down"]._parameters
        weight, bias = own["weight"], own["bias"]
        other = adapter._modules["down"]._parameters["weight"]
        if torch.is_grad_enabled() and (weight.requires_grad or other.requires_grad):
            return None
        if weight.dtype != other.dtype:
            return None
        if self._made is None or weights_identity(weight, bias, other) != self._known:
            with torch.inference_mode(False), torch.no_grad():
                self._made = len(weight), _joined(weight, other), _padded(bias, len(other))
                self._held = [each.detach() for each in (weight, bias, other)]
            self._known = weights_identity(weight, bias, other)
        return self._made


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Return both matrices as one; they become views of it, so that they are in memory once.

    Handles share weights: what another has joined is joined for this one.
    """
    follows = first.storage_offset() + first.numel() == second.storage_offset()
    if not follows or first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr():
        both = torch.cat([first, second])
        first.data, second.data = both[: len(first)], both[len(first) :]
    size = (len(first) + len(second), first.shape[1])
    return first.detach().as_strided(size, (first.shape[1], 1), first.storage_offset())


def _padded(bias: Tensor, more: int) -> Tensor:
    """Return a bias with zeros after it, whose first part it becomes."""
    size, storage = len(bias) + more, bias.untyped_storage()
    if bias.storage_offset() == 0 and storage.nbytes() == size * bias.element_size():
        whole = bias.detach().as_strided((size,), (1,))
        if not whole[len(bias) :].any():
            return whole
    whole = F.pad(bias.detach(), (0, more))
    bias.data = whole[: len(bias)]
    return whole


def stand_in(
    unit: GatedUnit,
    states: Float[Tensor, "b t d"],
    low: Float[Tensor, "b t r"] | None,
    *,
    at: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "*n d"]:
    """Return what stands in for a unit, from states or from what the first matrix made of them.

    ``at`` are the tokens it is wanted for, as places among those of all texts; None: all.
    """
    given = states if low is None else low
    if at is not None:
        given = given.flatten(0, 1).index_select(0, at)
    if low is None:
        made: Tensor = unit.adapter(given)
        return made
    adapter: Any = unit._modules["adapter"]
    up = adapter._modules["up"]._parameters
    made = F.linear(given, up["weight"], up["bias"])
    return made if made.dtype is states.dtype else made.to(states.dtype)
