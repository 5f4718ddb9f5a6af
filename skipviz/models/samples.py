"""The sample models that come with skipviz, and the file that makes a folder a gated model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from skipviz.errors import InputError, ModelError
from skipviz.families.exits.modules import ExitConfig
from skipviz.families.gated.modules import GatedConfig
from skipviz.home import sha256_of

CONFIG = "skipviz.json"
GATES = "gates.safetensors"


@dataclass(frozen=True, kw_only=True)
class GatedModelConfig:
    """What is written beside gates and adapters.

    Attributes
    ----------
    backbone
        Name or path of the dense model underneath.
    backbone_sha256
        SHA-256 of the weights that the gates were trained on.
    gates_sha256
        SHA-256 of the file of gates and adapters.
    gates
        Shape of the gates.
    thresholds
        Threshold of every gate for each budget, calibrated on held-out text.
    budget
        The budget to use where none is asked for.
    policy
        Who decides: ``learned``, or ``static`` or ``random`` where rates are fixed.
    guards
        Threshold of every gate for each limit, in nats a token over dense, that the guarded
        policy keeps to.
    rates
        For a policy of fixed rates, the rate of every site for each budget, instead of thresholds.
    adapters_of, adapters_sha256
        The model, by name or folder, whose adapters these gates share, and the SHA-256 of its
        file; empty where they have their own.
    """

    backbone: str
    backbone_sha256: str
    gates_sha256: str
    gates: GatedConfig
    thresholds: dict[str, float]
    budget: str
    policy: str = "learned"
    guards: dict[str, float] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    adapters_of: str = ""
    adapters_sha256: str = ""

    @property
    def budgets(self) -> list[str]:
        """The budgets that can be asked for."""
        return [*self.thresholds, *self.rates]

    @property
    def policies(self) -> list[str]:
        """The policies that can be asked for."""
        return [self.policy]

    def write(self, folder: Path) -> None:
        """Write ``skipviz.json``."""
        _write(folder, asdict(self))

    @classmethod
    def of(cls, fields: dict[str, Any]) -> GatedModelConfig:
        """Take the fields as read."""
        return cls(**{**fields, "gates": GatedConfig(**fields["gates"])})


@dataclass(frozen=True, kw_only=True)
class ExitModelConfig:
    """What is written beside the translators of early exits.

    Attributes
    ----------
    backbone, backbone_sha256, gates_sha256
        As of ``GatedModelConfig``; the last is of the translators.
    exits
        Where tokens may leave.
    thresholds
        For each rule, its threshold for each budget, calibrated on held-out text.
    budget, policy
        The budget and the rule to use where none is asked for.
    """

    backbone: str
    backbone_sha256: str
    gates_sha256: str
    exits: ExitConfig
    thresholds: dict[str, dict[str, float]]
    budget: str
    policy: str

    @property
    def budgets(self) -> list[str]:
        """The budgets that can be asked for."""
        return list(self.thresholds[self.policy])

    @property
    def policies(self) -> list[str]:
        """The policies that can be asked for."""
        return list(self.thresholds)

    def write(self, folder: Path) -> None:
        """Write ``skipviz.json``."""
        _write(folder, asdict(self))

    @classmethod
    def of(cls, fields: dict[str, Any]) -> ExitModelConfig:
        """Take the fields as read."""
        shape = {**fields["exits"], "exits": tuple(fields["exits"]["exits"])}
        return cls(**{**fields, "exits": ExitConfig(**shape)})


ModelConfig = GatedModelConfig | ExitModelConfig


def read_config(folder: Path) -> ModelConfig:
    """Read ``skipviz.json``.

    Raises
    ------
    ModelError
        If it is missing, is not JSON or lacks a field.
    """
    path = folder / CONFIG
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return ExitModelConfig.of(fields) if "exits" in fields else GatedModelConfig.of(fields)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path} is not the configuration of a gated model ({error}). Write the folder "
            "again with `skipviz train`, or point to another."
        ) from error


def learned_settings(folder: Path) -> GatedModelConfig:
    """Return what is written beside learned gates.

    Raises
    ------
    ValueError
        If the folder holds another policy.
    """
    settings = read_config(folder)
    if isinstance(settings, GatedModelConfig) and settings.thresholds:
        return settings
    raise InputError(f"{folder} has no learned gates; name a folder that has.")


def _write(folder: Path, fields: dict[str, Any]) -> None:
    (folder / CONFIG).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def samples_folder() -> Path:
    """Return the folder of sample models."""
    return Path(str(files("skipviz.sample_models")))


def model_folder(name: str | Path) -> Path:
    """Return the folder of a sample model by its name, or the folder named."""
    return sample_folders().get(str(name), Path(name))


def checked_gates(config: ModelConfig, folder: Path) -> Path:
    """Return the file of what learnt.

    Raises
    ------
    ModelError
        If it is missing, or not the one that ``config`` is of.
    """
    path = folder / GATES
    if not path.exists():
        raise ModelError(f"{path} is missing: the gates' weights go with {CONFIG}.")
    if sha256_of(path) != config.gates_sha256:
        raise ModelError(
            f"{path} is damaged or from another training run: its SHA-256 is not the one in "
            f"{CONFIG}. Fetch or train the model again."
        )
    return path


def checked_adapters(config: GatedModelConfig, folder: Path) -> Path:
    """Return the file of the adapters, which gates may share with another model.

    Raises
    ------
    ModelError
        If it is missing, or another than the gates were trained with.
    """
    if not config.adapters_of:
        return checked_gates(config, folder)
    path = model_folder(config.adapters_of) / GATES
    if not path.exists() or sha256_of(path) != config.adapters_sha256:
        raise ModelError(
            f"{folder.name} shares the adapters of {config.adapters_of}, and {path} is missing or "
            "another than it was trained with. Train or fetch both again."
        )
    return path


def sample_folders() -> dict[str, Path]:
    """Return the sample models by name."""
    return {path.parent.name: path.parent for path in sorted(samples_folder().glob(f"*/{CONFIG}"))}
