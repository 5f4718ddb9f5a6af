"""The same model as it would be without gates, masked and gathered, on one set of weights."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from skipviz.errors import InputError, ModelError
from skipviz.families import known_family
from skipviz.families.powers import CanFlip, CanGather
from skipviz.models import SkipModel, load
from skipviz.models.handle import Runtime, sharing_weights
from skipviz.models.runtimes import with_runtime


def runtimes_of(model: SkipModel) -> tuple[dict[str, SkipModel], dict[str, str]]:
    """Return the handles to time, by name of the runtime, and why others are missing.

    Parameters
    ----------
    model
        Any model.

    Returns
    -------
    tuple
        ``dense``, ``masked`` and ``gathered``, those of them that the model has, in this order; and
        a sentence for each that it has not. A model without gates is ``dense`` alone. One of a
        family without runtimes to choose from runs by its own forward: ``gathered`` where all its
        sites say that they compute nothing that is skipped, else ``masked``.
    """
    if not model.family.sites(model.model):
        return {"dense": model}, {}
    found: dict[str, SkipModel] = {}
    missing: dict[str, str] = {}
    try:
        found["dense"] = without_gates(model)
    except (InputError, ModelError) as error:
        missing["dense"] = str(error)
    if not isinstance(model.family, CanGather):
        return found | {_own_runtime(model, missing): model}, missing
    found["masked"] = with_runtime(model, "masked")
    try:
        found["gathered"] = with_runtime(model, "gathered")
    except (InputError, ModelError) as error:
        missing["gathered"] = str(error)
    return found, missing


def _own_runtime(model: SkipModel, missing: dict[str, str]) -> Runtime:
    """Return as what a model's own forward counts, and say what it has not."""
    said = {site.computed_anyway for site in model.family.sites(model.model)}
    family = f"{model.name} is of the family {model.family.name}"
    if said == {False}:
        missing["masked"] = f"{family}, whose own forward computes only what is not skipped."
        return "gathered"
    missing["gathered"] = f"{family}, whose units cannot be run for some tokens alone."
    if True not in said:
        missing["masked"] = (
            f"{family}, of which it is not known whether what is skipped is computed; its own "
            "forward is shown as masked."
        )
    elif said != {True}:
        missing["masked"] = (
            f"{family}, which computes what is skipped at some of its sites, not known to at "
            "others; its own forward is shown as masked."
        )
    return "masked"


def without_gates(model: SkipModel) -> SkipModel:
    """Return the dense model that a skipping model stands on.

    Where gates decide on single units, it is the same weights without them; otherwise the backbone
    is loaded.

    Raises
    ------
    InputError
        If the model does not say what it stands on.
    ModelError
        If its backbone cannot be loaded.
    """
    if isinstance(model.family, CanFlip):
        return _named(model, _unwrapped(model))
    if model.settings is None:
        raise InputError(
            f"What {model.name} would be without gates is unknown: its family, "
            f"{model.family.name}, cannot take them off, and it names no backbone to load."
        )
    return load(model.settings.backbone, dtype=model.dtype, device=str(model.device))


def _unwrapped(model: SkipModel) -> nn.Module:
    own = sharing_weights(model.model)
    assert isinstance(model.family, CanFlip)
    units = {unit.module: unit.dense for unit in model.family.units(own)}
    for parent in list(own.modules()):
        for name, child in list(parent.named_children()):
            if child in units:
                setattr(parent, name, units[child])
    return own


def _named(model: SkipModel, own: nn.Module) -> SkipModel:
    return replace(
        model,
        name=f"{model.name} without gates",
        model=own,
        family=known_family(own),
        budget=None,
        limit=None,
        policy="dense",
        settings=None,
        setting=None,
        runtime="masked",
    )
