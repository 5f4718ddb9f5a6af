"""The family trained here: per-token gates on attention and MLP, an adapter on the skip path.

A gated unit always computes its score from the same normalised hidden state that the unit reads.
``score > threshold`` executes; otherwise a low-rank adapter stands in for the unit. Keys and
values come out of the wrapped attention for every token, skipped or not, so later tokens see a
skipped token as they would see an executed one, and cached decoding equals a full forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from skipviz.errors import InputError
from skipviz.families.freezing import freeze
from skipviz.families.llama import cache_given, decoder_layers, weights_asked
from skipviz.families.thread_state import ThreadState

UNITS = ("attn", "mlp")


class Gate(nn.Module):
    """Scores a token from its normalised hidden state.

    Parameters
    ----------
    width
        Width of the hidden state.
    hidden
        Width of the gate's single hidden layer.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, 1)

    def forward(self, state: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Score every token, in float32 whatever the backbone: rounding then flips fewest."""
        score: Tensor = self.up(F.gelu(self.down(state.float())))
        return score.squeeze(-1)


class LowRankAdapter(nn.Module):
    """What a skipped unit is replaced by: an affine map of low rank.

    Parameters
    ----------
    width
        Width of the hidden state.
    rank
        Rank of the map.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, state: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Map the normalised hidden state to a stand-in for the unit's output."""
        low = F.linear(state, self.down.weight.to(state.dtype))
        return F.linear(low, self.up.weight.to(state.dtype), self.up.bias.to(state.dtype))


class Decide(nn.Module):
    """Turns scores into decisions; the one module that a recorder reads and a plan overrides.

    Being a module of its own, it can be hooked from outside: a forward hook sees the scores and
    the decisions, and a hook that returns a value replaces the decisions.
    """

    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()), persistent=False)

    def forward(self, score: Float[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """Return True where the unit executes."""
        return score > self.threshold


class GatedUnit(nn.Module):
    """An attention or MLP module with a gate in front and an adapter beside it.

    Parameters
    ----------
    unit
        The frozen module of the backbone.
    gate, adapter
        What decides and what stands in.
    kind
        ``attn`` or ``mlp``.
    """

    def __init__(
        self, unit: nn.Module, gate: nn.Module, adapter: LowRankAdapter, *, kind: str
    ) -> None:
        super().__init__()
        self.unit = unit
        self.gate = gate
        self.decide = Decide()
        self.adapter = adapter
        self.kind = kind
        self.carry_out: Callable[..., Any] | None = None
        """Runs the unit for executing tokens alone; None: it runs for all and is masked."""
        self.here = ThreadState()
        """``sloped``: whether this thread's gradients pass through decisions, as in training."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped module and keep its output where the decision says execute."""
        sloped = self.training or getattr(self.here, "sloped", False)
        attends = self.kind == "attn"
        # Weights that are asked for are of all tokens, as those of a layer without gates.
        weights = attends and weights_asked(self.unit, kwargs)
        if self.carry_out is not None and not sloped and not weights:
            return self.carry_out(self, hidden_states, *args, **kwargs)
        score = self.gate(hidden_states)
        execute = self.decide(score).unsqueeze(-1)
        learns = sloped and score.requires_grad
        keeps = weights or (attends and cache_given(kwargs) is not None)
        if not learns and not keeps and not execute.any():
            # Nobody sees what a unit makes that no token runs, unless its keys are to be kept.
            skipped = self.adapter(hidden_states)
            return (skipped, None) if attends else skipped
        result = self.unit(hidden_states, *args, **kwargs)
        # Llama's attention returns (output, weights), its MLP the output alone.
        output = result[0] if attends else result
        skipped = self.adapter(hidden_states)
        if learns:
            mix = straight_through(score - self.decide.threshold, execute.squeeze(-1))
            mix = mix.unsqueeze(-1).to(output.dtype)
            output = mix * output + (1 - mix) * skipped
        else:
            output = torch.where(execute, output, skipped)
        return (output, *result[1:]) if attends else output


def straight_through(
    margin: Float[Tensor, "b t"], execute: Bool[Tensor, "b t"]
) -> Float[Tensor, "b t"]:
    """Return the hard decision with the gradient of the sigmoid of the margin.

    Bengio, Leonard and Courville, "Estimating or propagating gradients through stochastic
    neurons", 2013.
    """
    soft = torch.sigmoid(margin)
    return execute.to(soft.dtype) + soft - soft.detach()


MOST_WIDTH = 4096
"""Of gates and adapters; a file that asks for more is refused before memory is."""


@dataclass(frozen=True, kw_only=True)
class GatedConfig:
    """Shape of the gates of one model.

    Attributes
    ----------
    first_layer, last_layer
        First and last gated layer, both included.
    gate_hidden
        Width of a gate's hidden layer; 0 where rates are fixed and nothing looks at the token.
    adapter_rank
        Rank of the adapters.
    """

    first_layer: int
    last_layer: int
    gate_hidden: int
    adapter_rank: int

    def __post_init__(self) -> None:
        if not 0 <= self.first_layer <= self.last_layer:
            raise InputError(
                f"Gated layers {self.first_layer} to {self.last_layer} are not a range: "
                "first_layer must be at least 0 and at most last_layer."
            )
        if not (0 <= self.gate_hidden <= MOST_WIDTH and 1 <= self.adapter_rank <= MOST_WIDTH):
            raise InputError(
                f"gate_hidden={self.gate_hidden} must be from 0, and adapter_rank="
                f"{self.adapter_rank} from 1, to {MOST_WIDTH:,}."
            )


def install_gates(model: nn.Module, config: GatedConfig) -> None:
    """Wrap attention and MLP of the gated layers in place, with fresh gates that all execute."""
    width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def fresh() -> Gate:
        gate = Gate(width, config.gate_hidden)
        nn.init.normal_(gate.up.weight, std=0.02)
        nn.init.constant_(gate.up.bias, 1.0)
        return gate

    gate_units(model, config, fresh)


def gate_units(model: nn.Module, config: GatedConfig, make: Callable[[], nn.Module]) -> None:
    """Wrap attention and MLP of the gated layers in place; nothing else learns any more.

    Parameters
    ----------
    model
        A Llama-layout causal LM.
    config
        Which layers, and the rank of their adapters, which start at zero.
    make
        Makes the gate of the next unit, in running order.

    Raises
    ------
    ValueError
        If the model is laid out otherwise or has fewer layers.
    """
    layers = decoder_layers(model)
    if config.last_layer >= len(layers):
        raise InputError(
            f"Layer {config.last_layer} cannot be gated: the model has {len(layers)} layers, "
            f"0 to {len(layers) - 1}."
        )
    width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    device = next(model.parameters()).device
    for layer in layers[config.first_layer : config.last_layer + 1]:
        for kind, name in zip(UNITS, ("self_attn", "mlp"), strict=True):
            gate, adapter = make(), LowRankAdapter(width, config.adapter_rank)
            nn.init.zeros_(adapter.up.weight)
            nn.init.zeros_(adapter.up.bias)
            gated = GatedUnit(getattr(layer, name), gate, adapter, kind=kind).train(model.training)
            setattr(layer, name, gated.to(device))
    freeze(model)
    for parameter in gate_parameters(model).values():
        parameter.requires_grad_(True)


def gated_units(model: nn.Module) -> Iterator[tuple[int, str, GatedUnit]]:
    """Yield (layer, unit, module) of every gated unit, in the order in which they run."""
    for index, layer in enumerate(decoder_layers(model)):
        for unit, name in zip(UNITS, ("self_attn", "mlp"), strict=True):
            module = getattr(layer, name)
            if isinstance(module, GatedUnit):
                yield index, unit, module


def gate_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return gates' and adapters' parameters by the name they are stored under."""
    return {
        f"{layer}.{unit}.{part}.{name}": parameter
        for layer, unit, module in gated_units(model)
        for part in ("gate", "adapter")
        for name, parameter in getattr(module, part).named_parameters()
    }


def set_threshold(model: nn.Module, threshold: float) -> None:
    """Set the threshold of every gate."""
    for _, _, module in gated_units(model):
        module.decide.threshold.fill_(threshold)


def set_thresholds(model: nn.Module, thresholds: Sequence[float]) -> None:
    """Set the threshold of each gate, in running order."""
    for (_, _, module), value in zip(gated_units(model), thresholds, strict=True):
        module.decide.threshold.fill_(value)
