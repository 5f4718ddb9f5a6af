from __future__ import annotations

import zipfile
from pathlib import Path

import skipviz
from tests.cli.runner import run, sentence


def test_a_text_becomes_a_report(tmp_path: Path, model: Path, text: Path) -> None:
    page, tables = tmp_path / "report.html", tmp_path / "tables.zip"
    outcome = run(
        "report", text, "--model", model, "-o", page, "--analyses", "check,audit", "--zip", tables
    )
    assert outcome.exit_code == 0, outcome.output
    assert f"Wrote {page} and {tables}." in " ".join(outcome.stderr.split())
    said = page.read_text(encoding="utf-8")
    assert "notes.txt" in said
    assert "Are the gates right?" in said
    assert {"audit.csv", "check.csv"} <= set(zipfile.ZipFile(tables).namelist())


def test_a_saved_trace_needs_no_model(tmp_path: Path, model: Path, text: Path) -> None:
    saved, page = tmp_path / "trace.parquet", tmp_path / "report.html"
    skipviz.trace(skipviz.load(model), text.read_text(encoding="utf-8")).save(saved)
    assert run("report", saved, "-o", page, "--analyses", "check").exit_code == 0
    assert "the trace alone, without its model" in page.read_text(encoding="utf-8")
    refused = sentence(run("report", saved, "-o", page, "--analyses", "audit"))
    assert "'audit' runs the model" in refused
    assert "give it alone" in sentence(run("report", saved, text, "-o", page))


def test_an_unknown_analysis_is_refused_before_anything_runs(tmp_path: Path, text: Path) -> None:
    refused = sentence(run("report", text, "-o", tmp_path / "r.html", "--analyses", "nonsense"))
    assert "analyses='nonsense' is not one of" in refused
