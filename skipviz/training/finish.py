"""What every run of training ends with: a folder that ``skipviz.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from skipviz.budgets import Budgets
from skipviz.evaluation.calibration import calibrate
from skipviz.evaluation.card import TRAINING
from skipviz.families.gated.modules import GatedConfig, install_gates
from skipviz.families.gated.weights import read_gates
from skipviz.folders import WEIGHTS, sample_folders
from skipviz.home import sha256_of
from skipviz.models import SkipModel, from_parts
from skipviz.text.documents import Document
from skipviz.training.loop import LR_FLOOR
from skipviz.training.prepare import Prepared, TrainingRun
from skipviz.training.recipe import PRICE_GAINS

UNUSED = {
    "cost": (),
    "policy-gradient": ("adapter_lr", "kl_weight", "ce_weight", "descent", "price_gains"),
    "fixed": ("gate_lr", "descent", "price", "price_gains", "collapse_after"),
    "exit": ("gate_lr", "descent", "price", "price_gains", "collapse_after"),
}
"""What an objective does not look at: a record of it would say what was not done."""


def made_folder(run: TrainingRun) -> Path:
    """Return the folder of a run's finished model."""
    made = run.folder / "model"
    made.mkdir(exist_ok=True)
    return made


def document(
    made: Path,
    run: TrainingRun,
    objective: str,
    *,
    begun: dict[str, Any],
    start: Path | None = None,
    prepared: Prepared,
    tokens_a_step: int | None = None,
) -> None:
    """Write the recipe, behind those of the runs that the gates started from.

    Parameters
    ----------
    made, run, prepared
        The folder of the model, the run and what it began with.
    objective
        One of ``UNUSED``.
    begun
        What else there is to say of the run, before what the recipe says of it: what ``train``
        returned.
    start
        The folder of gates that it started from.
    tokens_a_step
        Those whose predictions are compared; all of a step's if not given.
    """
    before = start / TRAINING if start is not None else None
    runs = json.loads(before.read_text("utf-8")) if before is not None and before.exists() else []
    recipe = run.recipe
    tokens = recipe.steps * (tokens_a_step or recipe.batch * recipe.length)
    settings = {
        **asdict(recipe),
        **begun,
        "price_gains": PRICE_GAINS,
        "lr_floor": LR_FLOOR,
        "training_tokens": tokens,
        "distinct_windows": len(prepared.batches.unique()),
        "texts_sha256": prepared.about["texts"],
        "sources": prepared.sources,
    }
    used = {name: value for name, value in settings.items() if name not in UNUSED[objective]}
    runs.append({"objective": objective, **used})
    (made / TRAINING).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def about_run(made: Path, run: TrainingRun, prepared: Prepared) -> dict[str, Any]:
    """Return what the settings of every trained model begin with, but for its policy."""
    return {
        "backbone": run.backbone,
        "backbone_sha256": prepared.backbone_sha256,
        "gates_sha256": sha256_of(made / WEIGHTS),
        "budget": run.recipe.budget,
    }


def shared_with(owned: Path | None) -> dict[str, Any]:
    """Return whose adapters gates share, as fields of their settings; none if they have their own.

    ``owned`` is the file of adapters that another model owns.
    """
    if owned is None:
        return {}
    owner = owned.parent.resolve()
    names = {path.resolve(): name for name, path in sample_folders().items()}
    return {"adapters_of": names.get(owner, str(owner)), "adapters_sha256": sha256_of(owned)}


def calibrated(
    dense: SkipModel,
    gates: Path,
    config: GatedConfig,
    texts: Sequence[Document],
    starts: Mapping[float, float],
    *,
    adapters: Path | None = None,
) -> Budgets[float]:
    """Return thresholds for the gates as written, in bfloat16, of the budgets in ``starts``."""
    install_gates(dense.model, config)
    read_gates(dense.model, gates, adapters=adapters)
    gated = replace(from_parts(dense.model, dense.tokenizer), name=gates.parent.name)
    return Budgets(
        {
            budget: calibrate(gated, texts, budget=budget, start=start)
            for budget, start in starts.items()
        }
    )
