"""What is written beside the translators of early exits, and how they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from skipviz.budgets import Budgets
from skipviz.errors import InputError
from skipviz.families.exits.modules import (
    ExitConfig,
    ExitRule,
    exit_parameters,
    exit_rule,
    install_exits,
    set_exit_rule,
)
from skipviz.families.settings import Setting, Settings, checked_weights, common_fields, common_json
from skipviz.families.weights import read_parameters, write_parameters

EXIT_TEXTS = 5
"""Every fifth calibration text sets the thresholds of early exits: there are many to set."""


@dataclass(frozen=True)
class ExitAt:
    """A rule and its threshold: a probability, nats, or a number of agreeing exits."""

    rule: ExitRule
    threshold: float

    def __post_init__(self) -> None:
        if math.isnan(self.threshold):
            raise InputError(f"The threshold of {self.rule} is not a number.")

    @property
    def key(self) -> str:
        """The threshold, whole; the rule is the policy."""
        return repr(self.threshold)

    def apply(self, model: nn.Module) -> None:
        """Set rule and threshold on every exit of a model."""
        set_exit_rule(model, self.rule, self.threshold)

    def __str__(self) -> str:
        return f"{self.rule} {self.threshold:.4f}"


@dataclass(frozen=True)
class ExitsAt:
    """A rule, and a threshold of its own for each exit."""

    rule: ExitRule
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        for value in self.thresholds:
            ExitAt(self.rule, value)

    @property
    def key(self) -> str:
        """The thresholds, whole; the rule is the policy."""
        return repr(list(self.thresholds))

    def apply(self, model: nn.Module) -> None:
        """Set rule and thresholds on the exits of a model."""
        for number, value in enumerate(self.thresholds):
            set_exit_rule(model, self.rule, value, only=number)

    def __str__(self) -> str:
        return f"{self.rule} {', '.join(f'{value:.4f}' for value in self.thresholds)}"


@dataclass(frozen=True, kw_only=True)
class ExitSettings(Settings):
    """What is written beside the translators of early exits.

    Attributes
    ----------
    exits
        Where tokens may leave.
    thresholds
        For each rule, its threshold for each budget, calibrated on held-out text. ``policy`` is
        one of the rules.
    """

    exits: ExitConfig
    thresholds: dict[ExitRule, Budgets[float]]

    @property
    def budgets(self) -> Budgets[Setting]:
        """The threshold of the rule in use for each budget."""
        rule = exit_rule(self.made_for)
        own = self.own.get(self.policy)
        levels = self.thresholds[rule] if own is None else own.thresholds
        return Budgets({b: ExitAt(rule, value) for b, value in levels.items()})

    @property
    def made_policies(self) -> list[str]:
        """The rules."""
        return list(self.thresholds)

    @property
    def policy_name(self) -> str:
        """Exits have rules."""
        return "Rule"

    @property
    def policy_help(self) -> str:
        """What the rules ask."""
        return (
            "When a token leaves early: if the prediction is confident, if its entropy is low, or "
            "if several exits in a row agree."
        )

    def install(self, model: nn.Module, folder: Path) -> None:
        """Put exits into a backbone, in place, and read their translators."""
        weights = checked_weights(self, folder)
        install_exits(model, self.exits)
        read_exits(model, weights)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of ``skipviz.json``."""
        thresholds = {rule: levels.to_json() for rule, levels in self.thresholds.items()}
        return common_json(self) | {"exits": asdict(self.exits), "thresholds": thresholds}

    def description(self) -> str:
        """Return where tokens may leave, by which rules at which thresholds."""
        rules = "\n".join(
            f"- {rule}: " + ", ".join(f"{v:.4f} for budget {b:g}" for b, v in levels.items())
            for rule, levels in self.thresholds.items()
        )
        return (
            f"Early exits after layers {', '.join(map(str, self.exits.exits))} of "
            f"`{self.backbone}`, whose weights are frozen and not included. A "
            f"rank-{self.exits.adapter_rank} translator estimates the last hidden state from that "
            f"of the exit's layer. Rules read the estimate through the {self.exits.head_rank} "
            "leading directions of the shared head. A token that leaves is predicted through the "
            "whole head, and the layers above compute keys and values from the hidden state it "
            f"left with. Thresholds:\n\n{rules}"
        )

    def chosen_on(self) -> str:
        """Return which texts set the thresholds."""
        return (
            "Thresholds were calibrated on other held-out documents, every "
            f"{EXIT_TEXTS}th of `calibration_texts()`."
        )


def settings_of(fields: Mapping[str, Any]) -> ExitSettings:
    """Return the fields of a ``skipviz.json`` of early exits, checked."""
    shape = {**fields["exits"], "exits": tuple(fields["exits"]["exits"])}
    thresholds = {exit_rule(rule): Budgets(each) for rule, each in fields["thresholds"].items()}
    common = common_fields(fields)
    if common["policy"] not in thresholds:
        raise ValueError(f"policy {common['policy']!r} has no thresholds")
    return ExitSettings(**common, exits=ExitConfig(**shape), thresholds=thresholds)


def write_exits(model: nn.Module, path: Path) -> None:
    """Write the translators of a model."""
    write_parameters(exit_parameters(model), path)


def read_exits(model: nn.Module, path: Path) -> None:
    """Read translators into a model that has exits where they belong."""
    read_parameters(exit_parameters(model), path, also={})
