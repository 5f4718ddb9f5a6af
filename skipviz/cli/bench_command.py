"""Measure what skipping saves over a grid of settings, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipviz.cli.inputs import check_apart, check_file, read_all
from skipviz.errors import InputError


def bench(
    model: Annotated[str, typer.Argument(help="Sample model, folder or hub name.")],
    out: Annotated[
        Path,
        typer.Option(help="A Parquet file; cells of this machine and these settings stay in it."),
    ],
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Texts at once; 1.")] = None,
    lengths: Annotated[list[int] | None, typer.Option("--length", help="Tokens; 512.")] = None,
    budgets: Annotated[
        list[float] | None, typer.Option("--budget", help="All that the model has, if not given.")
    ] = None,
    dtypes: Annotated[
        list[str] | None, typer.Option("--dtype", help="float32, bfloat16 or float16; float32.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads of torch; as many as it takes by itself.")
    ] = None,
    devices: Annotated[list[str] | None, typer.Option("--device", help="cpu or cuda; cpu.")] = None,
    text: Annotated[
        str | None,
        typer.Option(help="A text file, repeated up to the length; a few lines of ours."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each; from 6 on with intervals.")] = 7,
    decoded: Annotated[int, typer.Option(help="Tokens decoded of each text.")] = 16,
) -> None:
    """Measure dense, masked and gathered in turn over a grid: each setting with every other.

    An option given several times is several values. The page Cost draws the file.
    """
    import skipviz
    from skipviz.cli.console import err, progress
    from skipviz.cli.console import out as standard_output
    from skipviz.readings.measured_cost import bench_reading

    check_file(out)
    check_apart([out], [] if text is None else [text])
    document = None if text is None else read_all([text])
    if document is not None and len(document) != 1:
        raise InputError(f"{text} holds {len(document)} texts; give a file of one.")
    with progress("Measuring", total=100, unit="percent") as advance:
        rows = skipviz.bench(
            model, out=out, batches=batches or (1,), lengths=lengths or (512,), budgets=budgets,
            dtypes=dtypes or ("float32",), threads=threads, devices=devices or ("cpu",),
            text=None if document is None else document[0].text, rounds=rounds, decoded=decoded,
            progress=lambda share: advance(100 * share),
        )  # fmt: skip
    standard_output.print(bench_reading(rows), soft_wrap=True)
    err.print(f"The rows are in {out}; the page Cost draws them.")
