"""Have a model write a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.cli.inputs import (
    Budget,
    Dtype,
    Gates,
    Policy,
    Remote,
    Runtime,
    check_apart,
    check_file,
    read_all,
)
from skipviz.errors import InputError

if TYPE_CHECKING:
    from skipviz.text.documents import Document


def generate(
    model: Annotated[str, typer.Argument(help="Sample model, folder or hub name.")],
    prompt: Annotated[str | None, typer.Option(help="The text to go on from.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            help="A file with that text, or - for standard input. A .jsonl file of one row may "
            "have messages, which the chat template writes."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The trace, for skipviz.Trace.load.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Decisions as CSV.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to write at most.")] = 128,
    temperature: Annotated[
        float, typer.Option(help="0: the most likely token each time; above: drawn.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw among tokens that come to this.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw among so many tokens; 0: all.")] = 0,
    stop_strings: Annotated[
        list[str] | None, typer.Option("--stop", help="End where the text has this.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    budget: Budget = None,
    policy: Policy = None,
    runtime: Runtime = "masked",
    gates: Gates = None,
    dtype: Dtype = "float32",
    trust_remote_code: Remote = False,
) -> None:
    """Write a text token by token, and trace every step."""
    import skipviz
    from skipviz.cli.console import err, out
    from skipviz.readings.generation import generation_reading

    for target in (output, csv):
        check_file(target)
    check_apart((output, csv), [file] if file else [])
    given = _prompt(prompt, file)
    with err.working(f"Loading {model}"):
        loaded = skipviz.load(
            model, budget=budget, policy=policy, gates=gates, dtype=dtype, runtime=runtime,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip

    def show(token: skipviz.StreamedToken) -> None:
        if token.phase == "decode":
            out.print(token.text, end="", soft_wrap=True)

    made = skipviz.generate(
        loaded, given, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
        top_k=top_k, stop_strings=stop_strings or (), seed=seed, on_token=show,
    )  # fmt: skip
    out.print()
    if csv is not None:
        made.trace.write_csv(csv)
    if output is not None:
        made.trace.save(output)
    err.print(generation_reading(made), soft_wrap=True)


def _prompt(prompt: str | None, file: str | None) -> str | Document:
    if (prompt is None) == (file is None):
        raise InputError("Give the text to go on from as --prompt TEXT or as --file FILE.")
    if prompt is not None:
        return prompt
    documents = read_all([str(file)], chat=True)
    if len(documents) != 1:
        raise InputError(f"{file} has {len(documents):,} texts; give a file with one.")
    return documents[0]
