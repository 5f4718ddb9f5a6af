"""Tiny models written to disk, as ``skipviz train`` would leave them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

import skipviz
from skipviz.families.gated.modules import gate_parameters
from skipviz.home import sha256_of
from skipviz.models.samples import GATES, GatedModelConfig
from tests import tiny


def write_gated(folder: Path, *, backbone: Path) -> Path:
    """Write the gates of ``tiny.gated(seed=0)`` for the folder of ``tiny.backbone(seed=0)``."""
    folder.mkdir()
    parameters = gate_parameters(tiny.gated(seed=0))
    save_file({name: value.detach() for name, value in parameters.items()}, folder / GATES)
    GatedModelConfig(
        backbone=str(backbone),
        backbone_sha256=skipviz.load(backbone).weights_sha256,
        gates_sha256=sha256_of(folder / GATES),
        gates=tiny.GATES,
        thresholds={"0.8": 0.0, "0.6": 0.5},
        budget="0.8",
    ).write(folder)
    return folder
