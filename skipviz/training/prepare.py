"""What every run of training begins with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from skipviz.models import SkipModel, load
from skipviz.models.samples import learned_settings
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher
from skipviz.training.windows import SHARES, training_windows
from skipviz.written import written

WARM_START_WINDOWS = 480
WARM_START_BATCH = 8

Say = Callable[[str], None]
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What there is before anything is trained."""

    backbone_sha256: str
    teacher: Teacher
    """What the dense model says to the texts."""
    windows: torch.Tensor
    sources: dict[str, float]
    """The share of each source in the windows, 0 to 1."""


def prepare(
    backbone: str,
    recipe: Recipe,
    folder: Path,
    windows: Path | None,
    device: str,
    say: Say,
    *,
    start: Path | None = None,
) -> Prepared:
    """Return backbone, texts and what the one says to the others.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe
        How many texts, how long, and the type to run in.
    folder
        The folder of the run.
    windows
        The folder of another run whose texts are to be used; new ones are made if there is none.
    device
        A torch device.
    say
        Called with a sentence before what takes long.
    start
        A folder of gates that must be of this backbone.

    Raises
    ------
    ValueError
        If the gates, or the texts of the other run, are of another backbone, or these are too few.
    """
    if windows is not None and not windows.is_dir():
        raise ValueError(f"There is no run in {windows} to take the windows of; name its folder.")
    dense = load(backbone, dtype=recipe.dtype, device=device)
    if start is not None:
        begun = learned_settings(start)
        if begun.backbone_sha256 != dense.weights_sha256:
            raise ValueError(
                f"The gates in {start} were made for {begun.backbone}, and {backbone} has other "
                f"weights; train them on with --backbone {begun.backbone}."
            )
    folder.mkdir(parents=True, exist_ok=True)
    kept = windows or folder
    say("Collecting texts")
    texts, sources = _windows(dense, recipe, kept)
    states = f"{dense.weights_sha256[:12]}-{recipe.dtype}.f16"
    teacher = Teacher(dense.model, texts, kept / states)
    return Prepared(dense.weights_sha256, teacher, texts, sources)


def _windows(
    dense: SkipModel, recipe: Recipe, folder: Path
) -> tuple[torch.Tensor, dict[str, float]]:
    path = folder / "windows.safetensors"
    count = max(recipe.steps * recipe.batch, WARM_START_WINDOWS)
    if path.exists():
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            made: torch.Tensor = file.get_tensor("windows")
        if about.get("backbone") != dense.weights_sha256:
            raise ValueError(
                f"The windows in {folder} are token ids of another backbone than {dense.name}; "
                "train on windows of its own."
            )
        if "sources" not in about:
            raise ValueError(
                f"The windows in {folder} do not say which texts they are of, as those of an "
                "earlier version; train on windows of its own."
            )
        if len(made) < count or made.shape[1] != recipe.length + 1:
            raise ValueError(
                f"{folder} holds {len(made)} windows of {made.shape[1] - 1} tokens; this run needs "
                f"{count} of {recipe.length}. Train fewer steps, or on windows of its own."
            )
        return made, json.loads(about["sources"])
    windows = training_windows(
        dense.model,
        dense.tokenizer,
        count=count,
        length=recipe.length + 1,
        seed=recipe.seed,
    )
    with written(path) as partial:
        save_file(
            {"windows": windows.contiguous()},
            partial,
            metadata={"backbone": dense.weights_sha256, "sources": json.dumps(SHARES)},
        )
    return windows, SHARES
