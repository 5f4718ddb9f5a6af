"""Trace texts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from skipviz.atomic import atomic_write
from skipviz.cli.inputs import Gates, Remote, check_apart, check_file, print_bytes, read_all


def trace(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Text files; - for standard input. Rows of .jsonl have a text, or messages, which "
            "the chat template writes."
        ),
    ],
    model: Annotated[str, typer.Option(help="Sample model, folder or hub name.")] = "smollm2-gated",
    csv: Annotated[
        str | None, typer.Option(help="Decisions as CSV; - for standard output.")
    ] = None,
    excel: Annotated[
        bool, typer.Option("--excel", help="CSV with a byte order mark, as Excel wants it.")
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option(help="The whole trace, for skipviz.Trace.load.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="One of the calibrated budgets.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="One of the model's policies, such as a rule of early exits.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(help="The guarded policy: nats over dense that may be lost.")
    ] = None,
    gates: Gates = None,
    dtype: Annotated[str, typer.Option(help="float32, exact, or bfloat16, faster.")] = "float32",
    bos: Annotated[
        bool | None,
        typer.Option(
            "--bos/--no-bos",
            help="Begin each text with the begin-of-sequence token, or without; as the tokenizer "
            "does, if not given.",
        ),
    ] = None,
    trust_remote_code: Remote = False,
) -> None:
    """Trace texts and write every gate decision."""
    import skipviz
    from skipviz.analysis.flops import cost_summary
    from skipviz.cli.console import err, progress
    from skipviz.readings.budgets import budget_reading
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
        with atomic_write(Path(csv)) as path:
            traced.write_csv(path, excel=excel)
    if parquet is not None:
        traced.save(parquet)
    figures = cost_summary(traced)
    realised = "unknown" if figures.budget is None else f"{figures.budget:.3f}"
    loss = "" if figures.loss is None else f", loss {figures.loss:.3f} nats per token"
    err.print(
        f"{figures.tokens:,} tokens, {figures.layers_mean:.1f} of {figures.layers} layers used on "
        f"average, budget realised {realised}{loss}.",
        soft_wrap=True,
    )
    if (missed := budget_reading(traced)) is not None:
        err.print(" ".join(missed).rstrip(), soft_wrap=True)
