"""The comparison of external packages notices what does not agree; no package is run here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from external_tests.check import check
from external_tests.run import ENVIRONMENTS, HERE
from skipviz.recorder_kit import Recorder

RAN = [[1, 0], [1, 1], [0, 1]]


def written(folder: Path, *, ran: list[list[int]], reading: list[list[Any]]) -> Path:
    sites = [{"layer": layer, "unit": "block"} for layer in range(2)]
    with Recorder(folder / "toy.jsonl", sites=sites, layers=2) as recorder:
        recorder.tokens([["a", "b", "c"]])
        for site in range(2):
            recorder.gate(site, ran=[row[site] for row in ran])
    told = {"packages": {"toy": "1.0"}, "readings": {"by hand": reading}, "seen": {}}
    (folder / "toy.reading.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def test_what_agrees_passes_and_every_fault_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = [*RAN[:2], [None, 1]]
    assert check(written(tmp_path, ran=RAN, reading=reading)) == []
    said = capsys.readouterr().out
    assert "5 of 5 decisions agree: by hand" in said
    assert said.count("fault noticed") == 3


@pytest.mark.parametrize(
    "reading",
    [
        [[1, 0], [1, 1], [1, 1]],
        [[0, 1], [1, 1], [1, 0]],  # one layer off
        [[2, 0], [1, 1], [0, 1]],
        [[1, 0], [1, 1]],
        [[None, None]] * 3,
    ],
)
def test_one_decision_that_differs_fails(reading: list[list[Any]], tmp_path: Path) -> None:
    assert "toy" in " ".join(check(written(tmp_path, ran=RAN, reading=reading)))


def test_a_fault_that_a_reading_cannot_see_fails(tmp_path: Path) -> None:
    reading = [[1, 0], [None, None], [None, None]]
    assert check(written(tmp_path, ran=[[1, 0]] * 2 + [[0, 0]], reading=reading)) == []
    with Recorder(tmp_path / "toy.fault-none.jsonl", sites=[], layers=2) as recorder:
        recorder.token("a")
    (tmp_path / "toy.fault-none.jsonl").write_bytes((tmp_path / "toy.jsonl").read_bytes())
    assert check(tmp_path) == ["toy: the fault 'none' was not noticed (by hand)"]


def test_every_script_is_run_and_every_version_is_named() -> None:
    scripts = [script for each in ENVIRONMENTS.values() for script in each.scripts]
    found = {path.name for path in (HERE / "packages").glob("*.py")} - {"tiny.py"}
    assert sorted(scripts) == sorted(found)
    for environment in ENVIRONMENTS.values():
        assert any("transformers==" in each for each in environment.requirements)
