"""A model that cannot skip: no sites, every layer runs for every token."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn

from skipviz.families.base import EventSink
from skipviz.families.powers import Traits
from skipviz.schema import Site


class Dense:
    """The family of everything without gates."""

    name = "dense"

    def detect(self, model: nn.Module) -> bool:
        """Every model can be run densely."""
        return True

    def sites(self, model: nn.Module) -> list[Site]:
        """There is nothing to decide."""
        return []

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of a model that cannot skip."""
        return Traits(batchable=True, in_backbone=True)

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """There is nothing to read."""
        return nullcontext()
