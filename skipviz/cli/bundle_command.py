"""Write saved traces as a folder that a browser shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipviz.cli.inputs import check_folder
from skipviz.errors import InputError


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
