"""What every run of training ends with: a folder that ``skipviz.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from skipviz.evaluation.calibration import calibrate
from skipviz.evaluation.card import TRAINING
from skipviz.families.gated.modules import GatedConfig, install_gates
from skipviz.home import sha256_of
from skipviz.models import SkipModel, from_parts
from skipviz.models.gate_weights import read_gates
from skipviz.models.samples import GATES, GatedModelConfig, sample_folders
from skipviz.text.documents import Document
from skipviz.training.loop import LR_FLOOR
from skipviz.training.prepare import Prepared, Run
from skipviz.training.recipe import PRICE_GAINS

UNUSED = {
    "cost": (),
    "policy-gradient": ("adapter_lr", "kl_weight", "ce_weight", "descent", "price_gains"),
    "fixed": ("gate_lr", "descent", "price", "price_gains", "collapse_after"),
    "exit": ("gate_lr", "descent", "price", "price_gains", "collapse_after"),
}
"""What an objective does not look at: a record of it would say what was not done."""


def made_folder(run: Run) -> Path:
    """Return the folder of a run's finished model."""
    made = run.folder / "model"
    made.mkdir(exist_ok=True)
    return made


def describe(
    made: Path,
    run: Run,
    *,
    backbone_sha256: str,
    config: GatedConfig,
    thresholds: dict[str, float] | None = None,
    rates: dict[str, list[float]] | None = None,
    owned: Path | None = None,
) -> None:
    """Write ``skipviz.json``; ``owned`` is the file of another model whose adapters are shared."""
    shared = ""
    if owned is not None:
        owner = owned.parent.resolve()
        names = {path.resolve(): name for name, path in sample_folders().items()}
        shared = names.get(owner, str(owner))
    fixed = rates or {}
    static = all(rate in (0, 1) for each in fixed.values() for rate in each)
    GatedModelConfig(
        backbone=run.backbone,
        backbone_sha256=backbone_sha256,
        gates_sha256=sha256_of(made / GATES),
        gates=config,
        thresholds=thresholds or {},
        budget=f"{run.recipe.budget:g}",
        policy="learned" if not fixed else "static" if static else "random",
        rates=fixed,
        adapters_of=shared,
        adapters_sha256="" if owned is None else sha256_of(owned),
    ).write(made)


def document(
    made: Path,
    run: Run,
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


def calibrated(
    dense: SkipModel,
    gates: Path,
    config: GatedConfig,
    texts: Sequence[Document],
    starts: Mapping[float, float],
    *,
    adapters: Path | None = None,
) -> dict[str, float]:
    """Return thresholds for the gates as written, in bfloat16, of the budgets in ``starts``."""
    install_gates(dense.model, config)
    read_gates(dense.model, gates, rates={}, adapters=adapters)
    gated = replace(from_parts(dense.model, dense.tokenizer), name=gates.parent.name)
    return {
        f"{budget:g}": calibrate(gated, texts, budget=budget, start=start)
        for budget, start in starts.items()
    }
