"""Ways of skipping. ``family_of`` finds the one a model belongs to."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from torch import nn

from skipviz.errors import ModelError, UnknownModelError
from skipviz.families.base import EventSink, Family, Plan
from skipviz.families.dense import Dense
from skipviz.families.exits.family import Exits
from skipviz.families.fixed_rates.family import FixedRates
from skipviz.families.gated.family import Gated
from skipviz.families.looped import Looped
from skipviz.families.published.calm import CALM
from skipviz.families.published.deebert import DeeBERT
from skipviz.families.published.dr_llm import DrLLM
from skipviz.families.published.flexidepth import FlexiDepth
from skipviz.families.published.gateskip import GateSkip
from skipviz.families.published.halting import ACT, PonderNet
from skipviz.families.published.mixture_of_depths import MixtureOfDepths
from skipviz.families.published.mixture_of_recursions import MixtureOfRecursions
from skipviz.families.published.ouro import Ouro
from skipviz.families.published.pabee import PABEE
from skipviz.families.published.router_tuning import RouterTuning
from skipviz.families.published.skip_decode import SkipDecode
from skipviz.families.published.skipgpt import SkipGPT
from skipviz.families.settings import CanStore, Setting, Settings
from skipviz.families.unknown import signs_of_skipping, unknown_model

GROUP = "skipviz.families"
"""The entry points by which other packages register a family: a class without arguments."""


@cache
def families() -> tuple[Family, ...]:
    """Return every family: those of other packages first, then skipviz's own, ``dense`` last.

    Raises
    ------
    ModelError
        If what a package registers is no family; the message names it.
    """
    found: list[Family] = []
    for point in entry_points(group=GROUP):
        family = point.load()()
        if not isinstance(family, Family):
            raise ModelError(
                f"{point.value}, registered as the skipviz family {point.name!r}, lacks one of "
                "name, detect, sites and observe. Update or uninstall its package."
            )
        found.append(family)
    return (
        *found,
        *(FixedRates(), Gated(), Exits(), CALM(), SkipDecode()),
        *(FlexiDepth(), SkipGPT(), MixtureOfDepths(), RouterTuning(), DrLLM()),
        *(MixtureOfRecursions(), DeeBERT(), PABEE(), GateSkip(), Ouro(), ACT(), PonderNet()),
        *(Looped(), Dense()),
    )


def family_of(model: nn.Module) -> Family:
    """Return the first family that recognises the model; ``dense`` if no other does."""
    return next(family for family in families() if family.detect(model))


def known_family(model: nn.Module) -> Family:
    """Return the first family that recognises the model; ``dense`` only if it cannot skip.

    Raises
    ------
    UnknownModelError
        If no family recognises it, and it looks as if it skipped.
    """
    family = family_of(model)
    if isinstance(family, Dense | Looped) and (signs := signs_of_skipping(model)):
        raise UnknownModelError(unknown_model(model, signs))
    return family


__all__ = [
    "CanStore",
    "EventSink",
    "Family",
    "Plan",
    "Setting",
    "Settings",
    "families",
    "family_of",
    "known_family",
]
