"""Hold models against their backbone, and write their cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.atomic import written
from skipviz.cli.inputs import check_file, read_all
from skipviz.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from skipviz.models import SkipModel
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
    seed: Annotated[int, typer.Option(help="Seed of shuffles and bootstrap.")] = 0,
) -> None:
    """Compare gated models with their backbone, and with each other.

    Texts are held-out ones of skipviz, or your own.
    """
    from skipviz.cli.console import err, out

    chosen = models or ["smollm2-gated"]
    for target in (store, csv, figure, card):
        check_file(target)
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
    import polars as pl

    from skipviz.corpora.held_out import calibration_texts, reporting_texts
    from skipviz.evaluation.candidates import (
        candidates_of,
        guarded_candidates,
        training_tokens,
    )
    from skipviz.evaluation.card import frontier_table
    from skipviz.evaluation.frontier import frontier
    from skipviz.plots.frontier import frontier_figure
    from skipviz.tables import csv_safe

    documents = read_all(texts) or reporting_texts()
    wanted = policies
    if policies is not None and ("guarded" in policies) != bool(limits):
        raise InputError(
            "The guarded policy and its limit go together: give both --policy guarded and --limit, "
            "such as --limit 0.1, or neither."
        )
    if policies is not None and limits:
        wanted = [*policies, "learned"]  # whose gates are guarded
    dense, candidates = candidates_of(chosen, policies=wanted, budgets=budgets)
    candidates += guarded_candidates(
        dense, candidates, calibration_texts() if limits else [], limits=limits or [],
        say=err.print,
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
            csv_safe(table).write_csv(path)
    if figure is not None:
        made = frontier_figure(table)
        with written(figure) as path:
            made.write_html(path, include_plotlyjs=True)


def _measured(
    candidates: list[SkipModel],
    dense: SkipModel,
    documents: list[Document],
    *,
    most: int | None,
    store: Path | None,
) -> pl.DataFrame:
    from skipviz.cli.console import progress
    from skipviz.evaluation.frontier import measure

    count = len(documents) if most is None else min(most, len(documents))
    with progress("Evaluating", total=count, unit="documents") as advance:
        return measure(
            candidates, dense, documents, most=most, store=store,
            progress=lambda share: advance(share * count),
        )  # fmt: skip


def _evaluate_for_card(model: str, card: Path, store: Path | None, seed: int) -> None:
    import skipviz
    from skipviz.cli.console import out, progress
    from skipviz.corpora.held_out import reporting_texts
    from skipviz.evaluation.candidates import candidates_of
    from skipviz.evaluation.card import frontier_table, model_card, shuffled_section
    from skipviz.evaluation.frontier import frontier
    from skipviz.evaluation.shuffled import shuffle_decisions
    from skipviz.folders import model_folder
    from skipviz.models import read_settings

    folder = model_folder(model)
    texts = reporting_texts()
    dense, candidates = candidates_of([model])
    measured = _measured(candidates, dense, texts, most=None, store=store)
    results = frontier_table(frontier(measured, seed=seed))
    config = read_settings(folder)
    if config.policies == ["learned"]:
        with progress("Shuffling", total=len(texts), unit="documents") as advance:
            found = shuffle_decisions(
                skipviz.load(model), texts, seed=seed,
                progress=lambda share: advance(share * len(texts)),
            )  # fmt: skip
        results = f"{results}\n\n{shuffled_section(found, f'{config.budget:g}')}"
    out.print(results, soft_wrap=True)
    command = f"skipviz evaluate {model} --seed {seed} --card README.md"
    words = model_card(model, folder, results, command=command)
    with written(card) as path:
        path.write_text(words, encoding="utf-8")
