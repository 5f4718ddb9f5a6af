"""Ways of skipping. ``family_of`` finds the one a model belongs to."""

from __future__ import annotations

from torch import nn

from skipviz.families.base import EventSink, Family, Plan
from skipviz.families.dense import Dense
from skipviz.families.exits.family import Exits
from skipviz.families.gated.family import Gated

# Dense comes last: it takes whatever no other family recognises.
FAMILIES: tuple[Family, ...] = (Gated(), Exits(), Dense())


def family_of(model: nn.Module) -> Family:
    """Return the first family that recognises the model; ``dense`` if no other does."""
    return next(family for family in FAMILIES if family.detect(model))


__all__ = ["FAMILIES", "EventSink", "Family", "Plan", "family_of"]
