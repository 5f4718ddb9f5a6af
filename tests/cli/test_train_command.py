from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import skipviz
import skipviz.corpora.held_out
import skipviz.recording.tracing
import skipviz.training.choices
import skipviz.training.finish
import skipviz.training.prepare
from skipviz.analysis.flops import realised_budget
from skipviz.budgets import Budgets
from skipviz.families.gated.modules import GatedConfig, gate_parameters, gated_units, install_gates
from skipviz.families.gated.settings import GatedSettings
from tests import tiny
from tests.cli.runner import run, sentence
from tests.folders import write_gated


@pytest.mark.slow
def test_train_refuses_gates_and_windows_of_another_backbone(
    tmp_path: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = write_gated(tmp_path / "start", backbone=tiny_model_folder)
    settings = json.loads((start / "skipviz.json").read_text())
    (start / "skipviz.json").write_text(json.dumps({**settings, "backbone_sha256": "other"}))
    made = tmp_path / "made"
    command = ["train", "--backbone", tiny_model_folder, "--out", made, "--steps", "1"]
    assert "has other weights" in sentence(run(*command, "--start", start))
    assert not made.exists()
    windows = tmp_path / "windows"
    windows.mkdir()
    ids = {"windows": torch.ones(480, 257, dtype=torch.long)}
    save_file(ids, windows / "windows.safetensors", metadata={"backbone": "other"})
    assert "token ids of another backbone" in sentence(run(*command, "--windows", windows))
    owner = {"backbone": settings["backbone_sha256"]}
    save_file(ids, windows / "windows.safetensors", metadata=owner)
    assert "do not say which texts they are of" in sentence(run(*command, "--windows", windows))
    like = write_gated(tmp_path / "like", backbone=tiny_model_folder)
    assert "does not gate layers 2 to 3" in sentence(
        run(*command, "--objective", "random", "--like", like)
    )


def random_windows(*_: Any, count: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 260, (count, length), generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (["--objective", "static", "--choose", "block-influence"], "static"),
        (["--objective", "static", "--choose", "greedy"], "static"),
        (["--objective", "random", "--like", "like"], "random"),
    ],
)
def test_train_makes_policies_that_do_not_look(
    tmp_path: Path,
    text: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    policy: str,
) -> None:
    like: list[str] = []

    def gates(folder: str) -> skipviz.SkipModel:
        like.append(folder)
        model = tiny.backbone(seed=0)
        shape = GatedConfig(first_layer=2, last_layer=3, gate_hidden=4, adapter_rank=2)
        install_gates(model, shape)
        for _, _, unit in gated_units(model):
            torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
            torch.nn.init.zeros_(unit.gate.up.bias)
        settings = GatedSettings(
            backbone="tiny",
            backbone_sha256="",
            gates_sha256="",
            gates=shape,
            thresholds=Budgets({0.83: 1.6, 0.91: 0.0}),
            budget=0.83,
            policy="learned",
        )
        return dataclasses.replace(skipviz.from_parts(model, tiny.tokenizer()), settings=settings)

    real = skipviz.training.choices.load
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", random_windows)
    monkeypatch.setattr(
        skipviz.training.choices,
        "load",
        lambda name, **kwargs: gates(name, **kwargs) if name == "like" else real(name, **kwargs),
    )
    made = tmp_path / "made"
    command = [
        "train", "--backbone", tiny_model_folder, "--out", made, "--steps", "2", "--batch", "2",
        "--length", "16", "--budget", "0.83", "--also", "0.91", *options,
    ]  # fmt: skip
    assert run(*command).exit_code == 0
    loaded = skipviz.load(made / "model", budget=0.91)
    traced = skipviz.trace(loaded, tiny.TEXT)
    assert traced.run["policy"].item() == policy
    rates = traced.matrix("exec_count").mean(axis=0)
    if policy == "static":
        assert set(rates) == {0.0, 1.0}
    else:
        assert like == ["like"]  # loaded once for all budgets
        assert 0 < rates.mean() < 1
    more = skipviz.trace(skipviz.load(made / "model"), tiny.TEXT)
    assert realised_budget(more) < realised_budget(traced)
    weights = (made / "model" / "gates.safetensors").read_bytes()
    assert run(*command).exit_code == 0  # the same command finds everything done
    assert (made / "model" / "gates.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_train_makes_a_model_that_traces(
    tmp_path: Path,
    text: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", random_windows)
    monkeypatch.setattr(skipviz.training.finish, "calibrate", lambda *_, **__: 0.25)
    made = tmp_path / "made"
    outcome = run(
        "train", "--backbone", tiny_model_folder, "--out", made, "--steps", "2", "--batch", "2",
        "--length", "16", "--objective", "cost", "--ce-weight", "0.25",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    runs = json.loads((made / "model" / "training.json").read_text())
    assert runs[-1]["steps"] == 2
    assert (runs[-1]["ce_weight"], runs[-1]["kl_weight"]) == (0.25, 0.75)
    assert runs[-1]["training_tokens"] == 64
    assert run("trace", text, "--model", made / "model").exit_code == 0


def halved(trace: skipviz.Trace) -> pl.DataFrame:
    return trace.sites.with_columns(rate=pl.lit(0.5))


def short_run(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A command that trains on a few random tokens, and calibrates nothing."""
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", random_windows)
    monkeypatch.setattr(skipviz.training.finish, "calibrate", lambda *_, **__: 0.0)
    return ["train", "--backbone", backbone, "--batch", "2", "--length", "16"]


@pytest.mark.slow
def test_a_random_policy_starts_from_the_adapters_of_gates(
    tmp_path: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = short_run(tiny_model_folder, monkeypatch)
    gates = tmp_path / "gates"
    assert run(*short, "--out", gates, "--steps", "2").exit_code == 0
    start = gates / "model"
    monkeypatch.setattr(skipviz.training.choices, "execution_rates", halved)
    # What windows are of is said by their file, whatever new ones would be of.
    monkeypatch.setattr(skipviz.training.prepare, "SOURCE_SHARES", {"other": 1.0})
    outcome = run(
        *short, "--out", tmp_path / "made", "--steps", "1", "--adapter-lr", "0", "--objective",
        "random", "--start", start, "--like", start, "--windows", gates,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    made = tmp_path / "made" / "model"
    mine, theirs = (load_file(folder / "gates.safetensors") for folder in (made, start))
    assert mine
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    runs = json.loads((made / "training.json").read_text())
    assert [each["training_tokens"] for each in runs] == [64, 32]
    assert [each["objective"] for each in runs] == ["cost", "fixed"]
    assert "gate_lr" in runs[0]
    assert "gate_lr" not in runs[1]  # there was no gate to learn
    assert runs[1]["sources"] == runs[0]["sources"]


@pytest.mark.slow
def test_a_run_cut_off_is_taken_up_from_the_adapters_asked_for(
    tmp_path: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = short_run(tiny_model_folder, monkeypatch)
    gates = tmp_path / "gates"
    assert run(*short, "--out", gates, "--steps", "2").exit_code == 0
    start = gates / "model"
    fixed = [
        *short, "--out", tmp_path / "made", "--steps", "1", "--adapter-lr", "0", "--objective",
        "static", "--choose", "block-influence", "--windows", gates,
    ]  # fmt: skip
    real = skipviz.training.choices.block_influence

    def cut_off(*_: Any) -> list[float]:
        raise skipviz.InputError("cut off")

    monkeypatch.setattr(skipviz.training.choices, "block_influence", cut_off)
    assert "cut off" in sentence(run(*fixed))
    monkeypatch.setattr(skipviz.training.choices, "block_influence", real)
    outcome = run(*fixed, "--start", start)
    assert outcome.exit_code == 0, outcome.output
    made = tmp_path / "made" / "model"
    mine, theirs = (load_file(folder / "gates.safetensors") for folder in (made, start))
    assert mine
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert "chosen from other adapters" in sentence(run(*fixed))


@pytest.mark.slow
def test_train_makes_early_exits(
    tmp_path: Path,
    text: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", random_windows)
    made = tmp_path / "made"
    command = [
        "train", "--backbone", tiny_model_folder, "--out", made, "--steps", "2", "--batch", "2",
        "--length", "16", "--objective", "exit", "--budget", "0.9", "--also", "0.7",
        "--exit-after", "1", "--exit-after", "3",
    ]  # fmt: skip
    outcome = run(*command)
    assert outcome.exit_code == 0, outcome.output
    config = json.loads((made / "model" / "skipviz.json").read_text())
    assert "patience" not in config["thresholds"]  # so small, its exits cost more than they save
    config |= {"policy": "confidence", "budget": "0.8"}
    config["thresholds"] |= {"confidence": {"0.8": 0.05}, "patience": {"0.9": 1.0}}
    (made / "model" / "skipviz.json").write_text(json.dumps(config))
    for policy, budget in (("confidence", 0.8), ("patience", 0.9)):
        loaded = skipviz.load(made / "model", policy=policy, budget=budget)
        traced = skipviz.trace(loaded, tiny.TEXT)
        assert (traced.run["policy"].item(), traced.run["family"].item()) == (policy, "exit")
    assert run("trace", text, "--model", made / "model").exit_code == 0
    table = tmp_path / "table.csv"
    outcome = run(
        "evaluate", made / "model", "--text", text, "--policy", "patience", "--csv", table
    )
    assert outcome.exit_code == 0, outcome.output
    assert pl.read_csv(table)["policy"].to_list() == ["dense", "patience"]
    outcome = run("evaluate", made / "model", "--card", tmp_path / "card.md")
    assert outcome.exit_code == 0, outcome.output
    assert "Early exits after layers 1, 3" in (tmp_path / "card.md").read_text()
    assert "no model here has them" in sentence(
        run("evaluate", made / "model", "--text", text, "--limit", "0.1")
    )
    # Translators do not depend on budgets: others are met without training anew.
    outcome = run(*command, "--also", "0.05")
    assert outcome.exit_code == 0, outcome.output
    assert "does not meet a budget of 0.05" in " ".join(outcome.stderr.split())
    assert "--price means nothing to --objective exit" in sentence(run(*command, "--price", "1"))


@pytest.mark.slow
def test_train_goes_on_from_gates_by_policy_gradient(
    tmp_path: Path,
    text: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", random_windows)
    monkeypatch.setattr(skipviz.training.finish, "calibrate", lambda *_, **__: 0.25)
    start = write_gated(tmp_path / "start", backbone=tiny_model_folder)
    made = tmp_path / "made"
    command = [
        "train", "--backbone", tiny_model_folder, "--out", made, "--steps", "3", "--batch", "2",
        "--length", "16", "--objective", "policy-gradient", "--budget", "0.8",
    ]  # fmt: skip
    assert "needs --start" in sentence(run(*command))
    assert "--adapter-lr means nothing to --objective policy-gradient, but to cost" in sentence(
        run(*command, "--start", start, "--adapter-lr", "0.1")
    )
    assert "At --price 0 running everything" in sentence(run(*command, "--start", start))
    priced = [*command, "--start", start, "--price", "0.5"]
    assert "temperature=0 must be above 0" in sentence(run(*priced, "--temperature", "0"))
    outcome = run(*priced)
    assert outcome.exit_code == 0, outcome.output
    curve = pl.read_csv(made / "model" / "learning_curve.csv")
    assert curve["step"].to_list() == [1, 2, 3]
    assert {"reward", "greedy_reward", "advantage_variance"} <= set(curve.columns)
    kept = load_file(made / "model" / "gates.safetensors")
    assert kept
    assert not any(".adapter." in name for name in kept)  # they are those of the start
    made_of = skipviz.load(made / "model").model, skipviz.load(start).model
    ours, theirs = (gate_parameters(model) for model in made_of)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if ".adapter." in name)
    assert run("trace", text, "--model", made / "model").exit_code == 0
    (start / "gates.safetensors").write_bytes(b"")
    assert "shares the adapters of" in sentence(run("trace", text, "--model", made / "model"))
    again = [*command[:4], tmp_path / "again", *command[5:], "--price", "0.5", "--start"]
    assert "shares the adapters of" in sentence(run(*again, made / "model"))
    assert "is damaged" in sentence(run(*again, start))


def test_train_refuses_an_impossible_budget(tmp_path: Path) -> None:
    assert "budget=1.5" in sentence(run("train", "--out", tmp_path, "--budget", "1.5"))
