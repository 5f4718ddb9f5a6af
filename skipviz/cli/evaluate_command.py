"""Hold models against their backbone, and write their cards."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.atomic import atomic_write
from skipviz.cli.inputs import check_apart, check_file, read_all
from skipviz.errors import InputError
from skipviz.progress import LARGEST_SEED

if TYPE_CHECKING:
    from skipviz.progress import Progress
    from skipviz.text.documents import Document


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
            help="Write one model's card here; that of learned gates shuffles their decisions too."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of shuffles and bootstrap.")
    ] = 0,
) -> None:
    """Compare gated models with their backbone, and with each other.

    Texts are held-out ones of skipviz, or your own.
    """
    from skipviz.cli.console import err, out

    chosen = models or ["smollm2-gated"]
    for target in (store, csv, figure, card):
        check_file(target)
    check_apart((store, csv, figure, card), texts or [])
    if card is not None:
        if len(chosen) != 1:
            raise InputError(f"A card is for one model; {len(chosen)} were named.")
        if policies or budgets or limits or texts or most or csv or figure:
            raise InputError(
                "A card's figures are at all budgets of a model and on fixed texts: leave out "
                "--policy, --budget, --limit, --text, --documents, --csv and --figure, or do "
                "without --card."
            )
        _evaluate_for_card(chosen[0], card, store, seed)
        return
    from skipviz.corpora.held_out import reporting_texts
    from skipviz.evaluation.card import frontier_table
    from skipviz.evaluation.evaluating import evaluate as run
    from skipviz.plots.frontier import frontier_figure
    from skipviz.tables import csv_safe

    documents = read_all(texts) or reporting_texts()
    with _evaluating(documents, most) as advance:
        table = run(
            chosen, documents, policies=policies, budgets=budgets, limits=limits, most=most,
            store=store, seed=seed, say=err.print, progress=advance,
        )  # fmt: skip
    out.print(frontier_table(table), soft_wrap=True)
    if csv is not None:
        with atomic_write(csv) as path:
            csv_safe(table).write_csv(path)
    if figure is not None:
        made = frontier_figure(table)
        with atomic_write(figure) as path:
            made.write_html(path, include_plotlyjs=True)


@contextmanager
def _evaluating(documents: list[Document], most: int | None) -> Iterator[Progress]:
    """Show how many documents are done, from the share that is."""
    from skipviz.cli.console import progress

    count = len(documents) if most is None else min(most, len(documents))
    with ExitStack() as stack:
        # The bar starts with the first share: what comes before may fail, or speak for itself.
        bar = cache(
            lambda: stack.enter_context(progress("Evaluating", total=count, unit="documents"))
        )
        yield lambda share: bar()(share * count)


def _evaluate_for_card(model: str, card: Path, store: Path | None, seed: int) -> None:
    import polars as pl

    import skipviz
    from skipviz.cli.console import out, progress
    from skipviz.corpora.held_out import reporting_texts
    from skipviz.evaluation.candidates import candidates_of
    from skipviz.evaluation.card import (
        frontier_table,
        markdown_name,
        model_card,
        shuffled_section,
    )
    from skipviz.evaluation.frontier import frontier, measure
    from skipviz.evaluation.shuffled import shuffle_decisions
    from skipviz.folders import model_folder
    from skipviz.models import read_settings

    folder = model_folder(model)
    texts = reporting_texts()
    config = read_settings(folder)
    # A card is of the model as it is handed on, without thresholds that a user set.
    dense, candidates = candidates_of([model], policies=config.made_policies)
    with _evaluating(texts, None) as measuring:
        measured = measure(candidates, dense, texts, store=store, progress=measuring)
    table = frontier(measured, seed=seed)
    shown = pl.col("model").map_elements(markdown_name, return_dtype=pl.String)
    results = frontier_table(table.with_columns(shown))
    if config.made_policies == ["learned"]:
        with progress("Shuffling", total=len(texts), unit="documents") as advance:
            found = shuffle_decisions(
                skipviz.load(model), texts, seed=seed,
                progress=lambda share: advance(share * len(texts)),
            )  # fmt: skip
        results = f"{results}\n\n{shuffled_section(found, f'{config.budget:g}')}"
    out.print(results, soft_wrap=True)
    command = f"skipviz evaluate {shlex.quote(model)} --seed {seed} --card README.md"
    words = model_card(model, folder, results, command=command)
    with atomic_write(card) as path:
        path.write_text(words, encoding="utf-8")
