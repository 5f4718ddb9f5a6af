"""What several commands take, and where they write."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skipviz.errors import InputError

if TYPE_CHECKING:
    from skipviz.text.documents import Document

MOST_TEXT_BYTES = 512 << 20
"""Of a file of texts; a trace ends long before."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""C0 and C1, and what turns the direction of writing."""

Remote = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let Python code that comes with the model run."),
]

Model = Annotated[str, typer.Option(help="Sample model, folder or hub name.")]
Budget = Annotated[float | None, typer.Option(help="One of the calibrated budgets.")]
Policy = Annotated[
    str | None, typer.Option(help="One of the model's policies, such as a rule of early exits.")
]
Limit = Annotated[
    float | None, typer.Option(help="The guarded policy: nats over dense that may be lost.")
]
Gates = Annotated[Path | None, typer.Option(help="A YAML file that describes the model's gates.")]
Dtype = Annotated[str, typer.Option(help="float32, exact, or bfloat16, faster.")]
Runtime = Annotated[
    Literal["masked", "gathered"],
    typer.Option(help="Compute everything, or only what is not skipped."),
]
Bos = Annotated[
    bool | None,
    typer.Option(
        "--bos/--no-bos",
        help="Begin each text with the begin-of-sequence token, or without; as the tokenizer "
        "does, if not given.",
    ),
]
Excel = Annotated[
    bool, typer.Option("--excel", help="CSV with a byte order mark, as Excel wants it.")
]


def visible(text: str) -> str:
    """Return a text whose control characters are spelt out, but for line ends and tabs.

    An escape sequence in a name could colour, move or rename what a terminal shows.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def read_all(names: list[str] | None, *, chat: bool = False) -> list[Document]:
    """Read the texts of files, - being standard input, and conversations if they may be there.

    Which encodings were guessed is told.
    """
    found = [document for name in names or [] for document in _read(name, chat=chat)]
    if foreign := sorted({document.encoding for document in found} - {"utf-8"}):
        from skipviz.cli.console import err

        err.print(f"Read as {', '.join(foreign)}. Check that all letters are right.")
    return found


def _read(name: str, *, chat: bool) -> list[Document]:
    from skipviz.text.documents import read_path, read_stream

    if name != "-":
        return read_path(Path(name), limit=MOST_TEXT_BYTES, chat=chat)
    if sys.stdin is None:
        raise InputError("Standard input is closed; name a file in place of -.")
    return read_stream(sys.stdin.buffer.read(MOST_TEXT_BYTES + 1), limit=MOST_TEXT_BYTES)


@contextmanager
def to_standard_output() -> Iterator[None]:
    """Say in a sentence that standard output is closed, or on a full disk.

    Raises
    ------
    InputError
        If nothing can be written to it. That its reader has seen enough, as ``head`` has, stays a
        ``BrokenPipeError``.
    """
    if sys.stdout is None:
        raise InputError("Standard output is closed; send it to a file or to a terminal.")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = None  # or Python would try once more at its end
        raise InputError(
            f"Standard output cannot be written ({error.strerror}); send it to another file."
        ) from error


def print_bytes(data: bytes) -> None:
    """Write to standard output."""
    with to_standard_output():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def check_apart(targets: Sequence[Path | None], sources: Sequence[str | Path] = ()) -> None:
    """Check that no file is written over one that is read, or over another result.

    Parameters
    ----------
    targets
        Files to write; None for none.
    sources
        Files to read, - being standard input.

    Raises
    ------
    InputError
        Names the file.
    """
    seen = {os.path.realpath(source): "read" for source in sources if str(source) != "-"}
    for target in targets:
        if target is None or (target.exists() and not target.is_file()):  # such as /dev/null
            continue
        place = os.path.realpath(target)
        if place in seen:
            raise InputError(
                f"{target} would be written over what is {seen[place]} there; name another file."
            )
        seen[place] = "written"


def check_file(target: Path | None) -> None:
    """Find out before a long run that its result could not be written to a file."""
    if target is None:
        return
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file in it to write to.")
    if not target.parent.is_dir():
        raise InputError(f"There is no folder {target.parent} to write {target.name} to; make it.")
    # A file is replaced by one written beside it; a pipe or a device is written itself.
    needed = [target] if target.exists() else []
    needed += [] if needed and not target.is_file() else [target.parent]
    _check_writable(target, needed)


def check_folder(target: Path) -> None:
    """Find out before a long run that a folder could not be made or written to."""
    nearest = next(each for each in (target, *target.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest} is a file, not a folder to write to; name another.")
    _check_writable(target, [nearest])


def _check_writable(target: Path, needed: list[Path]) -> None:
    if not all(os.access(each, os.W_OK) for each in needed):
        raise InputError(
            f"{target} cannot be written by this user. Change its permissions and those of its "
            "folder, or name another."
        )
