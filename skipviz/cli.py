"""The command line: ``skipviz models``, ``trace``, ``train`` and ``evaluate``.

What runs a model is imported inside the commands, so that ``skipviz --help`` need not wait for it.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator
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

if TYPE_CHECKING:
    import polars as pl

    from skipviz.experiments.frontier import Candidate
    from skipviz.models import SkipModel
    from skipviz.texts import Document

# File names and messages hold brackets that rich would take for markup.
out = Console(markup=False, highlight=False)
err = Console(markup=False, highlight=False, stderr=True)

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
            err.print("Stopped. No output file was changed; run the command again to begin anew.")
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
    from skipviz.models.samples import GatedModelConfig, sample_folders

    table = Table("model", "what", "size", "ready")
    for name, folder in sample_folders().items():
        config = GatedModelConfig.read(folder)
        budgets = ", ".join(config.thresholds)
        what = f"gates on {config.backbone}, budgets {budgets}"
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
    from skipviz.models.samples import CONFIG, GatedModelConfig, sample_folders

    model = skipviz.load(name, trust_remote_code=trust_remote_code)
    sites = model.family.sites(model.model)
    config = model.model.config
    size = sum(p.numel() * p.element_size() for p in model.model.parameters())
    folder = sample_folders().get(name, Path(name))
    gated = GatedModelConfig.read(folder) if (folder / CONFIG).exists() else None
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
        for budget, threshold in gated.thresholds.items():
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
    dtype: Annotated[str, typer.Option(help="float32, exact, or bfloat16, faster.")] = "float32",
    trust_remote_code: Remote = False,
) -> None:
    """Trace texts and write every gate decision."""
    import skipviz
    from skipviz.analysis.cost import summary
    from skipviz.spans import encode

    for target in (parquet, None if csv in (None, "-") else Path(str(csv))):
        _check_folder(target)
    documents = [document for name in files for document in _read(name)]
    with err.status(f"Loading {model}"):
        loaded = skipviz.load(
            model, budget=budget, dtype=dtype, trust_remote_code=trust_remote_code
        )
    tokens = sum(len(encode(loaded.tokenizer, document.text).ids) for document in documents)
    with _progress("Tracing", total=tokens, unit="tokens") as advance:
        traced = skipviz.trace(loaded, documents, progress=lambda share: advance(share * tokens))
    if csv == "-":
        buffer = io.BytesIO()
        traced.write_csv(buffer)
        sys.stdout.buffer.write(buffer.getvalue())
    elif csv is not None:
        _write(Path(csv), traced.write_csv)
    if parquet is not None:
        _write(parquet, traced.save)
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
        Literal["cost", "static", "random"],
        typer.Option(
            help="cost: gates, with a price on compute. static, random: adapters for sites that "
            "are dropped for every token, or at random."
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
    start: Annotated[Path | None, typer.Option(help="Gates to train on.")] = None,
    price: Annotated[float, typer.Option(help="Price to start from, nats.")] = 0.0,
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
    from skipviz.families.gated_modules import GatedConfig, decoder_layers
    from skipviz.models import load
    from skipviz.training.held_out import BROWN_CALIBRATION, held_out
    from skipviz.training.recipe import Recipe, fast_dtype
    from skipviz.training.run import (
        matched_choice,
        static_choice,
        train_fixed,
        train_gates,
    )

    recipe = Recipe(
        budget=budget, further_budgets=tuple(further_budgets or ()), steps=steps, batch=batch,
        length=length, gate_lr=gate_lr, adapter_lr=adapter_lr, descent=descent, price=price,
        collapse_after=collapse_after, dtype=dtype or fast_dtype(device), seed=seed,
    )  # fmt: skip
    dense = load(backbone).model
    layers = len(decoder_layers(dense))
    with _progress("Training", total=steps, unit="steps") as advance:

        def report(figures: dict[str, Any]) -> None:
            advance(
                float(figures["step"]),
                f"loss {figures['ce']:.2f}, KL {figures['kl']:.2f}, "
                f"budget {figures['budget']:.3f} of {figures['target']:.3f}",
            )

        config = GatedConfig(
            first_layer=2,
            last_layer=layers - 3,
            gate_hidden=32 if objective == "cost" else 0,
            adapter_rank=min(48, dense.config.hidden_size),
        )
        shared: dict[str, Any] = {
            "recipe": recipe, "config": config, "folder": folder, "device": device,
            "windows": windows,
            "say": err.print, "report": report,
        }  # fmt: skip
        texts = held_out(BROWN_CALIBRATION)
        if objective == "cost":
            made = train_gates(backbone, calibration=texts, start=start, **shared)
        elif objective == "static":
            choice = static_choice(choose, recipe, config, say=err.print)
            made = train_fixed(backbone, choose=choice, **shared)
        else:
            choice = matched_choice(like, recipe, config, texts)
            made = train_fixed(backbone, choose=choice, **shared)
    err.print(f"The model is in {made}; trace with --model {made}.")


@app.command()
def evaluate(
    models: Annotated[
        list[str] | None, typer.Argument(help="Gated models; smollm2-gated if none is named.")
    ] = None,
    budgets: Annotated[
        list[float] | None, typer.Option("--budget", help="All that a model has, if none is named.")
    ] = None,
    limits: Annotated[
        list[float] | None,
        typer.Option(
            "--limit",
            help="Add the guarded policy: the cheapest threshold that, with 95% confidence, loses "
            "no more nats over dense than this.",
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's held-out texts if none is named."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Write the frontier here, as HTML.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="Write one model's card here; its figures are on Brown files alone."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of shuffles and bootstrap.")] = 0,
) -> None:
    """Hold gated models against their backbone, and against each other, on held-out text."""
    chosen = models or ["smollm2-gated"]
    for target in (csv, figure, card):
        _check_folder(target)
    if card is not None:
        if len(chosen) != 1:
            raise ValueError(f"A card is for one model; {len(chosen)} were named.")
        if budgets or limits or texts or csv or figure:
            raise ValueError(
                "A card's figures are at all budgets of a model and on fixed texts: leave out "
                "--budget, --limit, --text, --csv and --figure, or evaluate without --card."
            )
        _evaluate_for_card(chosen[0], card, seed)
        return
    from skipviz.experiments.frontier import frontier, measure
    from skipviz.plots.frontier import frontier_figure
    from skipviz.training.held_out import reporting_texts

    documents = [d for name in texts for d in _read(name)] if texts else reporting_texts()
    dense, candidates = _candidates(chosen, budgets)
    candidates += _guarded(dense, candidates, limits or [])
    with _progress("Evaluating", total=len(documents), unit="documents") as advance:
        measured = measure(
            candidates, dense, documents, progress=lambda share: advance(share * len(documents))
        )
    table = frontier(measured, seed=seed)
    out.print(_frontier_lines(table), soft_wrap=True)
    if csv is not None:
        _write(csv, table.write_csv)
    if figure is not None:
        made = frontier_figure(table)
        _write(figure, lambda target: made.write_html(target, include_plotlyjs=True))


def _candidates(names: list[str], budgets: list[float] | None) -> tuple[SkipModel, list[Candidate]]:
    """Return the backbone and each model at each budget; several budgets share one model."""
    import skipviz
    from skipviz.experiments.frontier import Candidate
    from skipviz.models.load import at_budget
    from skipviz.models.samples import GatedModelConfig, sample_folders

    candidates, backbones = [], set()
    for name in names:
        config = GatedModelConfig.read(sample_folders().get(name, Path(name)))
        backbones.add(config.backbone)
        model = skipviz.load(name)
        for budget in budgets or [float(each) for each in config.budgets]:
            at_budget(model, budget)  # says so at once if there is no such budget
            candidates.append(
                Candidate(
                    model=model,
                    policy=model.policy,
                    budget=budget,
                    prepare=functools.partial(at_budget, model, budget),
                )
            )
    if len(backbones) != 1:
        raise ValueError(
            f"The models stand on different backbones: {', '.join(sorted(backbones))}. Evaluate "
            "those of one backbone at a time."
        )
    return skipviz.load(backbones.pop()), candidates


def _guarded(dense: SkipModel, candidates: list[Candidate], limits: list[float]) -> list[Candidate]:
    """Return the guarded policy of each model of learned gates, at each limit."""
    if not limits:
        return []
    from skipviz.experiments.frontier import Candidate
    from skipviz.experiments.guard import guard
    from skipviz.families.gated_modules import set_threshold
    from skipviz.training.held_out import calibration_texts

    texts = calibration_texts()
    found = []
    for model in {id(c.model): c.model for c in candidates if c.policy == "learned"}.values():
        for limit in limits:
            made = guard(model, dense, texts, limit=limit, progress=err.print)
            found.append(
                Candidate(
                    model=model,
                    policy="guarded",
                    limit=limit,
                    prepare=functools.partial(set_threshold, model.model, made.threshold),
                )
            )
    return found


def _frontier_lines(table: pl.DataFrame) -> str:
    """Return the table as Markdown, intervals in brackets."""
    lines = [
        "| model | policy | asked | realised | FLOP share | loss over dense | KL | top-1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.iter_rows(named=True):
        asked = f"{row['budget']:g}" if row["budget"] is not None else ""
        if row["limit"] is not None:
            asked = f"at most {row['limit']:g} nats"
        lines.append(
            f"| {row['model']} | {row['policy']} | {asked} | {row['realised']:.4f} "
            f"| {row['flop_share']:.4f} "
            f"| {row['gap']:.3f} [{row['gap_low']:.3f}, {row['gap_high']:.3f}] "
            f"| {row['kl']:.3f} | {row['top1']:.1%} |"
        )
    return "\n".join(lines)


def _evaluate_for_card(model: str, card: Path, seed: int) -> None:
    import skipviz
    from skipviz.experiments.card import Data, model_card, rates_table, results_table
    from skipviz.experiments.evaluate import evaluate as run
    from skipviz.models.samples import GatedModelConfig, sample_folders
    from skipviz.training.held_out import BROWN_CALIBRATION, BROWN_REPORTING, held_out
    from skipviz.training.windows import SHARES

    folder = sample_folders().get(model, Path(model))
    config = GatedModelConfig.read(folder)
    if config.policy != "learned":
        raise ValueError(
            f"{model} has a {config.policy} policy; a card is written for learned gates. Evaluate "
            "it without --card."
        )
    found = run(
        skipviz.load(model),
        skipviz.load(config.backbone),
        held_out(BROWN_REPORTING),
        seed=seed,
        progress=lambda stage: err.print(f"Running: {stage}"),
    )
    out.print(results_table(found), rates_table(found), sep="\n\n", soft_wrap=True)
    data = Data(shares=SHARES, calibration=BROWN_CALIBRATION, reporting=BROWN_REPORTING)
    words = model_card(model, folder, found, data=data, seed=seed)
    _write(card, lambda target: target.write_text(words, encoding="utf-8"))


def _ready() -> str:
    from skipviz.models import backbone

    return "yes" if backbone.is_pulled() else "after `skipviz models pull`"


def _read(name: str) -> list[Document]:
    from skipviz.texts import read_path, read_stream

    return read_stream(sys.stdin.buffer.read()) if name == "-" else read_path(Path(name))


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


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and rename, so that an interruption leaves no half of a file."""
    if target.exists() and not target.is_file():  # a pipe or a device cannot be replaced
        write(target)
        return
    partial = target.with_name(target.name + ".partial")
    try:
        write(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


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
