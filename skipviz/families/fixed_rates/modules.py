"""Gates that do not look: a site executes at a rate fixed beforehand, whatever the token is.

A rate of 0 or 1 is a static policy, the baseline that every learned gate has to beat; a rate in
between is a random one. Units, adapters and everything that reads or forces decisions are those
of ``skipviz.families.gated.modules``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.gated.modules import GatedConfig, GatedUnit, gate_units, gated_units
from skipviz.families.llama import decoder_layers, tokens_held
from skipviz.families.thread_state import ThreadState

_MASK = 0xFFFFFFFF


class Clock:
    """Knows which tokens the model is running, and where they stand, for gates that draw lots.

    Parameters
    ----------
    seed
        Draws differ with it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._now = ThreadState()

    def start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what a forward is given; a forward pre-hook of the decoder."""
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            told = getattr(self._now, "told", None)
            if told is None:
                self._now.ids = None  # which only those miss that draw
                return
            ids = told.expand(len(kwargs["inputs_embeds"]), -1)
        positions = kwargs.get("position_ids")
        if positions is None:
            first = tokens_held(kwargs)
            positions = torch.arange(first, first + ids.shape[1], device=ids.device)
        self._now.ids, self._now.positions = ids, positions

    def draw(self, site: int) -> Float[Tensor, "b t"]:
        """Return a number in [0, 1) for each token, fixed by seed, site, token and position.

        Nothing else enters it, so that a token draws the same alone, in a batch and when decoded
        from a cache.
        """
        ids = self._now.ids
        if ids is None:
            raise InputError(
                "A policy of fixed rates draws from token ids; call the model with input_ids."
            )
        positions = self._now.positions
        mixed = _scramble(ids + _scramble(positions + _scramble(self.seed * 4096 + site)))
        # 24 bits are what a float32 holds without rounding up to 1.
        share: Tensor = (mixed >> 8).float() / 2**24
        return share

    @contextmanager
    def told(self, ids: Int[Tensor, "1 t"]) -> Iterator[None]:
        """Let runs of this thread from embeddings draw as these tokens do."""
        self._now.told = ids
        try:
            yield
        finally:
            self._now.told = None


class FixedRate(nn.Module):
    """Stands where a gate would: its score is positive at a fixed rate.

    Parameters
    ----------
    clock
        Shared by the gates of one model.
    site
        Index of the site.

    Attributes
    ----------
    always
        Whether every token executes, or none does; None where it is drawn.
    """

    rate: Tensor

    def __init__(self, clock: Clock, site: int) -> None:
        super().__init__()
        self.register_buffer("rate", torch.ones(()), persistent=False)
        self.always: bool | None = True
        self.clock = clock
        self.site = site

    def set_rate(self, rate: float) -> None:
        """Set the rate, from 0 to 1."""
        self.rate.fill_(rate)
        self.always = {0.0: False, 1.0: True}.get(rate)

    def forward(self, state: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        """Return the rate minus a uniform draw; half above or below 0 where there is no choice."""
        if self.always is not None:
            return (self.rate - 0.5).expand(state.shape[:-1]).clone()
        return self.rate - self.clock.draw(self.site).to(state.device)


def install_rates(model: nn.Module, config: GatedConfig, *, seed: int) -> None:
    """Wrap attention and MLP of the gated layers in place, with every rate at 1.

    Parameters
    ----------
    model
        A Llama-layout causal LM.
    config
        Which layers, and the rank of their adapters.
    seed
        Seed of the draws.
    """
    clock = Clock(seed)
    sites = iter(range(2 * len(decoder_layers(model))))
    gate_units(model, config, lambda: FixedRate(clock, next(sites)))
    decoder: Any = model.model
    decoder.register_forward_pre_hook(clock.start, with_kwargs=True)


def set_rates(model: nn.Module, rates: Sequence[float]) -> None:
    """Set the rate of every site, in running order.

    Raises
    ------
    ValueError
        If there are more or fewer rates than sites, or one is no share.
    """
    units = [unit for _, _, unit in gated_units(model)]
    if len(rates) != len(units):
        raise InputError(f"{len(rates)} rates were given for {len(units)} sites.")
    for unit, rate in zip(units, rates, strict=True):
        if not 0 <= rate <= 1:
            raise InputError(f"The rate {rate} is not between 0 and 1.")
        fixed_rate(unit).set_rate(rate)


def set_seed(model: nn.Module, seed: int) -> None:
    """Make every site draw anew."""
    for _, _, unit in gated_units(model):
        fixed_rate(unit).clock.seed = seed


def draws_as(model: nn.Module, ids: Int[Tensor, "1 t"]) -> AbstractContextManager[None]:
    """Let a model that is run from embeddings decide as on these tokens, if it draws at all."""
    clocks = [fixed_rate(unit).clock for _, _, unit in gated_units(model) if _draws(unit)]
    return clocks[0].told(ids) if clocks else nullcontext()


def seed_of(model: nn.Module) -> int | None:
    """Return the seed that decisions are drawn by; None where nothing is drawn."""
    clocks = [fixed_rate(unit).clock for _, _, unit in gated_units(model) if _draws(unit)]
    return clocks[0].seed if clocks else None


def _draws(unit: GatedUnit) -> bool:
    return isinstance(unit.gate, FixedRate) and unit.gate.always is None


def fixed_rate(unit: GatedUnit) -> FixedRate:
    """Return the gate of a unit of a model of fixed rates.

    Raises
    ------
    ValueError
        If the unit's gate is another.
    """
    if isinstance(unit.gate, FixedRate):
        return unit.gate
    raise InputError("This model's gates look at the token; it has no fixed rates to set.")


def _scramble(value: Any) -> Any:
    """Mix the bits of an integer or a tensor of them (MurmurHash3's finaliser, 32 bits)."""
    value = value & _MASK
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)
