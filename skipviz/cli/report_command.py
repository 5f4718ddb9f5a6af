"""Write what was found about a text as files to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.cli.inputs import (
    Budget,
    Excel,
    Gates,
    Limit,
    Policy,
    Remote,
    check_apart,
    check_file,
    check_folder,
    read_all,
)
from skipviz.errors import InputError

if TYPE_CHECKING:
    import skipviz


def report(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Text files, - for standard input; or the one file of a trace, .parquet."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The report, one HTML file.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Sample model, folder or hub name; smollm2-gated if not given. Of a trace, the "
            "one that was traced; only needed by analyses that run it."
        ),
    ] = None,
    analyses: Annotated[
        str | None,
        typer.Option(
            help="Some of difficulty, specialties, clusters, audit, check, with commas between; "
            "difficulty,specialties if not given."
        ),
    ] = None,
    zip_file: Annotated[
        Path | None, typer.Option("--zip", help="All tables as CSV, and the trace.")
    ] = None,
    excel: Excel = False,
    budget: Budget = None,
    policy: Policy = None,
    limit: Limit = None,
    gates: Gates = None,
    seed: Annotated[int, typer.Option(help="Of the draws of analyses.")] = 0,
    trust_remote_code: Remote = False,
) -> None:
    """Write a report: one HTML file that opens from disk and needs no network."""
    import skipviz
    from skipviz.cli.console import err, progress
    from skipviz.reports.analyses import CHEAP, check_names

    for target in (output, zip_file):
        check_file(target)
    check_apart((output, zip_file), [*files, *([] if gates is None else [gates])])
    given = _saved(files)
    chosen = CHEAP if analyses is None else [each.strip() for each in analyses.split(",")]
    check_names(chosen, model_at_hand=given is None or model is not None)
    loaded = None
    if given is None or model is not None:
        name = model or "smollm2-gated"
        with err.working(f"Loading {name}"):
            loaded = skipviz.load(
                name, budget=budget, policy=policy, limit=limit, gates=gates,
                trust_remote_code=trust_remote_code,
            )  # fmt: skip
    if given is None:
        documents = read_all(files, chat=True)
        assert loaded is not None
        with progress("Tracing", total=100, unit="percent") as advance:
            given = skipviz.trace(loaded, documents, progress=lambda share: advance(100 * share))
    with progress("Analysing", total=100, unit="percent") as advance:
        skipviz.report(
            given, output, model=loaded, analyses=chosen, zip=zip_file, excel=excel, seed=seed,
            progress=lambda share: advance(100 * share),
        )  # fmt: skip
    also = "" if zip_file is None else f" and {zip_file}"
    err.print(f"Wrote {output}{also}.", soft_wrap=True)


def bundle(
    traces: Annotated[list[Path], typer.Argument(help="Files of traces, as trace --parquet.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
) -> None:
    """Write a folder that shows traces in a browser, from disk or a web server, without Python."""
    import skipviz
    from skipviz.cli.console import err, progress

    check_folder(out)
    found: dict[str, skipviz.Trace] = {}
    for path in traces:
        if path.stem in found:
            raise InputError(f"Two traces are called {path.stem}; rename one of the files.")
        found[path.stem] = skipviz.Trace.load(path)
    with progress("Writing", total=len(found), unit="traces") as advance:
        skipviz.bundle(found, out, progress=lambda share: advance(share * len(found)))
    err.print(f"Wrote {out}; open {out / 'index.html'} in a browser.", soft_wrap=True)


def _saved(files: list[str]) -> skipviz.Trace | None:
    """Return the trace of a file that was saved; None where texts were given."""
    import skipviz

    saved = [name for name in files if name.endswith(".parquet")]
    if not saved:
        return None
    if len(files) > 1:
        raise InputError(f"{saved[0]} is a trace; give it alone, or give texts.")
    return skipviz.Trace.load(Path(saved[0]))
