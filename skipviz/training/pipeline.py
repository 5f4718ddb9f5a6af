"""What the lines of several objectives have in common, between ``prepare`` and ``finish``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from skipviz.families.gated.modules import gated_units
from skipviz.families.gated.settings import GatedSettings, learned
from skipviz.families.gated.weights import read_gates
from skipviz.families.settings import checked_weights
from skipviz.models import read_settings
from skipviz.schema import site_label
from skipviz.training.collapse import CollapseWatch
from skipviz.training.loop import CHANGEABLE, Objective, train
from skipviz.training.prepare import LEAST_WINDOWS, Prepared, TrainingRun
from skipviz.training.warmstart import fit_adapters

WARM_START_BATCH = 8


def fit(
    run: TrainingRun,
    student: Any,
    prepared: Prepared,
    *,
    what: str = "adapters",
    by: Callable[..., None] = fit_adapters,
) -> None:
    """Set what learns to what regression finds on the first windows, and say so."""
    run.say(f"Fitting {what}")
    by(student, prepared.windows[:LEAST_WINDOWS], batch=WARM_START_BATCH)


def learned_settings(start: Path) -> GatedSettings:
    """Return what is written beside learned gates; ``InputError`` for any other folder."""
    return learned(read_settings(start), name=start)


def read_start(student: Any, start: Path) -> Path:
    """Read the gates and adapters of a folder of learned gates; return the adapters' file."""
    settings = learned_settings(start)
    adapters = settings.adapters_file(start)
    read_gates(student, checked_weights(settings, start), adapters=adapters)
    return adapters


def collapse_watch(run: TrainingRun, student: Any) -> CollapseWatch:
    """Return what stops a run when a gate of the student collapses."""
    labels = [site_label(layer, unit, 0) for layer, unit, _ in gated_units(student)]
    return CollapseWatch(labels, steps=run.recipe.collapse_after)


def trained(
    run: TrainingRun,
    prepared: Prepared,
    objective: Objective,
    *,
    name: str,
    about: Mapping[str, Any],
    changeable: Collection[str] = CHANGEABLE,
) -> dict[str, Any]:
    """Train, from a checkpoint if there is one, and return what ``train`` returns.

    Parameters
    ----------
    run, prepared, objective
        The run, what it began with, and what it makes smaller.
    name
        The objective's, by which it is recorded.
    about
        What else the run depends on; it is resumed only with the same.
    changeable
        What of the recipe may be another when it is resumed.
    """
    run.say("Training")
    return train(
        objective,
        recipe=run.recipe,
        folder=run.folder,
        report=run.report,
        about={"objective": name, **prepared.about, **about},
        changeable=changeable,
    )
