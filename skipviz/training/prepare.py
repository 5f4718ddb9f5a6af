"""What every run of training begins with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from skipviz.atomic import atomic_write
from skipviz.errors import InputError
from skipviz.families.gated.settings import learned
from skipviz.models import SkipModel, load, read_settings
from skipviz.parquet import check_regular_file
from skipviz.progress import Say
from skipviz.training.batch_order import batches
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher
from skipviz.training.windows import SOURCE_SHARES, training_windows

WINDOWS = "windows.safetensors"
LEAST_WINDOWS = 480
"""Made for any run, however short: what adapters are fitted on."""

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """What there is before anything is trained.

    Attributes
    ----------
    backbone_sha256
        Of the backbone's weights.
    teacher
        What the dense model says to the texts.
    windows
        Token ids of the texts.
    of_run
        The folder of the other run that they are of; empty for a run's own.
    batches
        Numbers of each step's windows.
    sources
        The share of each source in the windows, 0 to 1.
    """

    backbone_sha256: str
    teacher: Teacher
    windows: Int[Tensor, "n t"]
    of_run: str
    batches: Int[Tensor, "s b"]
    sources: dict[str, float]

    @property
    def about(self) -> dict[str, str]:
        """What a run that is taken up again must share with its beginning."""
        texts = hashlib.sha256(self.windows.numpy().tobytes())
        texts.update(self.batches.numpy().tobytes())
        return {
            "backbone": self.backbone_sha256,
            "windows": self.of_run,
            "texts": texts.hexdigest(),
        }


def prepare(run: TrainingRun, *, start: Path | None = None) -> Prepared:
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
        If the gates, or the texts of the other run, are of another backbone, or the folder holds
        texts that this run cannot be on.
    """
    if run.windows is not None and not (run.windows / WINDOWS).exists():
        raise InputError(
            f"There is no run in {run.windows} to take the windows of; name its folder."
        )
    dense = run.dense()
    if start is not None:
        begun = learned(read_settings(start), name=start)
        if begun.backbone_sha256 != dense.weights_sha256:
            raise InputError(
                f"The gates in {start} were made for {begun.backbone}, and {run.backbone} has "
                f"other weights; train them on with --backbone {begun.backbone}."
            )
    run.folder.mkdir(parents=True, exist_ok=True)
    run.say("Collecting texts")
    if run.windows is not None:
        windows, sources = _windows_of_another(dense, run.recipe, run.windows)
    else:
        windows, sources = _own_windows(dense, run.recipe, run.folder)
    states = f"{dense.weights_sha256[:12]}-{run.recipe.dtype}.f16"
    teacher = Teacher(dense.model, windows, (run.windows or run.folder) / states)
    # Windows that gates were trained on before come in another order, or each would meet the same
    # neighbour and, with budgets that alternate, the same budget again.
    order = batches(run.recipe, len(windows), shuffled=run.windows is not None)
    return Prepared(
        backbone_sha256=dense.weights_sha256,
        teacher=teacher,
        windows=windows,
        of_run="" if run.windows is None else str(run.windows.resolve()),
        batches=order,
        sources=sources,
    )


def _own_windows(
    dense: SkipModel, recipe: Recipe, folder: Path
) -> tuple[Int[Tensor, "n t"], dict[str, float]]:
    """Return the windows that a run has made, or make them."""
    path = folder / WINDOWS
    count = max(recipe.steps * recipe.batch, LEAST_WINDOWS)
    if path.exists():
        windows, about = _read_windows(dense, path)
        found = (*windows.shape, about.get("seed"))
        if found != (count, recipe.length + 1, str(recipe.seed)):
            raise InputError(
                f"{folder} holds {len(windows)} windows of {windows.shape[1] - 1} tokens, made "
                f"with seed {about.get('seed')}; this run is on {count} of {recipe.length}, with "
                f"seed {recipe.seed}. Resume it with the same, or train into another folder."
            )
        return windows, json.loads(about["sources"])
    windows = training_windows(
        dense.tokenizer,
        count=count,
        length=recipe.length + 1,
        seed=recipe.seed,
    )
    about = {
        "backbone": dense.weights_sha256,
        "seed": str(recipe.seed),
        "sources": json.dumps(SOURCE_SHARES),
    }
    with atomic_write(path) as partial:
        partial.write_bytes(save({"windows": windows.contiguous()}, metadata=about))
    return windows, SOURCE_SHARES


def _windows_of_another(
    dense: SkipModel, recipe: Recipe, folder: Path
) -> tuple[Int[Tensor, "n t"], dict[str, float]]:
    windows, about = _read_windows(dense, folder / WINDOWS)
    if windows.shape[1] != recipe.length + 1:
        raise InputError(
            f"{folder} holds windows of {windows.shape[1] - 1} tokens; this run needs some of "
            f"{recipe.length}. Ask for that length, or train on windows of its own."
        )
    return windows, json.loads(about["sources"])


def _read_windows(dense: SkipModel, path: Path) -> tuple[Int[Tensor, "n t"], dict[str, str]]:
    try:
        check_regular_file(path)
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            windows: Tensor = file.get_tensor("windows")
    except (SafetensorError, InputError, OSError) as error:
        raise InputError(
            f"The windows in {path} cannot be read ({error!s:.200}). Name the folder of another "
            "run, or train into another folder."
        ) from error
    if windows.ndim != 2 or windows.is_floating_point() or not windows.numel():
        raise InputError(
            f"{path} holds {windows.dtype} of shape {tuple(windows.shape)}, not windows of token "
            "ids. Name the folder of another run, or train into another folder."
        )
    if about.get("backbone") != dense.weights_sha256:
        raise InputError(
            f"The windows in {path.parent} are token ids of another backbone than {dense.name}; "
            "train on windows of its own."
        )
    if "sources" not in about:
        raise InputError(
            f"The windows in {path.parent} do not say which texts they are of, as those of an "
            "earlier version; train on windows of its own."
        )
    return windows, about
