"""What is written beside learned gates, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skipviz.budgets import Budgets
from skipviz.errors import InputError, ModelError
from skipviz.families.gated.modules import GatedConfig, install_gates, set_threshold, set_thresholds
from skipviz.families.gated.weights import read_gates
from skipviz.families.settings import (
    Setting,
    Settings,
    ThresholdSettings,
    checked_weights,
    common_fields,
    common_json,
)
from skipviz.folders import WEIGHTS, model_folder
from skipviz.home import sha256_of


@dataclass(frozen=True)
class Threshold:
    """One threshold for every gate, on the scale of the scores."""

    value: float

    def __post_init__(self) -> None:
        if not abs(self.value) <= torch.finfo(torch.float32).max:  # in which scores are compared
            raise InputError(f"threshold={self.value} is not a number that a score can be above.")

    @property
    def key(self) -> str:
        """The number, whole."""
        return repr(self.value)

    def apply(self, model: nn.Module) -> None:
        """Set it on every gate of a model."""
        set_threshold(model, self.value)

    def __str__(self) -> str:
        return f"threshold {self.value:.6f}"


@dataclass(frozen=True)
class SiteThresholds:
    """A threshold for each gate, in running order."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        for value in self.values:
            Threshold(value)

    @property
    def key(self) -> str:
        """All numbers, whole."""
        return repr(list(self.values))

    def apply(self, model: nn.Module) -> None:
        """Set them on the gates of a model."""
        set_thresholds(model, self.values)

    def __str__(self) -> str:
        return f"{len(self.values)} thresholds, {min(self.values):.6f} to {max(self.values):.6f}"


@dataclass(frozen=True, kw_only=True)
class GatedSettings(ThresholdSettings):
    """What is written beside learned gates and their adapters.

    Attributes
    ----------
    gates
        Shape of the gates.
    guards
        Threshold of every gate for each limit, in nats per token over dense, that the guarded
        policy keeps to.
    clips
        For limits that hold of clipped losses, the bound in nats at which they were clipped.
    adapters_of, adapters_sha256
        The model, by name or folder, whose adapters these gates share, and the SHA-256 of its
        file; empty where they have their own.
    """

    gates: GatedConfig
    guards: Budgets[float] = field(default_factory=Budgets)
    clips: Budgets[float] = field(default_factory=Budgets)
    adapters_of: str = ""
    adapters_sha256: str = ""

    @property
    def budgets(self) -> Budgets[Setting]:
        """The threshold of each budget."""
        own = self.own.get(self.policy)
        levels = self.thresholds if own is None else own.thresholds
        return Budgets({b: Threshold(value) for b, value in levels.items()})

    @property
    def limits(self) -> Budgets[Setting]:
        """The threshold of each limit."""
        return Budgets({limit: Threshold(value) for limit, value in self.guards.items()})

    def promise(self, limit: float) -> str:
        """Return what the threshold of a limit promises, and what that assumes."""
        kept = "With 95% confidence over calibration documents, the mean loss over dense"
        if limit in self.clips:
            bound = self.clips[limit]
            return (
                f"{kept}, clipped at {bound:g} nats for each document, stays below {limit:g} nats "
                "per token, whatever the distribution of losses (betting test). A document that "
                f"loses more than {bound:g} nats counts as losing that."
            )
        return (
            f"{kept} stays below {limit:g} nats per token (Student's t test). This assumes that "
            "the documents are many and that none of them loses far more than the others; losses "
            "have no bound, so it is not free of their distribution."
        )

    def calibrated_for(self, budget: float, threshold: float) -> GatedSettings:
        """Return the same with a threshold for a budget."""
        return replace(self, thresholds=self.thresholds.replaced(budget, threshold))

    def guarded_for(self, limit: float, threshold: float, clip: float | None) -> GatedSettings:
        """Return the same with a threshold for a limit, and the bound that it holds with."""
        clips = {each: bound for each, bound in self.clips.items() if each != limit}
        return replace(
            self,
            guards=self.guards.replaced(limit, threshold),
            clips=Budgets(clips if clip is None else {**clips, limit: clip}),
        )

    @property
    def files_sha256(self) -> str:
        """The hashes of gates and of adapters that are shared."""
        return self.gates_sha256 + self.adapters_sha256

    def adapters_file(self, folder: Path) -> Path:
        """Return the file of the adapters, which gates may share with another model.

        Raises
        ------
        ModelError
            If it is missing, or another than the gates were trained with.
        """
        if not self.adapters_of:
            return checked_weights(self, folder)
        path = model_folder(self.adapters_of) / WEIGHTS
        if not path.is_file() or sha256_of(path) != self.adapters_sha256:
            raise ModelError(
                f"{folder.name} shares the adapters of {self.adapters_of}, and {path} is missing "
                "or another than it was trained with. Train or fetch both again."
            )
        return path

    def install(self, model: nn.Module, folder: Path) -> None:
        """Put learned gates into a backbone, in place, and read them and their adapters."""
        gates, adapters = checked_weights(self, folder), self.adapters_file(folder)
        install_gates(model, self.gates)
        read_gates(model, gates, adapters=adapters)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of ``skipviz.json``."""
        return common_json(self) | {
            "gates": asdict(self.gates),
            "thresholds": self.thresholds.to_json(),
            "guards": self.guards.to_json(),
            **({"clips": self.clips.to_json()} if self.clips else {}),
            "adapters_of": self.adapters_of,
            "adapters_sha256": self.adapters_sha256,
        }

    def description(self) -> str:
        """Return what the gates are, with their thresholds."""
        thresholds = ", ".join(
            f"{value:.6f} for budget {budget:g}" for budget, value in self.thresholds.items()
        )
        return (
            f"Per-token gates on {units_in_words(self.gates, self.backbone)}. Keys and values are "
            f"computed for every token. A gate has {self.gates.gate_hidden} hidden units and reads "
            "the normalised hidden state. A unit executes where score > threshold. "
            f"Thresholds: {thresholds}."
        )


def settings_of(fields: Mapping[str, Any]) -> GatedSettings:
    """Return the fields of a ``skipviz.json`` of learned gates, checked."""
    return GatedSettings(
        **common_fields({"policy": "learned", **fields}),
        gates=GatedConfig(**fields["gates"]),
        thresholds=Budgets(fields["thresholds"]),
        guards=Budgets(fields.get("guards", {})),
        clips=Budgets(fields.get("clips", {})),
        adapters_of=fields.get("adapters_of", ""),
        adapters_sha256=fields.get("adapters_sha256", ""),
    )


def learned(settings: Settings, *, name: str | Path) -> GatedSettings:
    """Return settings that are those of learned gates.

    Raises
    ------
    InputError
        If they are of another family.
    """
    if isinstance(settings, GatedSettings):
        return settings
    raise InputError(f"{name} has no learned gates; name a folder that has.")


def units_in_words(gates: GatedConfig, backbone: str) -> str:
    """Return which units of which backbone are gated, and by what a skipped one is replaced."""
    return (
        f"attention and MLP of layers {gates.first_layer} to {gates.last_layer} of `{backbone}`, "
        "whose weights are frozen and not included. A skipped unit is replaced by a "
        f"rank-{gates.adapter_rank} adapter"
    )
