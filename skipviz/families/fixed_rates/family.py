"""The family of policies of fixed rates: gated units whose gates do not look at the token."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from skipviz.families.fixed_rates.modules import FixedRate, draws_as, fixed_rate, seed_of
from skipviz.families.fixed_rates.settings import FixedSettings, settings_of
from skipviz.families.gated.family import GatedUnits
from skipviz.families.gated.modules import GatedUnit
from skipviz.schema import Rule


class FixedRates(GatedUnits):
    """Gated units that execute at a rate fixed beforehand, whatever the token is.

    Reading and forcing decisions is that of gated units.
    """

    name = "fixed"

    def detect(self, model: nn.Module) -> bool:
        """Say whether any module is a site of a fixed rate."""
        return any(isinstance(module, FixedRate) for module in model.modules())

    def rule_of(self, unit: GatedUnit) -> Rule:
        """Return ``schedule`` where nothing is drawn, ``sample`` elsewhere."""
        return "sample" if fixed_rate(unit).always is None else "schedule"

    def owns(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a ``skipviz.json`` has rates."""
        return bool(fields.get("rates"))

    def settings(self, fields: Mapping[str, Any]) -> FixedSettings:
        """Return the fields, checked."""
        return settings_of(fields)

    def seed(self, model: nn.Module) -> int | None:
        """Return the seed of a policy that draws; None of any other."""
        return seed_of(model)

    def drawing_as(self, model: nn.Module, ids: Int[Tensor, "1 t"]) -> AbstractContextManager[None]:
        """Let runs from embeddings draw as these tokens do."""
        return draws_as(model, ids)
