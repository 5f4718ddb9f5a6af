"""The command line: the page, models, traces, texts, training, thresholds, evaluation and times.

What a command needs is imported inside it: ``skipviz --help`` waits for the package and for nothing
else.
"""

from __future__ import annotations

from typing import Annotated

import typer

from skipviz.cli.app_command import open_app
from skipviz.cli.bench_command import bench
from skipviz.cli.check_commands import check, inspect
from skipviz.cli.corpora.questions import cluster_dataset, compare, rates, show_dataset
from skipviz.cli.corpus_commands import import_corpus, run_corpus, verify
from skipviz.cli.evaluate_command import evaluate
from skipviz.cli.generate_command import generate
from skipviz.cli.import_command import import_recording
from skipviz.cli.models_commands import info, list_models, pull
from skipviz.cli.report_command import bundle, report
from skipviz.cli.sentences import Sentences
from skipviz.cli.thresholds_commands import calibrate, guard
from skipviz.cli.trace_command import trace
from skipviz.cli.train_command import ForObjective, train

app = typer.Typer(
    cls=Sentences,
    help="See which layers each token of a dynamic-depth transformer used, and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all else that help needs
)


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error arose.")
    ] = False,
) -> None:
    """See which layers each token of a dynamic-depth transformer used, and why."""


models_app = typer.Typer(help="Find and fetch models.", no_args_is_help=True)
models_app.command("list")(list_models)
models_app.command()(pull)
models_app.command()(info)
app.add_typer(models_app, name="models")
app.command(name="app")(open_app)
app.command()(trace)
app.command()(generate)
app.command()(report)
app.command()(bundle)
app.command()(check)
app.command()(inspect)
app.command("import")(import_recording)
app.command(cls=ForObjective)(train)
app.command()(calibrate)
app.command()(guard)
app.command()(evaluate)
app.command()(bench)
corpus_app = typer.Typer(help="Trace many texts into a dataset, and ask it.", no_args_is_help=True)
corpus_app.command("run")(run_corpus)
corpus_app.command("import")(import_corpus)
corpus_app.command()(verify)
corpus_app.command("show")(show_dataset)
corpus_app.command()(rates)
corpus_app.command("cluster")(cluster_dataset)
corpus_app.command()(compare)
app.add_typer(corpus_app, name="corpus")


def main() -> None:
    """Run the command line; what goes wrong becomes one sentence."""
    app()
