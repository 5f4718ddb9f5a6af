"""What is written beside the weights of a model that skips, and what a budget of it sets."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from skipviz.atomic import atomic_write
from skipviz.budgets import Budgets, budget_key
from skipviz.errors import InputError, ModelError
from skipviz.folders import CONFIG, WEIGHTS
from skipviz.home import sha256_of


@runtime_checkable
class Setting(Protocol):
    """What decides in a model at one budget or limit: a threshold, rates, a rule."""

    @property
    def key(self) -> str:
        """The setting as stores of figures know it: another setting has another key."""

    def apply(self, model: nn.Module) -> None:
        """Set it on a model of its family, in place."""

    def __str__(self) -> str:
        """Return the setting in words, as ``threshold 0.000384``."""


@dataclass(frozen=True, kw_only=True)
class OwnThresholds:
    """Thresholds for one kind of text, which a user had set and named.

    Attributes
    ----------
    policy
        The policy of ``skipviz.json`` whose thresholds they take the place of.
    thresholds
        Threshold by budget.
    realised
        By budget, what a part of that text came to on which the threshold was not set.
    """

    policy: str
    thresholds: Budgets[float]
    realised: Budgets[float]


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """What ``skipviz.json`` holds; every family has its own.

    Attributes
    ----------
    backbone
        Name or path of the dense model underneath.
    backbone_sha256
        SHA-256 of the backbone's weights in training.
    gates_sha256
        SHA-256 of the file of trained weights beside it.
    budget
        The budget to use where none is asked for.
    policy
        Who decides by default.
    own
        Thresholds for kinds of text, by the name that a user chose; each is one more policy. They
        are kept in a file of their own, not in ``skipviz.json``.
    """

    backbone: str
    backbone_sha256: str
    gates_sha256: str
    budget: float
    policy: str
    own: Mapping[str, OwnThresholds] = field(default_factory=dict)

    @property
    @abstractmethod
    def budgets(self) -> Budgets[Setting]:
        """What each budget sets, under ``policy``."""

    @property
    def limits(self) -> Budgets[Setting]:
        """What the guarded policy sets for each limit of loss over dense, in nats per token."""
        return Budgets()

    def promise(self, limit: float) -> str:
        """Return what the guarded policy promises for a limit, and what that assumes."""
        return ""

    @property
    def made_for(self) -> str:
        """The policy of ``skipviz.json`` that decides, under its own thresholds or a user's."""
        return self.own[self.policy].policy if self.policy in self.own else self.policy

    @property
    def made_policies(self) -> list[str]:
        """The policies of ``skipviz.json``."""
        return [self.made_for]

    @property
    def policies(self) -> list[str]:
        """The policies that can be asked for: those of ``skipviz.json``, and a user's own."""
        return [*self.made_policies, *self.own]

    @property
    def policy_name(self) -> str:
        """What a page calls the choice among ``policies``."""
        return "Policy"

    @property
    def policy_help(self) -> str:
        """What that choice means, for people."""
        return "What decides which units a token runs."

    @property
    def files_sha256(self) -> str:
        """The hashes of all trained weights that the model runs with, one after the other."""
        return self.gates_sha256

    @abstractmethod
    def install(self, model: nn.Module, folder: Path) -> None:
        """Put gates, adapters or exits into a backbone, in place, and read their weights.

        Raises
        ------
        ModelError
            If a file is missing, damaged, or of another model.
        """

    @abstractmethod
    def description(self) -> str:
        """Return what the model is, in Markdown, for its card."""

    def chosen_on(self) -> str:
        """Return which texts set thresholds or rates, as a sentence of a card."""
        return "Thresholds were calibrated on other held-out documents, `calibration_texts()`."

    def saving(self) -> str:
        """Return whether FLOPs that are saved are saved in time, as a card says it."""
        return (
            "Skipped units are computed and then masked, so no time is saved: FLOP figures count "
            "what the decisions need."
        )

    def under(self, policy: str, *, name: str) -> Settings:
        """Return the settings with another of the model's policies in use.

        Parameters
        ----------
        policy
            One of ``policies``.
        name
            What the model is called in an error.

        Raises
        ------
        InputError
            If there is no such policy.
        """
        if policy not in self.policies:
            raise InputError(
                f"policy={policy!r} is not one of {name}'s; there are {', '.join(self.policies)}."
            )
        chosen = replace(self, policy=policy)
        # A rule of whole numbers meets other budgets than one of probabilities.
        return replace(
            chosen,
            budget=self.budget if self.budget in chosen.budgets else next(iter(chosen.budgets)),
        )

    def at(self, budget: float, *, name: str) -> Setting:
        """Return what a budget sets.

        Raises
        ------
        InputError
            If nothing is known for this budget.
        """
        if budget not in self.budgets:
            raise InputError(
                f"budget={budget_key(budget)} is not calibrated for {name}; there are "
                f"{self.budgets}."
            )
        return self.budgets[budget]

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the fields as ``skipviz.json`` holds them."""

    def write(self, folder: Path) -> None:
        """Write ``skipviz.json``."""
        text = json.dumps(self.to_json(), indent=1) + "\n"
        with atomic_write(folder / CONFIG) as path:
            path.write_text(text, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class ThresholdSettings(Settings):
    """Settings of one threshold per budget and per limit of loss, each of which can be set anew.

    Attributes
    ----------
    thresholds
        Threshold for each budget, calibrated on held-out text.
    """

    thresholds: Budgets[float]

    @abstractmethod
    def calibrated_for(self, budget: float, threshold: float) -> ThresholdSettings:
        """Return the same with a threshold for a budget."""

    @abstractmethod
    def guarded_for(self, limit: float, threshold: float, clip: float | None) -> ThresholdSettings:
        """Return the same with a threshold for a limit, and the bound that it holds with."""


def threshold_settings(settings: Settings, *, name: str | Path) -> ThresholdSettings:
    """Return settings whose thresholds can be set anew.

    Raises
    ------
    InputError
        If they have none.
    """
    if isinstance(settings, ThresholdSettings):
        return settings
    raise InputError(
        f"{name} has no thresholds that can be set anew; name a folder of learned gates."
    )


@runtime_checkable
class CanStore(Protocol):
    """A family whose models are kept in folders; without it models are handed over in memory."""

    def owns(self, fields: Mapping[str, Any]) -> bool:
        """Say whether the fields of a ``skipviz.json`` are of this family."""

    def settings(self, fields: Mapping[str, Any]) -> Settings:
        """Return the fields, checked.

        Raises
        ------
        KeyError, TypeError, ValueError
            If one is missing, unknown or out of range.
        """


def common_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every ``skipviz.json`` holds, as the arguments of a ``Settings``."""
    return {
        "backbone": str(fields["backbone"]),
        "backbone_sha256": str(fields["backbone_sha256"]),
        "gates_sha256": str(fields["gates_sha256"]),
        "budget": float(fields["budget"]),
        "policy": str(fields["policy"]),
    }


def common_json(settings: Settings) -> dict[str, Any]:
    """Return what every ``skipviz.json`` begins with."""
    return {
        "backbone": settings.backbone,
        "backbone_sha256": settings.backbone_sha256,
        "gates_sha256": settings.gates_sha256,
        "budget": budget_key(settings.budget),
        "policy": settings.policy,
    }


def checked_weights(settings: Settings, folder: Path) -> Path:
    """Return the file of trained weights.

    Raises
    ------
    ModelError
        If it is missing, or not the one that ``settings`` are of.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path} is missing or no regular file: trained weights go with {CONFIG}.")
    if sha256_of(path) != settings.gates_sha256:
        raise ModelError(
            f"{path} is damaged or from another training run: its SHA-256 is not the one in "
            f"{CONFIG}. Fetch or train the model again."
        )
    return path
