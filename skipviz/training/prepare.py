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
from skipviz.training.order import batches
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher
from skipviz.training.windows import SHARES, training_windows
from skipviz.written import written

WARM_START_WINDOWS = 480
WARM_START_BATCH = 8

Say = Callable[[str], None]
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What every run of training is given.

    Attributes
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe
        How to train.
    folder
        Where checkpoints, log and the finished model go; an interrupted run is taken up from it.
    device
        A torch device.
    windows
        The folder of another run whose training windows are to be used, with what the dense model
        said to them, in another order and as often as the steps need; new ones are made if there
        is none.
    say, report
        Called with a sentence before each stage, and with the figures of each step.
    """

    backbone: str
    recipe: Recipe
    folder: Path
    device: str
    windows: Path | None
    say: Say
    report: Report

    def dense(self) -> SkipModel:
        """Return the backbone, as it is trained with."""
        return load(self.backbone, dtype=self.recipe.dtype, device=self.device)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What there is before anything is trained."""

    backbone_sha256: str
    teacher: Teacher
    """What the dense model says to the texts."""
    windows: torch.Tensor
    batches: torch.Tensor
    """Numbers of each step's windows."""
    sources: dict[str, float]
    """The share of each source in the windows, 0 to 1."""


def prepare(run: Run, *, start: Path | None = None) -> Prepared:
    """Return texts, and what the backbone says to them.

    Parameters
    ----------
    run
        The run.
    start
        A folder of gates that must be of this backbone.

    Raises
    ------
    ValueError
        If the gates, or the texts of the other run, are of another backbone, or these are of
        another length.
    """
    if run.windows is not None and not run.windows.is_dir():
        raise ValueError(
            f"There is no run in {run.windows} to take the windows of; name its folder."
        )
    dense = run.dense()
    if start is not None:
        begun = learned_settings(start)
        if begun.backbone_sha256 != dense.weights_sha256:
            raise ValueError(
                f"The gates in {start} were made for {begun.backbone}, and {run.backbone} has "
                f"other weights; train them on with --backbone {begun.backbone}."
            )
    run.folder.mkdir(parents=True, exist_ok=True)
    kept = run.windows or run.folder
    run.say("Collecting texts")
    texts, sources = _windows(dense, run.recipe, kept)
    states = f"{dense.weights_sha256[:12]}-{run.recipe.dtype}.f16"
    teacher = Teacher(dense.model, texts, kept / states)
    # Windows that gates were trained on before come in another order, or each would meet the same
    # neighbour and, with budgets that alternate, the same budget again.
    order = batches(run.recipe, len(texts), shuffled=run.windows is not None)
    return Prepared(dense.weights_sha256, teacher, texts, order, sources)


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
        if made.shape[1] != recipe.length + 1:
            raise ValueError(
                f"{folder} holds windows of {made.shape[1] - 1} tokens; this run needs some of "
                f"{recipe.length}. Ask for that length, or train on windows of its own."
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
