"""Make a trace of what was recorded elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipviz.cli.inputs import check_apart, check_file


def import_recording(
    file: Annotated[
        Path,
        typer.Argument(
            help="A recording, as docs/trace_format.md says, or a table in CSV or JSON."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the trace is written.")],
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers of the model; says that FILE is a table.")
    ] = None,
    text: Annotated[str, typer.Option(help="Table: the column of the tokens' texts.")] = "text",
    used: Annotated[
        str, typer.Option(help="Table: the column of the layers that ran, as in [0, 1, 5].")
    ] = "layers",
    sequence: Annotated[
        str | None, typer.Option(help="Table: the column that says which text a token is of.")
    ] = None,
    first_layer: Annotated[int, typer.Option(help="Table: the number of the first layer.")] = 0,
) -> None:
    """Make a trace of a recording, as recorder_kit.py writes it where a model runs.

    With --layers, of a table with a row per token, such as published patterns.
    """
    from skipviz.cli.console import err
    from skipviz.recording.pattern_table import read_table
    from skipviz.recording.recorded_file import open_recording

    check_file(output)
    check_apart([output], [file])
    if layers is None:
        trace, cut = open_recording(file)
    else:
        cut = 0
        trace = read_table(
            file, layers=layers, text=text, used=used, sequence=sequence, first_layer=first_layer
        )
    trace.save(output)
    lost = f" {cut:,} more were cut off before all sites fired, and are left out." if cut else ""
    err.print(f"{len(trace):,} tokens, {trace.sites.height} sites.{lost}", soft_wrap=True)
