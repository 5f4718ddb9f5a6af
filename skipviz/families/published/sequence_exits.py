"""What encoders that a text leaves as a whole have in common: the layers that it reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.hooks import Hook
from skipviz.families.layer_calls import call_hooks
from skipviz.families.llama import states_made
from skipviz.families.powers import Traits
from skipviz.schema import Rule, Scope, Site

OF_ENCODERS = Traits(batchable=False, in_backbone=True, silent=True, predicts=False, leaves=True)
"""They see the whole text, and predict a class of it. Layers that it does not reach say nothing."""


def exit_sites(layers: int, *, rule: Rule, polarity: Literal[1, -1], scope: Scope) -> list[Site]:
    """Return the layers behind the first: each runs if the exit before it lets the text go on."""
    return [
        Site(
            layer=layer,
            unit="block",
            rule=rule,
            polarity=polarity,
            skip_path="identity",
            kv="absent",
            computed_anyway=False,
            scope=scope,
            gate_flops=None,
        )
        for layer in range(1, layers)
    ]


def one_decision(plan: Plan, sites: int) -> tuple[list[bool], list[bool]]:
    """Return what a plan decides at each site for a whole text, and where it is forced.

    Parameters
    ----------
    plan
        For a text that takes one decision at each site.
    sites
        How many sites there are.

    Raises
    ------
    InputError
        If the plan has another number of sites, or tokens or texts that differ.
    """
    if plan.execute.shape[-1] != sites:
        raise InputError(f"The plan decides {plan.execute.shape[-1]} sites; the model has {sites}.")
    forced = np.ones_like(plan.execute) if plan.forced is None else plan.forced
    told, where = plan.execute.reshape(-1, sites), forced.reshape(-1, sites)
    if (where != where[:1]).any() or ((told != told[:1]) & where).any():
        raise InputError(
            "The plan decides otherwise for some tokens; all of a text share a decision here."
        )
    return told[0].tolist(), where[0].tolist()


def one_exit(plan: Plan, sites: int) -> tuple[list[bool], list[bool]]:
    """Return what ``one_decision`` does, of a plan by which a text that has left stays away.

    Raises
    ------
    InputError
        As of ``one_decision``, or if a plan that forces everything lets a text come back.
    """
    decided = one_decision(plan, sites)
    whole = plan.forced is None or plan.forced.all()
    if whole and (plan.execute[..., 1:] & ~plan.execute[..., :-1]).any():
        raise InputError("The plan lets a text come back that has left; it cannot.")
    return decided


def leaving_by_lot(sites: int, *, texts: int, tokens: int, seed: int) -> Plan:
    """Return a plan by which each text leaves somewhere, or at the end.

    Parameters
    ----------
    sites
        Layers behind the first.
    texts, tokens
        How many.
    seed
        Of the draw.
    """
    leaves = np.random.default_rng(seed).integers(sites + 1, size=(texts, 1, 1))
    return Plan(np.tile(np.arange(sites) < leaves, (1, tokens, 1)))


def reached(layers: Sequence[nn.Module], sink: EventSink) -> Iterator[Hook]:
    """Return hooks that tell of each layer behind the first that it ran, when it has."""

    def tell(number: int, result: Any) -> None:
        states = states_made(result)
        ran = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        sink.on_gate(number, ran=ran)

    return call_hooks(layers[1:], tell)


def asked(
    sink: EventSink,
    layer: int,
    score: Tensor,
    threshold: Tensor,
    *,
    shape: tuple[int, int],
    forced: bool = False,
) -> None:
    """Tell what an exit behind a layer found; whether the next layer runs is seen when it does.

    Parameters
    ----------
    sink
        What is told.
    layer
        The layer in front of the exit.
    score
        One number, of the text.
    threshold
        What it is compared with.
    shape
        Texts and tokens.
    forced
        Whether a plan decides instead.
    """
    never = torch.zeros(shape, dtype=torch.bool, device=score.device)
    whole = score.detach().float().reshape(-1, 1).expand(shape)
    planned = torch.ones_like(never) if forced else None
    sink.on_gate(layer, ran=never, score=whole, threshold=threshold, forced=planned)
