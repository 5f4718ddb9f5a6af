"""The files of an input: found in folders and object stores, opened and unpacked."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa

from skipviz.errors import InputError, MissingExtraError

STANDARD_INPUT = "-"
FILE_KINDS = (".txt", ".md", ".jsonl", ".csv", ".parquet")
"""Files that are read in a folder; one that is named and has another ending is read as a text."""
PACKED = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of the input.

    Attributes
    ----------
    path
        Where it is, or ``-``.
    name
        What its documents are called.
    size
        Bytes on disk; None where that is not known.
    """

    path: str
    name: str
    size: int | None

    @property
    def packed(self) -> str | None:
        """How it is compressed."""
        return PACKED.get(PurePosixPath(self.path.lower()).suffix)

    @property
    def kind(self) -> str:
        """Its ending without that of the compression, as ``.jsonl``."""
        return _kind(self.path)


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """Open a file: give its bytes unpacked, and the file itself, whose place says how far it is.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    raw = _raw(source)
    try:
        unpacked: Any = raw
        if source.packed is not None:
            unpacked = io.BufferedReader(pa.CompressedInputStream(raw, source.packed))
        elif "://" in source.path:
            unpacked = io.BufferedReader(raw)  # which reads a line up to a length
        yield unpacked, raw
    finally:
        if source.path != STANDARD_INPUT:
            raw.close()


def found_sources(inputs: Sequence[str | Path]) -> Iterator[Source]:
    """Yield the files of an input, those of a folder in the order of their names.

    Parameters
    ----------
    inputs
        Files, folders, addresses such as ``s3://bucket/folder``, or ``-`` for standard input.

    Raises
    ------
    InputError
        Names what is not there, or is no file.
    """
    for each in inputs:
        if str(each) == STANDARD_INPUT:
            yield Source(path=STANDARD_INPUT, name="<stdin>", size=None)
        elif "://" in str(each):
            yield from _remote(str(each))
        else:
            yield from _local(Path(each))


def check_outside(out: str, inputs: Sequence[str | Path]) -> None:
    """Check that a dataset does not come to lie among the texts that it is made of.

    Raises
    ------
    InputError
        Names the folder.
    """
    for each in map(str, inputs):
        remote = "://" in each
        if remote != ("://" in out) or each == STANDARD_INPUT:
            continue
        inner, outer = (
            PurePosixPath(path if remote else os.path.realpath(path)) for path in (out, each)
        )
        if inner.is_relative_to(outer):
            raise InputError(
                f"{out} lies in {each}, whose files are read: the next run would take its own for "
                "texts. Name a folder beside it."
            )


def file_system(address: str) -> tuple[Any, str]:
    """Return the file system of an address or a path, and the path in it.

    Raises
    ------
    MissingExtraError
        If a package is missing that reaches it.
    InputError
        If there is no such kind of address.
    """
    try:
        system, path = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        protocol = address.partition("://")[0]
        raise MissingExtraError(
            f"{protocol}:// needs a package that is not installed ({error}). For s3:// run: "
            "pip install 'skipviz[s3]'."
        ) from error
    except ValueError as error:
        raise InputError(f"{address} is of a kind that cannot be reached ({error}).") from error
    return system, path


def _kind(path: str) -> str:
    name = PurePosixPath(path.lower())
    return PurePosixPath(name.stem).suffix if name.suffix in PACKED else name.suffix


def _local(path: Path) -> Iterator[Source]:
    shown = os.fsencode(path).decode("utf-8", errors="replace")
    try:
        if path.is_dir():
            yield from _in_folder(path, shown)
            return
        if path.exists() and not path.is_file():
            raise InputError(
                f"{shown} is a pipe or a device, not a file. Save the texts in a file and name "
                f"that, or send one to standard input and name {STANDARD_INPUT}."
            )
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{shown} does not exist. Check the spelling and the folder.") from None
    except OSError as error:
        raise InputError(f"{shown} cannot be read ({error.strerror or error}).") from None
    name = os.fsencode(path.name).decode("utf-8", errors="replace")
    yield Source(path=str(path), name=name, size=size)


def _in_folder(folder: Path, shown: str) -> Iterator[Source]:
    empty = True
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in sorted(files):
            path = Path(where) / file
            if file.startswith(".") or _kind(file) not in FILE_KINDS or not path.is_file():
                continue
            empty = False
            name = os.fsencode(path.relative_to(folder)).decode("utf-8", errors="replace")
            yield Source(path=str(path), name=name, size=path.stat().st_size)
    if empty:
        raise InputError(
            f"{shown} has no file whose name ends in {', '.join(FILE_KINDS)}, packed with gz or "
            "zst or not. Name another folder, or the files."
        )


def _remote(address: str) -> Iterator[Source]:
    system, root = file_system(address)
    try:
        found = system.find(root, detail=True)
    except OSError as error:
        raise InputError(f"{address} cannot be read ({error}).") from error
    protocol = address.partition("://")[0]
    kept = {
        path: about for path, about in found.items() if path == root or _kind(path) in FILE_KINDS
    }
    if not kept:
        raise InputError(f"{address} has no file whose name ends in {', '.join(FILE_KINDS)}.")
    for path in sorted(kept):
        name = PurePosixPath(path).name if path == root else path.removeprefix(root).lstrip("/")
        yield Source(path=f"{protocol}://{path}", name=name, size=kept[path].get("size"))


def _raw(source: Source) -> Any:
    if source.path == STANDARD_INPUT:
        if sys.stdin is None:
            raise InputError("Standard input is closed; name a file in place of -.")
        return sys.stdin.buffer
    try:
        if "://" in source.path:
            system, path = file_system(source.path)
            return system.open(path, "rb")
        return open(source.path, "rb")
    except OSError as error:
        raise InputError(
            f"{source.name} cannot be read ({error.strerror or error}). Check its permissions."
        ) from error
