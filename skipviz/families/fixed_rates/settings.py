"""What is written beside a policy of fixed rates, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from skipviz.budgets import Budgets
from skipviz.errors import InputError
from skipviz.families.fixed_rates.modules import install_rates, set_rates
from skipviz.families.gated.modules import GatedConfig, gate_parameters
from skipviz.families.gated.settings import units_in_words
from skipviz.families.gated.weights import without_sites
from skipviz.families.settings import Setting, Settings, checked_weights, common_fields, common_json
from skipviz.families.weights import read_parameters, write_parameters


@dataclass(frozen=True)
class Rates:
    """The rate, 0 to 1, at which each site executes, in running order."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(0 <= rate <= 1 for rate in self.values):
            raise InputError(f"Rates are {self.values}; each must be from 0 to 1.")

    @property
    def key(self) -> str:
        """All rates, whole."""
        return repr(list(self.values))

    def apply(self, model: nn.Module) -> None:
        """Set them on the sites of a model."""
        set_rates(model, self.values)

    def __str__(self) -> str:
        dropped = sum(rate == 0 for rate in self.values)
        mean = sum(self.values) / len(self.values)
        return f"{len(self.values)} sites, mean rate {mean:.3f}, {dropped} dropped"


@dataclass(frozen=True, kw_only=True)
class FixedSettings(Settings):
    """What is written beside adapters of a policy of fixed rates.

    Attributes
    ----------
    gates
        Shape of the units; ``gate_hidden`` is 0.
    rates
        Rate of every site for each budget.
    """

    gates: GatedConfig
    rates: Budgets[tuple[float, ...]]

    @property
    def budgets(self) -> Budgets[Setting]:
        """The rates of each budget."""
        return Budgets({budget: Rates(rates) for budget, rates in self.rates.items()})

    def install(self, model: nn.Module, folder: Path) -> None:
        """Put sites of fixed rates into a backbone, in place, and read their adapters."""
        weights = checked_weights(self, folder)
        install_rates(model, self.gates, seed=0)
        read_parameters(_used(model, self.rates), weights, also={})

    def to_json(self) -> dict[str, Any]:
        """Return the fields of ``skipviz.json``."""
        rates = {budget: list(each) for budget, each in self.rates.to_json().items()}
        return common_json(self) | {"gates": asdict(self.gates), "rates": rates}

    def description(self) -> str:
        """Return what the policy drops or draws."""
        units = units_in_words(self.gates, self.backbone)
        if self.policy != "static":
            return (
                f"Random execution, at a fixed rate per site, of {units}. Keys and values are "
                "computed for every token."
            )
        dropped = ", ".join(
            f"{sum(rate == 0 for rate in rates)} for budget {budget:g}"
            for budget, rates in self.rates.items()
        )
        return (
            f"Drops the same units for every token, chosen from {units}. The keys and values of a "
            f"dropped attention are not read, so they are not counted. Units dropped: {dropped}."
        )

    def chosen_on(self) -> str:
        """Return which texts chose the rates."""
        if self.policy == "static":
            return "The units to drop were chosen on training windows."
        return (
            "Rates are those of learned gates on other held-out documents, `calibration_texts()`."
        )

    def saving(self) -> str:
        """Return whether FLOPs that are saved are saved in time."""
        if self.policy == "static":
            return "Dropped units are not run. How much time that saves was not measured."
        return super().saving()


def policy_of(rates: Mapping[Any, Sequence[float]]) -> str:
    """Return ``static`` where every site is always run or never, ``random`` otherwise."""
    always = all(rate in (0, 1) for each in rates.values() for rate in each)
    return "static" if always else "random"


def settings_of(fields: Mapping[str, Any]) -> FixedSettings:
    """Return the fields of a ``skipviz.json`` of fixed rates, checked."""
    return FixedSettings(
        **common_fields(fields),
        gates=GatedConfig(**fields["gates"]),
        rates=Budgets({budget: tuple(each) for budget, each in fields["rates"].items()}),
    )


def write_adapters(model: nn.Module, path: Path, rates: Mapping[Any, Sequence[float]]) -> None:
    """Write the adapters of sites that any budget ever skips."""
    write_parameters(_used(model, rates), path)


def _used(model: nn.Module, rates: Mapping[Any, Sequence[float]]) -> dict[str, nn.Parameter]:
    parameters = gate_parameters(model)
    sites = len(next(iter(rates.values())))
    idle = {site for site in range(sites) if all(each[site] == 1 for each in rates.values())}
    return without_sites(parameters, idle)
