"""Training from texts to a folder that ``skipviz.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from skipviz.analysis.cost import execution_rates
from skipviz.experiments.calibrate import EXIT_TEXTS, calibrate, calibrate_exits
from skipviz.experiments.card import CURVE, TRAINING
from skipviz.families.exit_modules import (
    EXIT_RULES,
    ExitConfig,
    exit_parameters,
    install_exits,
)
from skipviz.families.fixed import install_rates
from skipviz.families.gated_modules import GatedConfig, gated_units, install_gates
from skipviz.home import sha256_of
from skipviz.models import SkipModel, from_parts, load
from skipviz.models.gate_weights import read_adapters, read_gates, write_gates
from skipviz.models.load import at_budget
from skipviz.models.samples import (
    GATES,
    ExitModelConfig,
    GatedModelConfig,
    ModelConfig,
    adapters_file,
    learned_settings,
    sample_folders,
)
from skipviz.recording.tracing import trace
from skipviz.schema import site_label
from skipviz.texts import Document
from skipviz.training.collapse import CollapseWatch
from skipviz.training.cost import PRICE_GAINS, CostSteering
from skipviz.training.distillation import Distillation
from skipviz.training.exits import Translation, fit_translators
from skipviz.training.fixed import FixedSteering
from skipviz.training.loop import CHECKPOINT, LOG, LR_FLOOR, train
from skipviz.training.policy_gradient import PolicyGradient
from skipviz.training.recipe import Recipe
from skipviz.training.selection import (
    block_influence,
    greedy_order,
    lifted,
    rates_of,
    site_savings,
)
from skipviz.training.teacher import Teacher
from skipviz.training.warmstart import fit_adapters
from skipviz.training.windows import SHARES, training_windows
from skipviz.written import written

WARM_START_WINDOWS = 480
WARM_START_BATCH = 8

GREEDY_WINDOWS = 8

Say = Callable[[str], None]
Report = Callable[[dict[str, float]], None]
Choice = Callable[[Any, torch.Tensor], dict[str, list[float]]]


def train_gates(
    backbone: str,
    *,
    recipe: Recipe,
    config: GatedConfig,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    start: Path | None = None,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train gates for a backbone; an interrupted run of the same folder is taken up again.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe, config
        How to train, and the shape of the gates.
    calibration
        Texts to calibrate the thresholds on.
    folder
        Where checkpoints, log and the finished model go.
    device
        A torch device.
    start
        A folder of gates to train on; fresh gates and fitted adapters if there is none.
    windows
        The folder of another run whose training windows are to be used, with what the dense model
        said to them; new ones are made if there is none.
    say, report
        Called with a sentence before each stage, and with the figures of each step.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``.
    """
    sha256, teacher, texts = _prepare(backbone, recipe, folder, windows, device, say, start=start)
    torch.manual_seed(recipe.seed)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_gates(student, config)
    if start is not None:
        owned = adapters_file(learned_settings(start), start)
        read_gates(student, start / GATES, rates={}, adapters=owned)
    elif not (folder / CHECKPOINT).exists():
        say("Fitting adapters")
        fit_adapters(student, texts[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    say("Training")
    steering = CostSteering(recipe)
    labels = [site_label(layer, unit, 0) for layer, unit, _ in gated_units(student)]
    objective = Distillation(
        student, teacher, texts, recipe=recipe, config=config, steering=steering,
        watch=CollapseWatch(labels, steps=recipe.collapse_after),
    )  # fmt: skip
    begun = "" if start is None else sha256_of(start / GATES)
    about = {"objective": "cost", "backbone": sha256, "start": begun, **asdict(config)}
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = _made(folder)
    write_gates(student, made / GATES, rates={})
    say("Calibrating thresholds")
    starts = {budget: steering.threshold(budget) for budget in recipe.budgets}
    thresholds = _calibrated(load(backbone), made / GATES, config, calibration, starts)
    _describe(made, backbone, sha256, recipe, config=config, thresholds=thresholds)
    _document(made, recipe, start)
    return made


def train_fixed(
    backbone: str,
    *,
    recipe: Recipe,
    config: GatedConfig,
    choose: Choice,
    chosen_by: str,
    folder: Path,
    device: str,
    start: Path | None = None,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train adapters for a policy of fixed rates; an interrupted run is taken up again.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe, config
        How to train, and the shape of the units; ``config.gate_hidden`` is 0.
    choose
        Returns the rates of every site for each budget, from the model with fitted adapters and
        the training windows.
    chosen_by
        The choice in words; a run is resumed only with the same.
    start
        A folder of learned gates whose adapters to start from, so that both have seen as many
        tokens; fitted adapters if there is none.
    folder, device, windows, say, report
        As for ``train_gates``.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``.
    """
    sha256, teacher, texts = _prepare(backbone, recipe, folder, windows, device, say, start=start)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_rates(student, config, seed=recipe.seed)
    fitted, chosen = folder / "fitted.safetensors", folder / "rates.json"
    if fitted.exists():
        read_gates(student, fitted, rates={})
    else:
        if start is not None:
            read_adapters(student, adapters_file(learned_settings(start), start))
        else:
            say("Fitting adapters")
            fit_adapters(student, texts[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
        write_gates(student, fitted, rates={})
        read_gates(student, fitted, rates={})  # rounded, as a resumed run finds them
    if not chosen.exists():
        say("Choosing sites")
        made_rates = {"by": chosen_by, "rates": choose(student, texts)}
        with written(chosen) as partial:
            partial.write_text(json.dumps(made_rates), encoding="utf-8")
    known = json.loads(chosen.read_text(encoding="utf-8"))
    rates = known["rates"]
    if known["by"] != chosen_by or list(rates) != [f"{b:g}" for b in recipe.budgets]:
        raise ValueError(
            f"The sites in {folder} were chosen {known['by']} for budgets {', '.join(rates)}. "
            "Resume with the same, or train into another folder."
        )
    say("Training")
    objective = Distillation(
        student, teacher, texts, recipe=recipe, config=config,
        steering=FixedSteering(recipe, rates),
    )  # fmt: skip
    begun = "" if start is None else sha256_of(start / GATES)
    about = {
        "objective": "fixed", "backbone": sha256, "rates": rates, "start": begun, **asdict(config)
    }  # fmt: skip
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = _made(folder)
    write_gates(student, made / GATES, rates=rates)
    _describe(made, backbone, sha256, recipe, config=config, rates=rates)
    _document(made, recipe, start)
    return made


def train_policy(
    backbone: str,
    *,
    recipe: Recipe,
    temperature: float,
    start: Path,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train gates on by policy gradient; an interrupted run is taken up again.

    Parameters
    ----------
    backbone
        Name or path of the dense model.
    recipe
        How to train; its budgets are among those of ``start``.
    temperature
        Width of the policy's indecision, on the scale of the score.
    start
        A folder of learned gates.
    calibration
        Texts to calibrate the thresholds on.
    folder, device, windows, say, report
        As for ``train_gates``.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``; the figures of every step are in
        it, in ``learning_curve.csv``.
    """
    settings = learned_settings(start)
    lacking = [f"{b:g}" for b in recipe.budgets if f"{b:g}" not in settings.thresholds]
    if lacking:
        raise ValueError(
            f"{start} has no threshold for budget {', '.join(lacking)}; there are "
            f"{', '.join(settings.thresholds)}."
        )
    begun = {budget: settings.thresholds[f"{budget:g}"] for budget in recipe.budgets}
    sha256, _, texts = _prepare(backbone, recipe, folder, windows, device, say, start=start)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_gates(student, settings.gates)
    owned = adapters_file(settings, start)
    read_gates(student, start / GATES, rates={}, adapters=owned)
    objective = PolicyGradient(
        student, texts, recipe=recipe, config=settings.gates, temperature=temperature,
        thresholds=begun,
    )  # fmt: skip
    say("Training")
    about = {
        "objective": "policy-gradient", "backbone": sha256, "temperature": temperature,
        "start": sha256_of(start / GATES), "thresholds": list(begun.values()),
    }  # fmt: skip
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = _made(folder)
    write_gates(student, made / GATES, rates={}, adapters=False)
    say("Calibrating thresholds")
    thresholds = _calibrated(
        load(backbone), made / GATES, settings.gates, calibration, begun, adapters=owned
    )
    _describe(
        made, backbone, sha256, recipe, config=settings.gates, thresholds=thresholds, owned=owned
    )
    _document(made, recipe, start, extra={"temperature": temperature})
    pl.read_ndjson(folder / LOG).drop("seconds").write_csv(made / CURVE, float_precision=5)
    return made


def train_exits(
    backbone: str,
    *,
    recipe: Recipe,
    config: ExitConfig,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train the translators of early exits; an interrupted run is taken up again.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe, config
        How to train, and where tokens may leave.
    calibration
        Texts to calibrate the thresholds of every rule on.
    folder, device, windows, say, report
        As for ``train_gates``.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``.
    """
    sha256, teacher, texts = _prepare(backbone, recipe, folder, windows, device, say)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_exits(student, config)
    for parameter in exit_parameters(student).values():
        parameter.requires_grad_(True)
    if not (folder / CHECKPOINT).exists():
        say("Fitting translators")
        fit_translators(student, texts[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    say("Training")
    objective = Translation(student, teacher, texts, recipe=recipe)
    about = {"objective": "exit", "backbone": sha256, **asdict(config)}
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = _made(folder)
    write_gates(student, made / GATES, rates={})
    say("Calibrating thresholds")
    dense = load(backbone)
    install_exits(dense.model, config)
    read_gates(dense.model, made / GATES, rates={})
    ready = replace(from_parts(dense.model, dense.tokenizer), name=made.name)
    thresholds: dict[str, dict[str, float]] = {
        rule: calibrate_exits(ready, calibration[::EXIT_TEXTS], rule, recipe.budgets)
        for rule in EXIT_RULES
    }
    # A rule may reach none of the budgets asked for, and patience may save nothing.
    thresholds = {rule: levels for rule, levels in thresholds.items() if levels}
    if not thresholds:
        raise ValueError(
            f"No rule of these exits meets a budget of {', '.join(map(str, recipe.budgets))}. The "
            f"translators are in {made}; ask for other budgets, or for more exits."
        )
    policy = next(iter(thresholds))
    budget = f"{recipe.budget:g}"
    ExitModelConfig(
        backbone=backbone,
        backbone_sha256=sha256,
        gates_sha256=sha256_of(made / GATES),
        exits=config,
        thresholds=thresholds,
        budget=budget if budget in thresholds[policy] else next(iter(thresholds[policy])),
        policy=policy,
    ).write(made)
    _document(made, recipe, None)
    return made


def static_choice(
    how: str, recipe: Recipe, config: GatedConfig, *, length: int, say: Say
) -> Choice:
    """Return a choice of sites to drop for every token, by ``block-influence`` or ``greedy``.

    ``length`` is that of the texts which are to meet the budgets.
    """

    def choose(student: Any, windows: torch.Tensor) -> dict[str, list[float]]:
        savings = site_savings(student, config, length=length)
        if how == "greedy":
            order = greedy_order(
                student, windows[:GREEDY_WINDOWS], savings=savings, budget=min(recipe.budgets),
                report=lambda site, loss: say(f"Dropped site {site}: loss {loss:.3f}"),
            )  # fmt: skip
        else:
            influence = block_influence(student, windows[:WARM_START_WINDOWS])
            order = sorted(range(len(influence)), key=lambda site: influence[site])
        return {f"{b:g}": rates_of(order, savings, b) for b in recipe.budgets}

    return choose


def matched_choice(
    model: str | Path,
    recipe: Recipe,
    config: GatedConfig,
    texts: Sequence[Document],
    *,
    length: int,
) -> Choice:
    """Return the rates at which another model's gates execute each site, at equal budget.

    ``length`` is that of the texts which are to meet the budgets.
    """
    like = load(model)
    for budget in recipe.budgets:
        at_budget(like, budget)  # says now, and not after an hour, which budgets there are
    if like.settings is None or _layers(like.settings) != _layers(config):
        raise ValueError(
            f"{model} does not gate layers {config.first_layer} to {config.last_layer}, as the "
            "random policy is to; name gates of this backbone with --like."
        )

    def choose(student: Any, windows: torch.Tensor) -> dict[str, list[float]]:
        savings = site_savings(student, config, length=length)
        rates = {}
        for budget in recipe.budgets:
            seen = trace(at_budget(like, budget), texts, statistics=False)
            matched = execution_rates(seen)["rate"].to_list()
            rates[f"{budget:g}"] = lifted(matched, savings, budget)
        return rates

    return choose


def _prepare(
    backbone: str,
    recipe: Recipe,
    folder: Path,
    windows: Path | None,
    device: str,
    say: Say,
    *,
    start: Path | None = None,
) -> tuple[str, Teacher, torch.Tensor]:
    """Return the backbone's hash, what it says to the training windows, and these."""
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
    texts = _windows(dense, recipe, kept)
    states = f"{dense.weights_sha256[:12]}-{recipe.dtype}.f16"
    return dense.weights_sha256, Teacher(dense.model, texts, kept / states), texts


def _layers(described: GatedConfig | ModelConfig) -> tuple[int, int] | None:
    """Return the first and the last gated layer."""
    gates = described.gates if isinstance(described, GatedModelConfig) else described
    return (gates.first_layer, gates.last_layer) if isinstance(gates, GatedConfig) else None


def _made(folder: Path) -> Path:
    """Return the folder of a run's finished model."""
    made = folder / "model"
    made.mkdir(exist_ok=True)
    return made


def _describe(
    made: Path,
    backbone: str,
    backbone_sha256: str,
    recipe: Recipe,
    *,
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
        backbone=backbone,
        backbone_sha256=backbone_sha256,
        gates_sha256=sha256_of(made / GATES),
        gates=config,
        thresholds=thresholds or {},
        budget=f"{recipe.budget:g}",
        policy="learned" if not fixed else "static" if static else "random",
        rates=fixed,
        adapters_of=shared,
        adapters_sha256="" if owned is None else sha256_of(owned),
    ).write(made)


def _document(
    made: Path, recipe: Recipe, start: Path | None, *, extra: dict[str, Any] | None = None
) -> None:
    """Write the recipe, behind those of the runs that the gates started from."""
    before = start / TRAINING if start is not None else None
    runs = json.loads(before.read_text("utf-8")) if before is not None and before.exists() else []
    tokens = recipe.steps * recipe.batch * recipe.length
    runs.append(
        {
            **asdict(recipe),
            **(extra or {}),
            "price_gains": PRICE_GAINS,
            "lr_floor": LR_FLOOR,
            "steps_done": recipe.steps,
            "training_tokens": tokens,
            "sources": SHARES,
        }
    )
    (made / TRAINING).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _calibrated(
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


def _windows(dense: SkipModel, recipe: Recipe, folder: Path) -> torch.Tensor:
    path = folder / "windows.safetensors"
    count = max(recipe.steps * recipe.batch, WARM_START_WINDOWS)
    if path.exists():
        with safe_open(path, framework="pt") as file:
            of = (file.metadata() or {}).get("backbone")
            made: torch.Tensor = file.get_tensor("windows")
        if of != dense.weights_sha256:
            raise ValueError(
                f"The windows in {folder} are token ids of another backbone than {dense.name}; "
                "train on windows of its own."
            )
        if len(made) < count or made.shape[1] != recipe.length + 1:
            raise ValueError(
                f"{folder} holds {len(made)} windows of {made.shape[1] - 1} tokens; this run needs "
                f"{count} of {recipe.length}. Train fewer steps, or on windows of its own."
            )
        return made
    windows = training_windows(
        dense.model,
        dense.tokenizer,
        count=count,
        length=recipe.length + 1,
        seed=recipe.seed,
    )
    with written(path) as partial:
        save_file(
            {"windows": windows.contiguous()}, partial, metadata={"backbone": dense.weights_sha256}
        )
    return windows
