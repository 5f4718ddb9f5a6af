"""What the gathered runtime makes first of a token that runs alone: its score, half its stand-in.

The weights of a unit are megabytes, and when they have been read there is little of Python left in
the processor's caches: each call takes several times as long as in a loop of its own. So few calls
are made, on tensors that are kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from skipviz.families.gated.modules import Gate, GatedUnit
from skipviz.families.thread_state import ThreadState

SCALE = math.sqrt(0.5)
"""What the first matrix makes is multiplied by this, as GELU wants it."""

_JOINING = threading.Lock()
"""Handles share weights, and each thread joins them for itself."""


@dataclass(eq=False, slots=True)
class _Joined:
    """The first matrices of a gate and an adapter as one, and where its results are written."""

    weights: tuple[Tensor, Tensor, Tensor]
    """Parameters that are views of the matrix and its bias: of the gate, its bias, the adapter."""
    places: tuple[int, int, int]
    """Where in memory they are."""
    hooks: tuple[Mapping[int, Any], ...]
    """Those on the gate, the adapter and their parts, which are called only as modules."""
    matrix: Float[Tensor, "m d"]
    bias: Float[Tensor, " m"]
    made: Float[Tensor, " m"]
    hidden: Float[Tensor, " w"]
    low: Float[Tensor, " r"]
    active: Float[Tensor, " w"]

    def of(self, weight: Tensor, bias: Tensor, other: Tensor) -> bool:
        """Return whether these are its parameters, and still where they were."""
        first, second, third = self.weights
        if weight is not first or bias is not second or other is not third:
            return False
        return self.places == (weight.data_ptr(), bias.data_ptr(), other.data_ptr())


class Look:
    """Scores a token and starts on its stand-in, in one matrix where gate and adapter allow it.

    Both read the same states. The weights become views of the matrix, so that they are in memory
    once and what is written to them is written to it; it is made anew when they are exchanged.
    """

    def __init__(self) -> None:
        self._here = ThreadState()

    def __call__(
        self, unit: GatedUnit, states: Float[Tensor, "1 1 d"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, " r"] | None]:
        """Return a score, and what the adapter's first matrix makes of the token, or None.

        The second is multiplied by ``SCALE``, and written over when this thread looks again.

        Parameters
        ----------
        unit
            Whose gate and adapter.
        states
            Normalised hidden state.
        """
        # The dictionaries are asked, since attributes of modules are slow to look up.
        gate: Any = unit._modules["gate"]
        joined = self._joined(gate, unit._modules["adapter"]) if type(gate) is Gate else None
        if joined is None:
            return gate(states), None
        state = states.view(-1)
        matrix, hidden, active = joined.matrix, joined.hidden, joined.active
        state = state if state.dtype is matrix.dtype else state.to(matrix.dtype)
        # ``F.gelu`` asks a library that takes longer to start than to compute so few: it is
        # x (1 + erf(x / sqrt(2))) / 2. All is divided by sqrt(2) here, and multiplied at the end.
        try:
            torch.addmv(joined.bias, matrix, state, beta=SCALE, alpha=SCALE, out=joined.made)
        except NotImplementedError:  # derivatives go forward with the states
            return gate(states), None
        torch.erf(hidden, out=active)
        torch.addcmul(hidden, hidden, active, out=active)
        up = gate._modules["up"]._parameters
        return torch.addmv(up["bias"], up["weight"], active, alpha=0.5 / SCALE), joined.low

    def _joined(self, gate: Any, adapter: Any) -> _Joined | None:
        """Return the first matrices of both as one, or None where modules are to be called.

        That is where hooks are on them, they are numbers of two formats or made in inference mode,
        or on another device than a CPU, where what is called does not wait.
        """
        own = gate._modules["down"]._parameters
        weight, bias = own["weight"], own["bias"]
        other = adapter._modules["down"]._parameters["weight"]
        known: _Joined | None = getattr(self._here, "joined", None)
        if known is None or not known.of(weight, bias, other):
            same = weight.dtype == other.dtype and weight.device.type == "cpu"
            if not same or any(each.is_inference() for each in (weight, bias, other)):
                return None
            with _JOINING, torch.inference_mode(False), torch.no_grad():
                self._here.joined = known = _join(gate, adapter)
        return None if any(known.hooks) else known


def _join(gate: Any, adapter: Any) -> _Joined:
    """Make the parameters views of one matrix and its bias, unless they are already."""
    weight, bias, other = gate.down.weight, gate.down.bias, adapter.down.weight
    matrix, longer = _one_matrix(weight, other), _padded(bias, len(other))
    made, width = torch.empty_like(longer), len(weight)
    parts = [part for each in (gate, adapter) for part in each.modules()]
    return _Joined(
        weights=(weight, bias, other),
        places=(weight.data_ptr(), bias.data_ptr(), other.data_ptr()),
        hooks=tuple(on for each in parts for on in (each._forward_hooks, each._forward_pre_hooks)),
        matrix=matrix,
        bias=longer,
        made=made,
        hidden=made[:width],
        low=made[width:],
        active=torch.empty_like(made[:width]),
    )


def _one_matrix(first: Tensor, second: Tensor) -> Tensor:
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
    unit: GatedUnit, states: Float[Tensor, "1 1 d"], low: Float[Tensor, " r"] | None
) -> Float[Tensor, "1 1 d"]:
    """Return what stands in for a unit, from the state or from what the first matrix made of it."""
    adapter: Any = unit._modules["adapter"]
    if low is None:
        made: Tensor = adapter(states)
        return made
    up = adapter._modules["up"]._parameters
    made = torch.addmv(up["bias"], up["weight"], low, alpha=1 / SCALE).view(1, 1, -1)
    return made if made.dtype is states.dtype else made.to(states.dtype)
