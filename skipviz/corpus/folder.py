"""The folder of a dataset, on a disk or in an object store: every file is there whole or not."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skipviz.corpus.format import DONE_FOLDER, PARTIAL, TOKENS_FOLDER
from skipviz.corpus.object_lock import ObjectLock
from skipviz.corpus.sources import file_system
from skipviz.errors import InputError, StoreError
from skipviz.parquet import before_a_path

LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file of a dataset, as its manifest lists it.

    Attributes
    ----------
    path
        Relative to the dataset.
    rows, bytes, sha256
        What is in it.
    """

    path: str
    rows: int
    bytes: int
    sha256: str

    def listed(self) -> dict[str, Any]:
        """Return it as the manifest has it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A file that is written and has not got its name yet.

    Attributes
    ----------
    under
        The name under which it lies.
    file
        What it will be.
    """

    under: str
    file: WrittenFile


class StagedWriter(io.RawIOBase):
    """Passes on what is written, and counts and hashes it.

    Parameters
    ----------
    raw
        Where it goes.
    under, name
        Of the staged file, and of what it will be.
    """

    def __init__(self, raw: Any, *, under: str, name: str) -> None:
        super().__init__()
        self._raw, self._under, self._name = raw, under, name
        self._digest = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        """Say that it is for writing."""
        return True

    def tell(self) -> int:
        """Return how many bytes there are."""
        return self._size

    def write(self, data: Any) -> int:
        """Write some bytes."""
        self._digest.update(data)
        self._size += len(data)
        self._raw.write(data)
        return len(data)

    def staged(self, rows: int) -> Staged:
        """Return what was written, with so many rows."""
        made = WrittenFile(
            path=self._name, rows=rows, bytes=self._size, sha256=self._digest.hexdigest()
        )
        return Staged(under=self._under, file=made)


class DatasetFolder:
    """Reads and writes the files of a dataset.

    Parameters
    ----------
    where
        A folder, or an address such as ``s3://bucket/folder``.
    called
        What errors call it: of a server, a visitor is not told where it lies. None: ``where``.
    """

    def __init__(self, where: str | Path, *, called: str | None = None) -> None:
        self.where = str(where)
        self.called = self.where if called is None else called
        self._remote = "://" in self.where
        address = self.where if self._remote else str(Path(where).absolute())
        self._system, self._root = file_system(address)
        self._lock: ObjectLock | None = None

    def path(self, name: str) -> str:
        """Return where a file is, as Polars and pyarrow take it."""
        return f"{self.where.rstrip('/')}/{name}"

    def named(self, name: str) -> str:
        """Return what a file is called in an error."""
        return f"{self.called.rstrip('/')}/{name}"

    @property
    def private(self) -> bool:
        """Whether a reader of errors is not to be told where it lies."""
        return self.called != self.where

    def told(self, reason: object) -> str:
        """Return what a library said, as a reader of errors may be told it."""
        return before_a_path(str(reason)) if self.private else str(reason)

    def names(self, folder: str) -> set[str]:
        """Return the files of a folder in the dataset; none where there is no such folder."""
        try:
            found = self._system.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return set()
        return {each.rstrip("/").rpartition("/")[2] for each in found}

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""
        return bool(self._system.exists(self._at(name)))

    def open(self, name: str) -> Any:
        """Open a file to read."""
        return self._system.open(self._at(name), "rb")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return what a JSON file holds; None where there is none.

        Raises
        ------
        StoreError
            If it holds something else.
        """
        if not self.exists(name):
            return None
        try:
            with self.open(name) as file:
                data = file.read()
        except OSError as error:
            reason = self.told(error.strerror or error)
            raise StoreError(
                f"{self.named(name)} cannot be read ({reason}). Check its permissions."
            ) from error
        try:
            found = json.loads(data)
        except ValueError as error:
            raise StoreError(f"{self.named(name)} is damaged: it is no JSON ({error}).") from error
        if not isinstance(found, dict):
            raise StoreError(f"{self.named(name)} is damaged: it holds no JSON object.")
        return found

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        data = (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
        self.commit(self.stage(name, data, rows=0))

    def stage(self, name: str, data: bytes, *, rows: int) -> Staged:
        """Write a file under a name of its own, so that several may write the same one.

        Parameters
        ----------
        name
            Of the file, relative to the dataset.
        data, rows
            What it holds.

        Raises
        ------
        InputError
            If it cannot be written, as on a full disk.
        """
        with self.staging(name) as file:
            file.write(data)
        return file.staged(rows)

    @contextmanager
    def staging(self, name: str) -> Iterator[StagedWriter]:
        """Give a file to write to, under a name of its own, in this block."""
        under = f"{name}.{uuid.uuid4().hex}{PARTIAL}"
        with self._writing(under):
            if not self._remote:
                Path(self._at(under)).parent.mkdir(parents=True, exist_ok=True)
            with self._system.open(self._at(under), "wb") as raw:
                yield StagedWriter(raw, under=under, name=name)
                if not self._remote:
                    raw.flush()
                    os.fsync(raw.fileno())

    def commit(self, staged: Staged) -> None:
        """Give a staged file its name."""
        under, name = self._at(staged.under), self._at(staged.file.path)
        self._check_held()
        with self._writing(staged.file.path):
            if self._remote:
                self._system.mv(under, name)
            else:
                os.replace(under, name)

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        self._check_held()
        if self.exists(name):
            with self._writing(name):
                self._system.rm_file(self._at(name))

    def sweep(self, folder: str) -> None:
        """Delete what a run that was killed has left in a folder of the dataset."""
        for name in self.names(folder):
            if name.endswith(PARTIAL):
                self._system.rm_file(self._at(f"{folder}/{name}" if folder else name))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs from writing to the same folder.

        Raises
        ------
        InputError
            If one does.
        """
        if self._remote:
            with self._writing(LOCK):
                self._lock = ObjectLock(self._system, self._at(LOCK), called=self.called)
            try:
                yield
            finally:
                self._lock.release()
                self._lock = None
            return
        made = not Path(self._root).exists()
        with self._writing(""):
            Path(self._root).mkdir(parents=True, exist_ok=True)
            lock = FileLock(Path(self._root) / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise InputError(
                    f"Another run is writing to {self.called}. Wait for it, or name another folder."
                ) from None
        try:
            yield
        finally:
            lock.release()
            self._leave_nothing_empty(made=made)

    def _check_held(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _leave_nothing_empty(self, *, made: bool) -> None:
        """Delete what a run that wrote nothing has made."""
        root = Path(self._root)
        if any(each.is_file() and each.name != LOCK for each in root.rglob("*")):
            return
        (root / LOCK).unlink(missing_ok=True)
        for each in (TOKENS_FOLDER, DONE_FOLDER, "") if made else (TOKENS_FOLDER, DONE_FOLDER):
            if (root / each).is_dir() and not any((root / each).iterdir()):
                (root / each).rmdir()

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Say in a sentence what the file system refuses."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "Free some space" if full else "Check its permissions and its disk"
            if not self._remote:
                Path(self._at(name)).unlink(missing_ok=True) if name.endswith(PARTIAL) else None
            raise InputError(
                f"{self.called} cannot be written ({error.strerror or error}). What is done is "
                f"there and can be read. {advice} and run the same command again: it goes on."
            ) from error
