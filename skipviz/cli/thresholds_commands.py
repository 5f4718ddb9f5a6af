"""Set the thresholds of learned gates: for budgets, and for limits of loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipviz.cli.inputs import read_all


def calibrate(
    folder: Annotated[Path, typer.Argument(help="Learned gates, a name or a folder; changed.")],
    budgets: Annotated[
        list[float] | None,
        typer.Option(
            "--budget", help="Set this threshold alone, a new one too; all that there are, if none."
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's calibration texts if none is named."),
    ] = None,
) -> None:
    """Set the thresholds of learned gates, so that they realise budgets."""
    import dataclasses

    import skipviz
    from skipviz.cli.console import err
    from skipviz.corpora.held_out import calibration_texts
    from skipviz.evaluation.calibration import calibrate as run
    from skipviz.families.gated.settings import learned
    from skipviz.folders import model_folder
    from skipviz.models import read_settings

    folder = model_folder(folder)
    settings = learned(read_settings(folder), name=folder)
    documents = read_all(texts) or calibration_texts()
    model = skipviz.load(folder)
    known = settings.thresholds
    for budget in budgets or list(known):
        nearest = min(known, key=lambda each: abs(each - budget))
        found = run(model, documents, budget=budget, start=known[nearest])
        was = f"{known[budget]:.6f} became " if budget in known else ""
        err.print(f"Budget {budget:g}: threshold {was}{found:.6f}.")
        known = known.replaced(budget, found)
        dataclasses.replace(settings, thresholds=known).write(folder)


def guard(
    folder: Annotated[Path, typer.Argument(help="Learned gates, a name or a folder; changed.")],
    limits: Annotated[
        list[float], typer.Option("--limit", help="Nats per token over dense that may be lost.")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's calibration texts if none is named."),
    ] = None,
) -> None:
    """Find the cheapest thresholds that, with 95% confidence, lose no more than the limits."""
    import dataclasses

    import skipviz
    from skipviz.cli.console import err
    from skipviz.corpora.held_out import calibration_texts
    from skipviz.evaluation.guarding import guard as run
    from skipviz.families.gated.settings import learned
    from skipviz.folders import model_folder
    from skipviz.models import read_settings

    folder = model_folder(folder)
    settings = learned(read_settings(folder), name=folder)
    documents = read_all(texts) or calibration_texts()
    model, dense = skipviz.load(folder), skipviz.load(settings.backbone)
    guards = settings.guards
    for limit in limits:
        made = run(model, dense, documents, limit=limit, say=err.print)
        guards = guards.replaced(limit, made.threshold)
        last = made.tested.filter("passed").row(-1, named=True)
        err.print(
            f"Limit {limit:g}: threshold {made.threshold:.6f}, budget {last['realised']:.3f} and "
            f"{last['gap']:.3f} nats over dense on the calibration texts."
        )
        dataclasses.replace(settings, guards=guards).write(folder)
