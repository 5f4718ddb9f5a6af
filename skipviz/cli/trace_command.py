"""Trace texts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from skipviz.cli.inputs import (
    Bos,
    Budget,
    Dtype,
    Excel,
    Gates,
    Limit,
    Model,
    Policy,
    Remote,
    check_apart,
    check_file,
    print_bytes,
    read_all,
)


def trace(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Text files; - for standard input. Rows of .jsonl have a text, or messages, which "
            "the chat template writes."
        ),
    ],
    model: Model = "smollm2-gated",
    csv: Annotated[
        str | None, typer.Option(help="Decisions as CSV; - for standard output.")
    ] = None,
    excel: Excel = False,
    parquet: Annotated[
        Path | None, typer.Option(help="The whole trace, for skipviz.Trace.load.")
    ] = None,
    budget: Budget = None,
    policy: Policy = None,
    limit: Limit = None,
    gates: Gates = None,
    dtype: Dtype = "float32",
    bos: Bos = None,
    trust_remote_code: Remote = False,
) -> None:
    """Trace texts and write every gate decision."""
    import skipviz
    from skipviz.analysis.flops import cost_summary
    from skipviz.cli.console import err, progress
    from skipviz.readings.budgets import budget_reading
    from skipviz.readings.paths import class_reading
    from skipviz.recording.inputs import encoded

    targets = (parquet, None if csv in (None, "-") else Path(str(csv)))
    for target in targets:
        check_file(target)
    check_apart(targets, files)
    documents = read_all(files, chat=True)
    with err.working(f"Loading {model}"):
        loaded = skipviz.load(
            model, budget=budget, policy=policy, limit=limit, gates=gates, dtype=dtype,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    tokens = sum(len(each.ids) for each in encoded(loaded, documents, bos=bos)[1])
    with progress("Tracing", total=tokens, unit="tokens") as advance:
        traced = skipviz.trace(
            loaded, documents, bos=bos, progress=lambda share: advance(share * tokens)
        )
    if csv == "-":
        buffer = io.BytesIO()
        traced.write_csv(buffer, excel=excel)
        print_bytes(buffer.getvalue())
    elif csv is not None:
        traced.write_csv(csv, excel=excel)
    if parquet is not None:
        traced.save(parquet)
    figures = cost_summary(traced)
    realised = "unknown" if figures.budget is None else f"{figures.budget:z.3f}"
    loss = "" if figures.loss is None else f", loss {figures.loss:z.3f} nats per token"
    err.print(
        f"{figures.tokens:,} tokens, {figures.layers_mean:z.1f} of {figures.layers} layers used on "
        f"average, budget realised {realised}{loss}.",
        soft_wrap=True,
    )
    if said := class_reading(traced):
        err.print(said, soft_wrap=True)
    if (missed := budget_reading(traced)) is not None:
        err.print(" ".join(missed).rstrip(), soft_wrap=True)
