from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import polars as pl
import pytest

from skipviz.atomic import atomic_write, write_table
from skipviz.errors import InputError
from skipviz.folders import sample_folders
from skipviz.models import read_settings


def full(path: Path, *_: object, **__: object) -> int:
    path.touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    target.write_text("before")
    said = r"kept\.txt cannot be written \(No space left"
    with pytest.raises(InputError, match=said), atomic_write(target) as path:
        full(path)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_that_has_left_is_no_failure_to_write(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), atomic_write(tmp_path / "pipe"):
        raise BrokenPipeError


def test_a_fault_while_writing_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_write(tmp_path / "a.txt") as path:
        path.with_name({}["no name"]).touch()
    assert not list(tmp_path.iterdir())


def test_a_table_is_written_to_file_and_buffer_alike(tmp_path: Path) -> None:
    frame, buffer = pl.DataFrame({"a": [1, 2]}), io.BytesIO()
    write_table(frame, buffer, metadata={"by": "me"})
    write_table(frame, str(tmp_path / "a.parquet"), metadata={"by": "me"})
    assert (tmp_path / "a.parquet").read_bytes() == buffer.getvalue()
    assert pl.read_parquet(tmp_path / "a.parquet").equals(frame)
    assert pl.read_parquet_metadata(tmp_path / "a.parquet")["by"] == "me"


def test_a_table_that_a_device_has_no_room_for() -> None:
    with pytest.raises(InputError, match=r"/dev/full cannot be written \(No space left"):
        write_table(pl.DataFrame({"a": [1, 2]}), Path("/dev/full"))


def test_settings_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(sample_folders()["smollm2-gated"])
    settings.write(tmp_path)
    before = (tmp_path / "skipviz.json").read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"skipviz\.json cannot be written \(No space left"):
        settings.write(tmp_path)
    assert (tmp_path / "skipviz.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["skipviz.json"]
