"""The gathered runtime for one token of one text, as in decoding: a unit runs or it does not.

Here calls cost more than arithmetic, so that there are few of them: linear layers are computed from
their weights, since calling a module takes time too.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from skipviz.families.gated.held_keys import HeldKeys
from skipviz.families.gated.looking import Look, stand_in
from skipviz.families.gated.modules import Decide, GatedUnit
from skipviz.families.llama import cache_given

MLPS = frozenset({"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"})
"""transformers' classes that make ``down(act(gate(x)) * up(x))``."""
LINEAR_FORWARD = nn.Linear.forward
"""As torch has it: who exchanges it has linear layers do something else."""


class Turns:
    """The matrix that turns heads to the place of a token, made once for all layers."""

    def __init__(self) -> None:
        self._last: tuple[Tensor | None, int, Tensor] = (None, 0, torch.empty(0))

    def __deepcopy__(self, memo: dict[int, Any]) -> Turns:
        return Turns()

    def at(
        self, rotary: tuple[Float[Tensor, "1 1 c"], Float[Tensor, "1 1 c"]], *, layer: int
    ) -> Float[Tensor, "c c"]:
        """Return what heads are multiplied by, from cosines and sines of one place.

        ``layer`` is who asks: where it is not above the one before, a new forward has begun, whose
        cosines may be the same tensor with other values.
        """
        known, before, matrix = self._last
        if known is not rotary[0] or layer <= before:
            cosine, sine = (each.flatten() for each in rotary)
            half = len(cosine) // 2
            matrix = torch.diag(cosine)
            matrix.diagonal(-half).copy_(-sine[:half])
            matrix.diagonal(half).copy_(sine[half:])
        self._last = rotary[0], layer, matrix
        return matrix


def one_token(
    unit: GatedUnit,
    states: Float[Tensor, "1 1 d"],
    look: Look,
    turns: Turns,
    held: HeldKeys,
    **given: Any,
) -> Any:
    """Return what a gated unit returns for one token.

    Parameters
    ----------
    unit
        The unit with its gate and its adapter.
    states
        Normalised hidden state.
    look, turns, held
        What is kept from token to token.
    given
        As transformers gives it to the unit.
    """
    score, low = look(unit, states)
    parts = unit._modules
    decide: Any = parts["decide"]
    if _is_heard(decide):
        low = None if low is None else low.clone()  # who listens may run the model again
        execute = bool(decide(score.view(1, 1)))
    else:
        execute = bool(score > decide._buffers["threshold"])
    instead = None if execute else stand_in(unit, states, low)
    own: Any = parts["unit"]
    if unit.kind == "mlp":
        return _mlp(own, states) if instead is None else instead
    read = _read(own, states, turns, held, execute=execute, **given)
    return (read if instead is None else instead), None


def _is_heard(decide: Any) -> bool:
    """Return whether the module is to be called: it has hooks, or does more than compare."""
    plain = type(decide) is Decide and "threshold" in decide._buffers
    return not (plain and _is_plain(decide))


def _read(
    attention: Any,
    states: Float[Tensor, "1 1 d"],
    turns: Turns,
    held: HeldKeys,
    *,
    execute: bool,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **more: Any,
) -> Float[Tensor, "1 1 d"] | None:
    """Keep the token's key and value, and return the attention's output if it runs."""
    cache = cache_given(more)
    if not execute and cache is None:
        return None
    # Of one token, heads before tokens and tokens before heads are the same numbers in a row.
    heads = (1, -1, 1, attention.head_dim)
    turn = turns.at(position_embeddings, layer=attention.layer_idx)
    parts = attention._modules
    key = _linear(parts["k_proj"], states).view(heads)
    value = _linear(parts["v_proj"], states).view(heads)
    if "k_norm" in parts:
        key = attention.k_norm(key)
    key = torch.matmul(key, turn)
    if cache is not None:
        key, value = held.keep(cache, attention, key, value, more)
    if not execute:
        return None
    query = _linear(parts["q_proj"], states).view(heads)
    if "q_norm" in parts:
        query = attention.q_norm(query)
    read = F.scaled_dot_product_attention(
        torch.matmul(query, turn),
        key,
        value,
        attn_mask=attention_mask,
        scale=attention.scaling,
        enable_gqa=True,
    )
    return _linear(parts["o_proj"], read.view(1, 1, -1))


def _mlp(mlp: Any, states: Float[Tensor, "1 1 d"]) -> Float[Tensor, "1 1 d"]:
    """Return what an MLP makes, part by part where it is one whose parts are known."""
    if not (_is_known(mlp) and _is_plain(mlp)):
        made: Tensor = mlp(states)
        return made
    parts = mlp._modules
    active = parts["act_fn"](_linear(parts["gate_proj"], states))
    return _linear(parts["down_proj"], active * _linear(parts["up_proj"], states))


def _linear(module: Any, states: Float[Tensor, "1 1 d"]) -> Float[Tensor, "1 1 e"]:
    """Return what a linear layer makes; as a module only where it is more than one."""
    own = module._parameters
    weight = own.get("weight")
    known = type(module).forward is LINEAR_FORWARD and weight is not None and "bias" in own
    if known and _is_plain(module):
        return F.linear(states, weight, own["bias"])
    made: Tensor = module(states)
    return made


def _is_known(mlp: Any) -> bool:
    """Return whether it runs as one of ``MLPS``; a name alone would not tell whose class it is."""
    forward = type(mlp).forward
    name = forward.__qualname__.removesuffix(".forward")
    return name in MLPS and forward.__module__.startswith("transformers.models.")


def _is_plain(module: Any) -> bool:
    """Return whether a module has no hooks and runs as its class does, not compiled.

    Hooks on all modules and gradients are seen before.
    """
    own = module.__dict__
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or "forward" in own
        or "_compiled_call_impl" in own
    )
