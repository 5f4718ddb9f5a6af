"""Tiny models written to disk, as ``skipviz train`` would leave them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

import skipviz
from skipviz.budgets import Budgets
from skipviz.families.gated.modules import gate_parameters
from skipviz.families.gated.settings import GatedSettings
from skipviz.folders import WEIGHTS
from skipviz.home import sha256_of
from tests import tiny


def write_gated(folder: Path, *, backbone: Path) -> Path:
    """Write the gates of ``tiny.gated(seed=0)`` for the folder of ``tiny.backbone(seed=0)``."""
    folder.mkdir()
    parameters = gate_parameters(tiny.gated(seed=0))
    save_file({name: value.detach() for name, value in parameters.items()}, folder / WEIGHTS)
    GatedSettings(
        backbone=str(backbone),
        backbone_sha256=skipviz.load(backbone).weights_sha256,
        gates_sha256=sha256_of(folder / WEIGHTS),
        gates=tiny.GATES,
        thresholds=Budgets({0.8: 0.0, 0.6: 0.5}),
        budget=0.8,
        policy="learned",
    ).write(folder)
    return folder
