"""A command of its own: prints the longest skipped runs of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def runs(
    trace: Annotated[Path, typer.Argument(help="What `skipviz trace --parquet` wrote.")],
    sites: Annotated[int, typer.Option(help="How many sites to show.")] = 5,
) -> None:
    """Show which sites most tokens in a row skip."""
    from toy_analysis import skip_runs

    from skipviz.traces import Trace

    found = skip_runs(Trace.load(trace)).sort("tokens", descending=True, maintain_order=True)
    for row in found.head(sites).iter_rows(named=True):
        typer.echo(f"layer {row['layer']} {row['unit']}: {row['tokens']:,} tokens in a row")
