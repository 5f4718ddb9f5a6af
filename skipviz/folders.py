"""Where models are: the sample models that come with skipviz, by name, and folders of one's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

CONFIG = "skipviz.json"
"""What makes a folder that of a model that skips."""
WEIGHTS = "gates.safetensors"
"""What was trained for it: gates, adapters, translators."""
OWN_FILE = "thresholds.json"
"""Thresholds for kinds of text that a user named."""
FIRST = "smollm2-gated"
"""The sample model that is taken where none is named: every page works with its gates."""
BACKBONE = "smollm2-135m"
"""The dense model under the sample models."""


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; a path that cannot be one, as too long, is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def samples_folder() -> Path:
    """Return the folder of sample models."""
    return Path(str(files("skipviz.sample_models")))


def sample_folders() -> dict[str, Path]:
    """Return the folders of the sample models by name."""
    return {path.parent.name: path.parent for path in sorted(samples_folder().glob(f"*/{CONFIG}"))}


def model_folder(name: str | Path) -> Path:
    """Return the folder of a sample model by its name, or the folder named."""
    return sample_folders().get(str(name), Path(name))
