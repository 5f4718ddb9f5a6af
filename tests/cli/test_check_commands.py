from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import skipviz
from tests import published, tiny
from tests.cli.runner import run, sentence


def test_a_model_is_checked(model: Path, tmp_path: Path) -> None:
    target, page = tmp_path / "found.json", tmp_path / "found.html"
    outcome = run("check", model, "--ignore", "SKV013", "--json", target, "--html", page)
    told = json.loads(target.read_text(encoding="utf-8"))
    assert outcome.exit_code == (0 if told["passed"] else 1)
    assert "SKV001 passed" in outcome.stdout
    assert "SKV013 ignored" in outcome.stdout
    html = page.read_text(encoding="utf-8")
    assert html.count("<article") == len(told["findings"])
    assert "<script" not in html


def test_a_trace_is_checked_without_its_model(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "fox.parquet"
    skipviz.trace(skipviz.load(model), tiny.TEXT).save(path)
    outcome = run("check", path, "--ignore", "SKV013")
    assert outcome.exit_code == 0, outcome.output
    assert [line[:6] for line in outcome.stdout.splitlines() if line.startswith("SKV")] == [
        "SKV007", "SKV011", "SKV013", "SKV014"
    ]  # fmt: skip


def test_an_issue_is_an_exit_code(model: Path, tmp_path: Path) -> None:
    found = skipviz.check(skipviz.load(model), tiny.TEXT)
    text = tmp_path / "fox.txt"
    text.write_text(tiny.TEXT)
    assert run("check", model, "--text", text).exit_code == (0 if found.passed else 1)


def test_an_unknown_code_is_a_sentence(model: Path) -> None:
    assert "There is no check 'SKV99'" in sentence(run("check", model, "--ignore", "SKV99"))


@pytest.fixture
def routed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that loads as a model with routers of no known method."""
    folder = tmp_path / "routed"
    tiny.backbone(seed=0).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    monkeypatch.setattr(
        "skipviz.models.loading._from_pretrained", lambda *_, **__: (published.routed(), {})
    )
    monkeypatch.setattr("skipviz.models.loading.check_loaded", lambda *_: None)
    return folder


def test_gates_are_proposed_and_then_read(routed_folder: Path, tmp_path: Path) -> None:
    assert "looks like a skipping model" in sentence(run("check", routed_folder))
    proposal, text = tmp_path / "gates.yaml", tmp_path / "fox.txt"
    text.write_text(tiny.TEXT)
    outcome = run("inspect", routed_folder, "--text", text)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.startswith("# 6 layers, emits [1, ")
    assert "agreement 100%" in outcome.stdout
    proposal.write_text(outcome.stdout, encoding="utf-8")
    assert yaml.safe_load(proposal.read_text())["module"] == "model.layers.{layer}.router"
    parquet = tmp_path / "fox.parquet"
    traced = run("trace", text, "--model", routed_folder, "--gates", proposal, "--parquet", parquet)
    assert traced.exit_code == 0, traced.output
    assert skipviz.Trace.load(parquet).sites.height == tiny.LAYERS
    other = tmp_path / "other.yaml"
    other.write_text(proposal.read_text(encoding="utf-8") + "layers: [1, 2]\n", encoding="utf-8")
    setups = [skipviz.load(routed_folder, gates=path).setup_sha256 for path in (proposal, other)]
    assert setups[0] != setups[1]
    assert "SKV008 passed" in run("check", routed_folder, "--gates", proposal).stdout
