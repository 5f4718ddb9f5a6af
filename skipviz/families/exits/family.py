"""Reads and forces the early exits of ``skipviz.families.exits.modules``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.exits.gathered import gather_layers
from skipviz.families.exits.modules import EarlyExits, Stay
from skipviz.families.exits.settings import ExitsAt, ExitSettings, settings_of
from skipviz.families.hooks import forced_now, forcing, observing
from skipviz.families.llama import adapter_flops, decoder_layers
from skipviz.families.plan_run import PlanRun
from skipviz.families.powers import Exit, Traits
from skipviz.families.settings import Setting
from skipviz.schema import Rule, Site


class Exits:
    """Tokens leave after a layer and stay as they are; every layer above an exit is a site.

    The layers up to the next exit share one decision. A token that has left is asked no more: its
    score is missing there.
    """

    name = "exit"

    def detect(self, model: nn.Module) -> bool:
        """Say whether the model has exits."""
        return isinstance(getattr(model, "exits", None), EarlyExits)

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the layers above the first exit, in running order."""
        exits = _exits(model)
        rule: Rule = "patience" if _stays(exits)[0].rule == "patience" else "ge"
        entropy = _stays(exits)[0].rule == "entropy"
        asked = {first: _question_flops(exits) for first, _ in _segments(model)}
        return [
            Site(
                layer=layer,
                unit="block",
                rule=rule,
                polarity=1 if entropy else -1,
                skip_path="identity",
                kv="propagated",
                computed_anyway=not exits.gathered,
                scope="token",
                gate_flops=asked.get(layer, 0),
            )
            for layer in range(exits.config.exits[0] + 1, len(decoder_layers(model)))
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of exits."""
        return Traits(batchable=True, in_backbone=True, leaves=True)

    def owns(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a ``skipviz.json`` has exits."""
        return "exits" in fields

    def settings(self, fields: Mapping[str, Any]) -> ExitSettings:
        """Return the fields, checked."""
        return settings_of(fields)

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Pass every decision made in this thread to ``sink``, once for each layer it decides."""
        exits = _exits(model)
        first_site = exits.config.exits[0] + 1

        def observer(layers: range) -> Callable[[Stay, tuple[Tensor, Tensor], Tensor], None]:
            def hook(stay: Stay, args: tuple[Tensor, Tensor], inside: Tensor) -> None:
                score = torch.where(args[1], args[0].detach(), torch.nan)
                for layer in layers:
                    sink.on_gate(
                        layer - first_site,
                        score=score,
                        threshold=stay.threshold,
                        ran=inside,
                        forced=forced_now(stay),
                    )

            return hook

        pairs = zip(_stays(exits), _segments(model), strict=True)
        return observing([(stay, observer(range(first, stop))) for stay, (first, stop) in pairs])

    def force(self, model: nn.Module, plan: Plan) -> AbstractContextManager[None]:
        """Let tokens leave where ``plan`` says.

        Raises
        ------
        ValueError
            If the plan has another number of sites or fewer tokens than the model is given, lets
            a token leave where there is no exit, or lets one come back.
        """
        segments, stays = _segments(model), _stays(_exits(model))
        first_site = segments[0][0]
        _check(plan, segments)
        run = PlanRun.of(plan, device=stays[0].threshold.device)

        def override(site: int) -> Callable[[Stay, tuple[Tensor, Tensor], Tensor], Tensor]:
            def hook(stay: Stay, args: tuple[Tensor, Tensor], inside: Tensor) -> Tensor:
                # Where the gates decide some exits, they may let go a token the plan keeps.
                return run.apply(stay, site, inside, last=stay is stays[-1]) & args[1]

            return hook

        pairs = zip(stays, segments, strict=True)
        return forcing(run, [(stay, override(first - first_site)) for stay, (first, _) in pairs])

    def thresholds(self, model: nn.Module) -> list[float]:
        """Return, for each layer above an exit, the threshold of that exit."""
        pairs = zip(_stays(_exits(model)), _segments(model), strict=True)
        return [float(stay.threshold) for stay, (low, high) in pairs for _ in range(low, high)]

    def at_thresholds(self, model: nn.Module, thresholds: Sequence[float]) -> Setting:
        """Return a threshold for each exit.

        Raises
        ------
        InputError
            If the layers of an exit have thresholds that differ.
        """
        each = []
        for together in self.decided_together(model):
            found = {thresholds[site] for site in together}
            if len(found) > 1:
                layers = [self.sites(model)[site].layer for site in together]
                raise InputError(
                    f"Layers {layers[0]} to {layers[-1]} have one exit in front of them, and so "
                    "one threshold; give the same for all of them."
                )
            each.append(found.pop())
        return ExitsAt(_stays(_exits(model))[0].rule, tuple(each))

    def decided_together(self, model: nn.Module) -> list[list[int]]:
        """Return the layers up to the next exit, as sites."""
        segments = _segments(model)
        first = segments[0][0]
        return [list(range(low - first, high - first)) for low, high in segments]

    def gathers(self, model: nn.Module) -> bool:
        """Say whether layers run for tokens inside alone."""
        return _exits(model).gathered

    def gather(self, model: nn.Module, *, gathered: bool) -> None:
        """Have layers run for tokens inside alone, or for all and mask them."""
        gather_layers(model, _exits(model), gathered=gathered)

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return exits at random: as many tokens leave at each as stay to the end."""
        segments = _segments(model)
        draw = np.random.default_rng(seed).integers(len(segments) + 1, size=(texts, tokens, 1))
        draw[:, -2] = 0  # one token of every text leaves first, and the last may read it
        number = [index for index, (low, high) in enumerate(segments) for _ in range(low, high)]
        return Plan(np.array(number) < draw)

    def exits(self, model: nn.Module) -> list[Exit]:
        """Return where tokens may leave, each with its translator."""
        exits = _exits(model)
        return [Exit(*each) for each in zip(exits.config.exits, exits.translators, strict=True)]


def _exits(model: nn.Module) -> EarlyExits:
    exits: Any = model.exits
    if isinstance(exits, EarlyExits):
        return exits
    raise InputError("This model has no exits.")


def _stays(exits: EarlyExits) -> list[Stay]:
    return [stay for stay in exits.stays if isinstance(stay, Stay)]


def _segments(model: nn.Module) -> list[tuple[int, int]]:
    """Return, for each exit, the first layer that it decides and the layer after the last."""
    exits, layers = _exits(model).config.exits, len(decoder_layers(model))
    bounds = [*exits, layers - 1]
    return [(low + 1, high + 1) for low, high in itertools.pairwise(bounds)]


def _question_flops(exits: EarlyExits) -> int:
    """Return what translating a state and reading the head's leading directions cost a token."""
    into, out = exits.directions()
    width, rank = into.shape
    read = 2 * rank * (width + out.shape[1])
    return adapter_flops(width, exits.config.adapter_rank) + read


def _check(plan: Plan, segments: list[tuple[int, int]]) -> None:
    first, stop = segments[0][0], segments[-1][1]
    if plan.execute.shape[-1] != stop - first:
        raise InputError(
            f"The plan decides {plan.execute.shape[-1]} sites; the model has {stop - first}."
        )
    decided = None if plan.forced is None or plan.forced.all() else plan.forced
    for low, high in segments:
        part = plan.execute[..., low - first : high - first]
        if (part != part[..., :1]).any():
            raise InputError(
                f"Layers {low} to {high - 1} have one exit in front of them: a plan must run all "
                "or none of them for a token."
            )
        if decided is not None:
            where = decided[..., low - first : high - first]
            if (where != where[..., :1]).any():
                raise InputError(
                    f"Layers {low} to {high - 1} have one exit in front of them: a plan must "
                    "force all or none of them for a token."
                )
    if decided is None and (plan.execute[..., 1:] & ~plan.execute[..., :-1]).any():
        raise InputError("The plan lets a token come back that has left; it cannot.")
