"""Trace many texts into a dataset, turn traces into one, and look whether one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.cli.inputs import (
    Bos,
    Budget,
    Dtype,
    Gates,
    Limit,
    Model,
    Policy,
    Remote,
    Runtime,
    check_folder,
)
from skipviz.errors import InputError

if TYPE_CHECKING:
    from skipviz.corpus.summaries import CorpusSummary

Out = Annotated[
    str, typer.Option(help="Folder of the dataset, or an address such as s3://bucket/folder.")
]


def run_corpus(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Folders, or files: .txt, .md, .jsonl, .csv, packed with gz or zst or not, and "
            ".parquet; addresses such as s3://bucket/x; - for a text on standard input."
        ),
    ],
    out: Out,
    model: Model = "smollm2-gated",
    engine: Annotated[
        str, typer.Option(help="local, or ray for the workers of a Ray cluster.")
    ] = "local",
    runtime: Runtime = "masked",
    analyses: Annotated[
        str, typer.Option(help="Further tables, with commas: audit, lens. Audits take long.")
    ] = "",
    text_column: Annotated[
        str,
        typer.Option(help="Column of the text in .csv and .parquet, field in .jsonl."),
    ] = "text",
    budget: Budget = None,
    policy: Policy = None,
    limit: Limit = None,
    gates: Gates = None,
    dtype: Dtype = "float32",
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: spread over all cards, and memory.")
    ] = "cpu",
    bos: Bos = None,
    part_characters: Annotated[
        int,
        typer.Option(min=1, help="Characters that share a file; at most so much is done again."),
    ] = 200_000,
    workers: Annotated[int, typer.Option(min=1, help="With ray: workers.")] = 1,
    cpus: Annotated[float, typer.Option(min=0, help="With ray: CPUs of each worker.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="With ray: GPUs of each worker.")] = 0,
    trust_remote_code: Remote = False,
) -> None:
    """Trace every text of an input into a dataset of Parquet files.

    Stopped or killed, the same command goes on where it was.
    """
    import skipviz
    from skipviz.cli.console import corpus_progress
    from skipviz.corpus.on_ray import Workers
    from skipviz.models import SkipModel

    if "://" not in out:
        check_folder(Path(out))

    def loaded() -> SkipModel:
        return skipviz.load(
            model, budget=budget, policy=policy, limit=limit, gates=gates, dtype=dtype,
            device=device, runtime=runtime, trust_remote_code=trust_remote_code,
        )  # fmt: skip

    with corpus_progress() as report:
        summary = skipviz.trace_corpus(
            loaded, inputs, out=out, engine=engine,
            analyses=[each.strip() for each in analyses.split(",") if each.strip()],
            text_column=text_column, bos=bos, part_characters=part_characters, report=report,
            workers=Workers(count=workers, cpus=cpus, gpus=gpus),
        )  # fmt: skip
    _say(summary, out)


def import_corpus(
    traces: Annotated[
        list[Path],
        typer.Argument(help="Recordings, as docs/trace_format.md says, or traces that were saved."),
    ],
    out: Out,
) -> None:
    """Turn recordings of one model, or saved traces, into a dataset."""
    import skipviz
    from skipviz.cli.console import progress

    if "://" not in out:
        check_folder(Path(out))
    with progress("Importing", total=len(traces), unit="files") as advance:
        summary = skipviz.import_corpus(
            traces, out=out, progress=lambda share: advance(share * len(traces))
        )
    _say(summary, out)


def verify(
    folder: Annotated[str, typer.Argument(help="A dataset, or its address.")],
) -> None:
    """Compare every file of a dataset with its checksum."""
    from skipviz.cli.console import err, out
    from skipviz.corpus.verifying import damaged_files

    found = damaged_files(folder)
    for path, what in found.damaged.items():
        err.print(f"{path}: {what}.", soft_wrap=True)
    if found.damaged:
        raise InputError(
            f"{len(found.damaged):,} of {found.files:,} files of {folder} are not as they were "
            "written. Delete their parts' files in done and run the same command again."
        )
    out.print(f"All {found.files:,} files are as they were written.", soft_wrap=True)


def _say(summary: CorpusSummary, out: str) -> None:
    from skipviz.cli.console import err

    failed = (
        f" {summary.failed:,} of them could not be traced: the column error of documents.parquet "
        "says why."
        if summary.failed
        else ""
    )
    err.print(
        f"{summary.documents:,} documents, {summary.tokens:,} tokens, {summary.decisions:,} "
        f"decisions in {out}.{failed}",
        soft_wrap=True,
    )
