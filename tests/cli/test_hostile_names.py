"""Names on a terminal are text: no markup, no emoji, and no escape sequence that commands it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from typer.testing import Result

import skipviz
from tests import tiny
from tests.cli.runner import run
from tests.folders import write_gated

HOSTILE = "[red]a[bold] :smile: ![x](e) **b** $x$ <i> =1+1 \x1b[31m\x1b]0;t\x9b1m\u202e|z"
SHOWN = (
    r"[red]a[bold] :smile: ![x](e) **b** $x$ <i> =1+1 \x1b[31m\x1b]0;t\x9b1m\u202e|z"
)  # fmt: skip


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2000")


@pytest.fixture
def model(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """A model in a folder of a hostile name."""
    return write_gated(tmp_path / HOSTILE, backbone=tiny_model_folder)


def words(outcome: Result, *, status: int = 0) -> str:
    """What was printed, having made sure that it commands no terminal."""
    assert outcome.exit_code == status, outcome.output
    text = outcome.stdout + outcome.stderr
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert "Traceback" not in text
    assert "fault in skipviz" not in text
    return text


def test_a_model_is_named_as_it_is(model: Path) -> None:
    assert SHOWN in words(run("models", "info", model))


def test_what_skipviz_json_says_is_text(model: Path) -> None:
    path = model / "skipviz.json"
    fields = json.loads(path.read_text()) | {"backbone": HOSTILE}
    path.write_text(json.dumps(fields))
    assert SHOWN in words(run("models", "info", model), status=1)
    path.write_text(json.dumps(fields | {"policy": HOSTILE}))
    assert SHOWN in words(run("trace", "-", "--model", model, stdin=b"text"), status=1)
    path.write_text(json.dumps({HOSTILE: 1}))
    words(run("models", "info", model), status=1)


def test_a_policy_of_skipviz_json_is_text(model: Path) -> None:
    path = model / "skipviz.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"policy": HOSTILE}))
    assert SHOWN in words(run("models", "info", model))


def test_a_text_and_its_file_are_named_as_they_are(tmp_path: Path, model: Path) -> None:
    file = tmp_path / f"{HOSTILE}.jsonl"
    file.write_text(HOSTILE)
    assert SHOWN in words(run("trace", file, "--model", model), status=1)
    file.write_text(json.dumps({"text": f"{HOSTILE} {tiny.TEXT}"}))
    target = tmp_path / f"{HOSTILE}.csv"
    said = words(run("trace", file, "--model", model, "--csv", target))
    assert "tokens" in said
    assert target.read_text(encoding="utf-8").count("\n") > 50
    missing = tmp_path / HOSTILE / "no" / HOSTILE
    assert SHOWN in words(run("trace", file, "--model", model, "--csv", missing), status=1)
    for option in ("--policy", "--dtype"):
        assert SHOWN in words(run("trace", file, "--model", model, option, HOSTILE), status=1)


def test_a_recording_is_named_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / f"{HOSTILE}.jsonl"
    file.write_text(json.dumps({"kind": HOSTILE}) + "\n")
    assert SHOWN in words(run("import", file, "--output", tmp_path / "x"), status=1)


def test_a_table_of_models_is_not_broken_by_a_name(
    tmp_path: Path, model: Path, held_out: list[skipviz.Document]
) -> None:
    csv, card = tmp_path / "out.csv", tmp_path / "README.md"
    said = words(run("evaluate", model, "--csv", csv, "--budget", "0.8"))
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert SHOWN.replace("|", "\\|") in said
    assert "\x1b" in csv.read_text()  # a file is for programs
    words(run("evaluate", model, "--card", card))
    written = MarkdownIt("commonmark").enable("table").parse(card.read_text(encoding="utf-8"))
    kinds = {part.type for block in written for part in block.children or []}
    assert "image" not in kinds
    assert "html_inline" not in kinds


@pytest.mark.parametrize("name", ["[/red]", "[blink]x[/]", ":smile:"])
def test_markup_in_the_name_of_a_model_is_not_looked_for(text: Path, name: str) -> None:
    assert name in words(run("trace", text, "--model", name), status=1)


def test_a_folder_that_is_not_utf_8_is_a_sentence(tmp_path: Path, text: Path) -> None:
    said = words(run("trace", text, "--model", tmp_path / os.fsdecode(b"gat\xffed")), status=1)
    assert "gat?ed is a name that is not UTF-8" in said
