"""Set the thresholds of learned gates: for budgets, and for limits of loss."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.cli.inputs import check_file, check_folder, read_all
from skipviz.errors import InputError

if TYPE_CHECKING:
    from skipviz.families.settings import ThresholdSettings
    from skipviz.models import SkipModel
    from skipviz.text.documents import Document


def calibrate(
    folder: Annotated[Path, typer.Argument(help="Learned gates, a name or a folder.")],
    budgets: Annotated[
        list[float] | None,
        typer.Option(
            "--budget", help="Set this threshold alone, a new one too; all that there are, if none."
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="Your own file: thresholds for texts like it are kept under a name, and chosen "
            "as a policy, with --policy NAME. What the model came with stays. Without a file, "
            "skipviz's calibration texts set the thresholds in skipviz.json.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What to call this kind of text; that of the first file if not given."),
    ] = None,
) -> None:
    """Set the thresholds of learned gates to realise budgets.

    On a text of your own every other part is held out, and what the budget comes to there is
    printed.
    """
    import skipviz
    from skipviz.families.settings import threshold_settings
    from skipviz.folders import CONFIG, model_folder
    from skipviz.models import read_settings

    place = model_folder(folder)
    settings = threshold_settings(read_settings(place), name=folder)
    if texts:
        _calibrate_on(
            folder, read_all(texts), budgets, _name_of(texts[0]) if name is None else name
        )
        return
    if name is not None:
        raise InputError(f"--name {name} goes with a text of your own; name one with --text.")
    check_file(place / CONFIG)
    _calibrate_model(place, skipviz.load(folder), settings, budgets)


def _calibrate_model(
    folder: Path, model: SkipModel, settings: ThresholdSettings, budgets: list[float] | None
) -> None:
    """Set the thresholds of ``skipviz.json`` on skipviz's own texts."""
    from skipviz.cli.console import err
    from skipviz.corpora.held_out import calibration_texts
    from skipviz.evaluation.calibration import calibrate as run

    documents = calibration_texts()
    for budget in budgets or list(settings.thresholds):
        known = settings.thresholds
        nearest = min(known, key=lambda each: abs(each - budget))
        found = run(model, documents, budget=budget, start=known[nearest])
        was = f"{known[budget]:z.6f} became " if budget in known else ""
        err.print(f"Budget {budget:g}: threshold {was}{found:z.6f}.")
        settings = settings.calibrated_for(budget, found)
        settings.write(folder)


def _calibrate_on(
    folder: Path, documents: list[Document], budgets: list[float] | None, name: str
) -> None:
    """Keep thresholds for a user's kind of text under a name."""
    import skipviz
    from skipviz.cli.console import err
    from skipviz.evaluation.own_text import fit_to_text
    from skipviz.folders import model_folder
    from skipviz.models import read_settings
    from skipviz.models.own_thresholds import check_own_name, keep_own, own_file

    model, settings = skipviz.load(folder), read_settings(model_folder(folder))
    check_own_name(name, settings)
    target = own_file(model_folder(folder), settings)
    check_file(target) if target.parent.is_dir() else check_folder(target.parent)
    for budget in budgets or list(settings.budgets):
        found = fit_to_text(model, documents, budget=budget)
        keep_own(
            settings, model_folder(folder), name=name, budget=budget,
            threshold=found.threshold, realised=found.held_out,
        )  # fmt: skip
        err.print(str(found), soft_wrap=True)
    err.print(
        f"Kept in {target} as {name}: choose it as the policy, as in `skipviz trace FILE --model "
        f"{shlex.quote(str(folder))} --policy {name}`.",
        soft_wrap=True,
    )


def _name_of(file: str) -> str:
    """Return what thresholds for a file's kind of text are called where no name is given."""
    letters = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file).stem).strip("-_")[:40]
    return letters or "my-text"


def guard(
    folder: Annotated[Path, typer.Argument(help="Learned gates, a name or a folder; changed.")],
    limits: Annotated[
        list[float], typer.Option("--limit", help="Nats per token over dense that may be lost.")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own file; skipviz's calibration texts if none is named."),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Promise the limit of losses clipped at so many nats for each document, such as "
            "1: this holds for any distribution of losses, takes many documents, and says nothing "
            "of what a document loses beyond. Without it the promise is of the mean itself, by "
            "Student's t test, which assumes many documents of which none loses far more than the "
            "others."
        ),
    ] = None,
) -> None:
    """Find the cheapest thresholds that keep losses within limits.

    The promise holds with 95% confidence, for texts like those it was found on: both tests take
    documents for independent draws of one population.
    """
    import skipviz
    from skipviz.cli.console import err
    from skipviz.corpora.held_out import calibration_texts
    from skipviz.evaluation.guarding import guard as run
    from skipviz.families.settings import threshold_settings
    from skipviz.folders import CONFIG, model_folder
    from skipviz.models import read_settings

    folder = model_folder(folder)
    settings = threshold_settings(read_settings(folder), name=folder)
    check_file(folder / CONFIG)
    documents = read_all(texts) or calibration_texts()
    model, dense = skipviz.load(folder), skipviz.load(settings.backbone)
    for limit in limits:
        made = run(model, dense, documents, limit=limit, clip=clip, say=err.print)
        settings = settings.guarded_for(limit, made.threshold, clip)
        last = made.tested.filter("passed").row(-1, named=True)
        err.print(
            f"Limit {limit:g}: threshold {made.threshold:z.6f}, budget {last['realised']:z.3f} and "
            f"{last['gap']:z.3f} nats over dense on the calibration texts. "
            f"{settings.promise(limit)}",
            soft_wrap=True,
        )
        settings.write(folder)
