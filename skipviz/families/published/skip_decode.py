"""SkipDecode: the later a token, the fewer layers it runs, by a schedule that is known beforehand.

Del Corro et al., "SkipDecode: autoregressive skip decoding with batching and caching for efficient
LLM inference", 2307.02628. No code of the authors was found; the schedule follows the paper's
description and was compared with ``economize`` 0.3.2 (``techniques/dynamic_depth/skipdecode.py``),
and every decision and the output with a loop over tokens and layers in plain Python
(``tests/families/published/test_skip_decode.py``).

The number of layers falls in a straight line from ``most`` to ``least``. A few lowest layers, to
warm up, and the highest ones run; those between are skipped. As the number never grows, every
token finds keys and values of all earlier ones wherever it runs, so skipped tokens need to leave
none. The tokens of a prompt run ``most`` layers. The paper trains a model under its schedule; an
untrained one loses much.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink
from skipviz.families.hooks import observing
from skipviz.families.llama import (
    decoder_layers,
    places_given,
    states_given,
    states_made,
    stay_on_layers,
    tokens_held,
    with_states,
)
from skipviz.families.powers import Traits
from skipviz.families.thread_state import ThreadState
from skipviz.schema import Site
from skipviz.text.arguments import check_types


@dataclass(frozen=True, kw_only=True)
class SkipDecodeSchedule:
    """How many layers each token runs, by its place.

    Attributes
    ----------
    most, least
        Layers of the first tokens, and of those at ``length`` and behind it.
    length
        Tokens over which the number falls.
    prompt
        Tokens at the beginning of a text that run ``most`` layers; places are counted after them.
    warmup_layers
        Lowest layers that every token runs, counted among the others.
    """

    most: int
    least: int
    length: int
    prompt: int = 0
    warmup_layers: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        if not 1 <= self.least <= self.most or not 0 <= self.warmup_layers <= self.least:
            raise InputError(
                f"least={self.least} must lie between 1 and most={self.most}, and "
                f"warmup_layers={self.warmup_layers} between 0 and least."
            )
        if self.length < 1 or self.prompt < 0:
            raise InputError(
                f"length={self.length} must be at least 1, and prompt={self.prompt} at least 0."
            )

    def layers_run(self, places: Int[Tensor, "*b t"]) -> Int[Tensor, "*b t"]:
        """Return how many layers the token at each place runs."""
        share = ((places - self.prompt).double() / self.length).clamp(0.0, 1.0)
        found: Tensor = (self.most - (self.most - self.least) * share).round().long()
        return found


class Scheduled(nn.Module):
    """Says who runs a layer; what a recorder reads."""

    def forward(self, runs: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """Return what the schedule says."""
        return runs


class SkipDecodeDepths(nn.Module):
    """The schedule of a model, and who runs which layer.

    Parameters
    ----------
    model
        A Llama-layout causal LM; hooks are put on its layers.
    schedule
        How many layers each token runs.
    """

    def __init__(self, model: Any, schedule: SkipDecodeSchedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.layers = len(decoder_layers(model))
        self.scheduled = nn.ModuleList(Scheduled() for _ in range(self.layers))
        self._now = ThreadState()

    def skippable(self) -> range:
        """Return the layers that some place skips."""
        return range(
            self.schedule.warmup_layers,
            self.schedule.warmup_layers + self.layers - self.schedule.least,
        )

    def runs(self, layer: int, places: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """Return who runs a layer: its lowest ones, and so many of the highest as are left."""
        highest = self.schedule.layers_run(places) - self.schedule.warmup_layers
        return (self.layers - layer <= highest) | (layer < self.schedule.warmup_layers)

    def start(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Note how many tokens came before; a forward pre-hook of the decoder."""
        self._now.held = tokens_held(kwargs)

    def after_layer(
        self, layer: int, module: nn.Module, args: Any, kwargs: Any, result: Any
    ) -> Any:
        """Let those that skip keep their state; a forward hook of a layer."""
        given, made = states_given(args, kwargs), states_made(result)
        places = places_given(kwargs, given, held=self._now.held)
        runs = self.scheduled[layer](self.runs(layer, places))
        return with_states(result, torch.where(runs.unsqueeze(-1), made, given))


def install_skip_decode(model: Any, schedule: SkipDecodeSchedule) -> SkipDecodeDepths:
    """Have a dense model run fewer layers for later tokens, in place.

    Parameters
    ----------
    model
        A Llama-layout causal LM.
    schedule
        How many layers each token runs.

    Returns
    -------
    SkipDecodeDepths
        What was put into the model, as ``model.skip_decode``.

    Raises
    ------
    InputError
        If the model is laid out otherwise, has a schedule already, or fewer layers than ``most``.

    Examples
    --------
    >>> made = install_skip_decode(dense.model, SkipDecodeSchedule(most=6, least=3, length=16))
    >>> mine = skipviz.from_parts(dense.model, dense.tokenizer)
    >>> mine.family.name, skipviz.trace(mine, "The fox jumps.").tokens["layers_used"].to_list()[:4]
    ('skip-decode', [6.0, 6.0, 6.0, 5.0])
    """
    layers = decoder_layers(model)
    if hasattr(model, "skip_decode"):
        raise InputError("This model has a schedule already; load it anew to give it another.")
    if schedule.most > len(layers):
        raise InputError(f"most={schedule.most}, and the model has {len(layers)} layers.")
    depths = SkipDecodeDepths(model, schedule)
    model.skip_decode = depths.train(model.training)
    stay_on_layers(model, depths, {number: number for number in depths.skippable()})
    return depths


class SkipDecode:
    """Layers in the middle that later tokens skip."""

    name = "skip-decode"

    def detect(self, model: nn.Module) -> bool:
        """Say whether ``install_skip_decode`` gave the model a schedule."""
        return isinstance(getattr(model, "skip_decode", None), SkipDecodeDepths)

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the layers that some place skips."""
        return [
            Site(
                layer=layer,
                unit="block",
                rule="schedule",
                polarity=None,
                skip_path="identity",
                kv="absent",
                computed_anyway=True,
                scope="token",
            )
            for layer in _depths(model).skippable()
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of places: a text in a batch has the same as alone."""
        return Traits(batchable=True, in_backbone=True)

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Pass on who runs each layer."""

        def observer(site: int) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda _, args, runs: sink.on_gate(site, ran=runs)

        depths = _depths(model)
        return observing(
            [(depths.scheduled[n], observer(site)) for site, n in enumerate(depths.skippable())]
        )


def _depths(model: Any) -> SkipDecodeDepths:
    depths: Any = getattr(model, "skip_decode", None)
    if isinstance(depths, SkipDecodeDepths):
        return depths
    raise InputError("This model has no schedule; install_skip_decode gives it one.")
