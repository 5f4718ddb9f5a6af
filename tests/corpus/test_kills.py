"""Killed anywhere and begun again, a run loses and doubles nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import skipviz
from tests.corpus import datasets
from tests.corpus.conftest import rows, write_rows

Run = Callable[..., skipviz.CorpusSummary]


class Killed(BaseException):
    """No handler of errors sees it, as none sees a kill."""


@pytest.mark.slow
def test_killed_at_every_write_a_run_ends_with_the_same_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = write_rows(tmp_path / "few.jsonl", rows(2))
    run = partial(run, inputs=few, part_characters=100)
    run(out="whole")
    expected = datasets.contents(tmp_path / "whole")
    calls = 0
    kill_at = 0

    def dies(real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at and not after:
                raise Killed
            result = real(*arguments)
            if calls == kill_at:
                raise Killed
            return result

        return call

    monkeypatch.setattr("skipviz.corpus.folder.os.fsync", dies(os.fsync, after=False))
    kills = 0
    for after in (False, True):
        monkeypatch.setattr("skipviz.corpus.folder.os.replace", dies(os.replace, after=after))
        out = f"killed-{after}"
        for number in range(1, 100):  # each run lives one write longer than the last
            calls, kill_at = 0, number
            try:
                run(out=out)
                break
            except Killed:
                kills += 1
            done = {path.stem for path in (tmp_path / out / "done").glob("*.parquet")}
            tokens = {path.stem for path in (tmp_path / out / "tokens").glob("*.parquet")}
            assert done <= tokens
        assert datasets.contents(tmp_path / out) == expected
        datasets.is_whole(tmp_path / out)
    assert kills > 4
