"""Make a trace of what was recorded elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipviz.cli.inputs import check_apart, check_file


def import_recording(
    file: Annotated[Path, typer.Argument(help="JSON lines, as docs/trace_format.md says.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the trace is written.")],
) -> None:
    """Make a trace of a recording, as recorder_kit.py writes it where a model runs."""
    from skipviz.cli.console import err
    from skipviz.recording.recorded_file import open_recording

    check_file(output)
    check_apart([output], [file])
    trace, cut = open_recording(file)
    trace.save(output)
    lost = f" {cut:,} more were cut off before all sites fired, and are left out." if cut else ""
    err.print(f"{len(trace):,} tokens, {trace.sites.height} sites.{lost}", soft_wrap=True)
