"""Look for gates, and check whether what is recorded of a model is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.atomic import atomic_write
from skipviz.cli.inputs import Gates, Remote, check_apart, check_file, read_all, to_standard_output

if TYPE_CHECKING:
    from skipviz.analysis.findings import CheckUp


def check(
    subject: Annotated[
        str, typer.Argument(help="Sample model, folder or hub name; or the file of a trace.")
    ],
    text: Annotated[
        str | None, typer.Option(help="A text file, of which 128 tokens are run.")
    ] = None,
    gates: Gates = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Code of a check that is not made, as SKV011.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Findings as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Findings as a page.")] = None,
    trust_remote_code: Remote = False,
) -> None:
    """Check whether recordings of a model are true; exit code 1 if there is an issue."""
    import skipviz
    from skipviz.cli.console import err, out, progress
    from skipviz.plots.checkup_page import checkup_html

    for target in (json_file, html):
        check_file(target)
    check_apart([json_file, html], [each for each in (text, gates, subject) if each is not None])
    document = None if text is None else read_all([text])[0]
    if subject.endswith(".parquet"):
        traced = skipviz.Trace.load(Path(subject))
        found = skipviz.check(traced, ignore=ignore or ())
    else:
        with err.status(f"Loading {subject}"):
            model = skipviz.load(subject, gates=gates, trust_remote_code=trust_remote_code)
        with progress("Checking", total=100, unit="percent") as advance:
            found = skipviz.check(
                model, document, ignore=ignore or (),
                progress=lambda share: advance(100 * share),
            )  # fmt: skip
    if json_file is not None:
        with atomic_write(json_file) as path:
            path.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
    if html is not None:
        with atomic_write(html) as path:
            path.write_text(checkup_html(found), encoding="utf-8")
    with to_standard_output():
        out.print(checkup_text(found), soft_wrap=True)
    if not found.passed:
        raise typer.Exit(1)


def inspect(
    name: Annotated[str, typer.Argument(help="A folder or a hub name.")],
    text: Annotated[
        str | None, typer.Option(help="A text file, of which 128 tokens are run.")
    ] = None,
    trust_remote_code: Remote = False,
) -> None:
    """Propose a description of a model's gates, as YAML: skipviz inspect MODEL > gates.yaml.

    What comes first is the best; other modules that may be gates follow as comments.
    """
    from skipviz.cli.console import err, out
    from skipviz.experiments.inspection import proposed_gates

    document = None if text is None else read_all([text])[0]
    with err.status(f"Looking for gates in {name}"):
        found = proposed_gates(
            name, text=None if document is None else document.text, trust=trust_remote_code
        )
    with to_standard_output():
        out.print(found, soft_wrap=True)


def checkup_text(found: CheckUp) -> str:
    """Return a check-up as lines of text, with what to do where something was found."""
    lines = []
    for each in found.findings:
        figure = f" {each.figure}." if each.figure else ""
        lines.append(f"{each.code} {each.outcome:<14} {each.said}.{figure}")
        if each.outcome in ("issue", "tip", "skipped"):
            lines += [f"    {part}" for part in (each.evidence, each.matters, each.advice) if part]
    return "\n".join(lines)
