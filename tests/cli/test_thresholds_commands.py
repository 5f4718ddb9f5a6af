from __future__ import annotations

import json
from pathlib import Path

import pytest

import skipviz
import skipviz.corpora.held_out
import skipviz.recording.tracing
import skipviz.training.choices
import skipviz.training.finish
import skipviz.training.prepare
from skipviz.analysis.flops import realised_budget
from skipviz.evaluation.card import model_card
from tests import tiny
from tests.cli.runner import run, sentence
from tests.folders import write_gated


@pytest.mark.long
@pytest.mark.slow
def test_guard_and_calibrate_write_what_they_find(
    tmp_path: Path, tiny_model_folder: Path, held_out: list[skipviz.Document]
) -> None:
    model = write_gated(tmp_path / "gated", backbone=tiny_model_folder)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": tiny.TEXT[n:]}) for n in range(20)))
    outcome = run("guard", model, "--limit", "1000", "--text", texts)
    assert outcome.exit_code == 0, outcome.output
    assert "(Student's t test). This assumes" in outcome.output
    clipped = run("guard", model, "--limit", "3", "--clip", "4", "--text", texts)
    assert "clipped at 4 nats for each document, stays below 3 nats" in clipped.output
    assert "whatever the distribution of losses" in clipped.output
    kept = skipviz.load(model).settings
    assert kept is not None
    assert "clipped at 4 nats" in kept.promise(3.0)
    assert "Student's t" in kept.promise(1000.0)
    assert model_card("tiny", model, "", command="x").count("- With 95% confidence") == 2
    again = run("guard", model, "--limit", "3", "--text", texts)
    assert "(Student's t test)" in again.output
    assert "clips" not in (model / "skipviz.json").read_text()
    guarded = skipviz.load(model, limit=1000.0)
    assert (guarded.policy, guarded.limit, guarded.budget) == ("guarded", 1000, None)
    assert run("trace", texts, "--model", model, "--limit", "1000").exit_code == 0
    with pytest.raises(ValueError, match=r"not guarded for limit=2; there are 1000, 3\."):
        skipviz.load(model, limit=2.0)
    settings = json.loads((model / "skipviz.json").read_text())
    settings["thresholds"] = {"0.8": 0.0}
    (model / "skipviz.json").write_text(json.dumps(settings))
    assert run("calibrate", model).exit_code == 0
    traced = skipviz.trace(skipviz.load(model), held_out, statistics=False)
    assert realised_budget(traced) == pytest.approx(0.8, abs=0.01)
    outcome = run("calibrate", model, "--budget", "0.7")
    assert outcome.exit_code == 0, outcome.output
    kept = json.loads((model / "skipviz.json").read_text())["thresholds"]
    assert list(kept) == ["0.8", "0.7"]
    traced = skipviz.trace(skipviz.load(model, budget=0.7), held_out, statistics=False)
    assert realised_budget(traced) == pytest.approx(0.7, abs=0.01)
    assert "Budget 0.01 is out of reach" in sentence(run("calibrate", model, "--budget", "0.01"))


@pytest.mark.slow
def test_thresholds_for_a_kind_of_text_are_kept_under_its_name(tmp_path: Path, model: Path) -> None:
    text = tmp_path / "my own.txt"
    text.write_text(tiny.TEXT * 3, encoding="utf-8")
    before = (model / "skipviz.json").read_bytes()
    outcome = run("calibrate", model, "--budget", "0.75", "--text", text)
    assert outcome.exit_code == 0, outcome.output
    assert "tokens held out" in outcome.output
    assert "--policy my-own" in outcome.output
    assert (model / "skipviz.json").read_bytes() == before
    mine = skipviz.load(model, policy="my-own")
    assert (mine.policy, mine.budget) == ("my-own", 0.75)
    traced = skipviz.trace(mine, tiny.TEXT * 3, statistics=False)
    assert traced.run["policy"].item() == "my-own"
    assert realised_budget(traced) == pytest.approx(0.75, abs=0.02)
    assert skipviz.load(model).policy == "learned"
    assert skipviz.with_policy(mine, "learned", budget=0.6).budget == 0.6
    for name in ("learned", "a b", "../x", "ü", ""):
        said = sentence(run("calibrate", model, "--text", text, "--name", name))
        assert "name" in said
    assert "goes with a text of your own" in sentence(run("calibrate", model, "--name", "mine"))
