"""Folders with a fault in them: a sentence, or the right figures; never made-up weights."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.frame.warm_up import WarmUp
from skipviz.errors import SkipvizError
from tests import tiny
from tests.app.pages import framed
from tests.cli.runner import run, sentence
from tests.folders import write_gated

WEIGHTS = "model.safetensors"
PATIENCE = 60


def of_config(**values: Any) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return fault


def of_settings(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        path = folder / "skipviz.json"
        fields = json.loads(path.read_text())
        changed = change(fields)
        path.write_text(json.dumps(fields if changed is None else changed))

    return fault


def of_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return fault


def text_of(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def put_in_place(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return fault


def into_shards(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({n: tensors[n] for n in names[::2]}, folder / first, metadata={"format": "pt"})
    index = {"weight_map": {n: first if i % 2 == 0 else second for i, n in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def an_adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


LAYER = "model.layers.1.mlp.up_proj.weight"
DENSE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a tensor is missing": (of_weights(lambda t: t.pop(LAYER)), "are missing: model.layers.1"),
    "a router is unknown": (
        of_weights(lambda t: t.update({"model.layers.1.router.weight": torch.zeros(1, 32)})),
        "are unknown to LlamaForCausalLM",
    ),
    "a tensor has another shape": (
        of_weights(lambda t: t.update({LAYER: t[LAYER][:-1].clone()})), "Weights of|loaded"
    ),
    "more layers than weights": (of_config(num_hidden_layers=9), "are missing"),
    "fewer layers than weights": (of_config(num_hidden_layers=2), "are unknown"),
    "absurd width": (of_config(hidden_size=10**9), "says hidden_size is 1,000,000,000"),
    "absurd depth": (of_config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "depth is a word": (of_config(num_hidden_layers="many"), "num_hidden_layers is 'many'"),
    "kernels from elsewhere": (of_config(_attn_implementation="kernels-community/x"), ""),
    "no configuration": (lambda f: (f / "config.json").unlink(), "There is no file"),
    "configuration is a list": (text_of("config.json", "[]"), "does not hold an object"),
    "configuration is no JSON": (text_of("config.json", "{"), "is not readable JSON"),
    "configuration is a folder": (
        put_in_place("config.json", lambda p: p.mkdir()), "is not a regular file"
    ),
    "a number is NaN": (
        of_config(rms_norm_eps=float("nan")), "NaN or infinite"
    ),
    "an adapter": (an_adapter, r"an adapter \(LoRA\)"),
    "a shard is missing": (into_shards, "lacks 1 of its files of weights"),
    "weights are a pipe": (put_in_place(WEIGHTS, os.mkfifo), "is not a regular file"),
    "weights are a folder": (put_in_place(WEIGHTS, lambda p: p.mkdir()), "is not a regular file"),
    "weights are a loop of links": (
        put_in_place(WEIGHTS, lambda p: p.symlink_to(p)), "cannot be opened|not a regular file"
    ),
    "weights are cut off": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:4000]), "safetensors"
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
    "the tokenizer is no JSON": (text_of("tokenizer.json", "{"), "tokenizer"),
    "the tokenizer is larger": (
        lambda f: _with_fewer_rows(f), "The tokenizer of .* has .* tokens"
    ),
}  # fmt: skip


def _with_fewer_rows(folder: Path) -> None:
    of_weights(
        lambda t: t.update({n: v[:100].clone() for n, v in t.items() if "embed" in n or "lm" in n})
    )(folder)
    of_config(vocab_size=100)(folder)


SKIPPING: dict[str, Callable[[Path], Any]] = {
    "empty": text_of("skipviz.json", ""),
    "a list": text_of("skipviz.json", "[]"),
    "a number": text_of("skipviz.json", "1"),
    "deeply nested": text_of("skipviz.json", "[" * 100_000),
    "no thresholds": of_settings(lambda f: f.pop("thresholds") and None),
    "thresholds are a list": of_settings(lambda f: f.update(thresholds=[1])),
    "thresholds are none": of_settings(lambda f: f.update(thresholds={})),
    "a threshold is NaN": of_settings(lambda f: f["thresholds"].update({"0.8": float("nan")})),
    "a threshold is infinite": text_of("skipviz.json", '{"thresholds": {"0.8": 1e999}}'),
    "a threshold is a word": of_settings(lambda f: f["thresholds"].update({"0.8": "high"})),
    "a budget is a word": of_settings(lambda f: f.update(budget="most")),
    "layers beyond the model": of_settings(lambda f: f["gates"].update(last_layer=99)),
    "rank is absurd": of_settings(lambda f: f["gates"].update(adapter_rank=10**9)),
    "rank is a word": of_settings(lambda f: f["gates"].update(adapter_rank="x")),
    "backbone is a number": of_settings(lambda f: f.update(backbone=3)),
    "backbone is nowhere": of_settings(lambda f: f.update(backbone="/nowhere/at/all")),
    "other hash": of_settings(lambda f: f.update(backbone_sha256="0" * 64)),
    "gates are another file": lambda f: (f / "gates.safetensors").write_bytes(b"x" * 100),
    "gates are gone": lambda f: (f / "gates.safetensors").unlink(),
    "gates are a pipe": put_in_place("gates.safetensors", os.mkfifo),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dense folder and one of gates on it, both good."""
    root = tmp_path_factory.mktemp("whole")
    tiny.backbone(seed=0).save_pretrained(root / "dense")
    tiny.tokenizer().save_pretrained(root / "dense")
    return root / "dense", write_gated(root / "gated", backbone=root / "dense")


@pytest.mark.parametrize("fault", DENSE)
def test_a_broken_dense_folder_is_a_sentence(
    fault: str, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(whole[0], folder)
    put, said = DENSE[fault]
    put(folder)
    if not said:  # it is as good as before
        expected = skipviz.trace(skipviz.load(whole[0]), tiny.TEXT).tokens["nll"]
        assert skipviz.trace(skipviz.load(folder), tiny.TEXT).tokens["nll"].equals(expected)
        return
    with pytest.raises(SkipvizError, match=said):
        skipviz.load(folder)


@pytest.mark.parametrize("fault", SKIPPING)
def test_a_broken_skipping_folder_is_a_sentence(
    fault: str, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "gated"
    shutil.copytree(whole[1], folder)
    SKIPPING[fault](folder)
    with pytest.raises(SkipvizError):
        skipviz.load(folder)
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    outcome = run("trace", tmp_path / "text.txt", "--model", folder)
    assert outcome.exit_code == 1
    assert sentence(outcome)


def traced_on_the_page(folder: Path) -> AppTest:
    """Name a folder in the side bar, and trace a text with it."""
    page = AppTest.from_function(framed, args=("paths_page",))
    page.run(timeout=PATIENCE)
    page.selectbox(key="model").set_value("A folder on this machine")
    page.run(timeout=PATIENCE)
    page.text_input(key="folder").set_value(str(folder))
    page.text_area(key="pasted").set_value(tiny.TEXT)
    page.run(timeout=PATIENCE)
    assert not page.exception
    page.button(key="run").click()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        page.run(timeout=PATIENCE)
        if not any(button.label == "Stop" for button in page.button):
            return page
        time.sleep(0.05)
    raise TimeoutError("The run did not end.")


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("fault", [*DENSE, *SKIPPING])
def test_a_broken_folder_is_a_sentence_on_the_page(
    fault: str, whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WarmUp, "begin", lambda _: None)
    folder = tmp_path / "model"
    shutil.copytree(whole[0 if fault in DENSE else 1], folder)
    put, said = DENSE[fault] if fault in DENSE else (SKIPPING[fault], "model")
    put(folder)
    page = traced_on_the_page(folder)
    assert not page.exception
    words = [each.value for each in page.error]
    assert len(words) == bool(said), words
    assert not any("fault in skipviz" in each or "Traceback" in each for each in words)


@pytest.mark.parametrize("fault", SKIPPING)
def test_a_broken_sample_is_a_sentence_in_the_list(
    fault: str, whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broken", "good"):
        shutil.copytree(whole[1], tmp_path / name)
    SKIPPING[fault](tmp_path / "broken")
    folders = {name: tmp_path / name for name in ("broken", "good")}
    monkeypatch.setattr("skipviz.folders.sample_folders", lambda: folders)
    monkeypatch.setenv("COLUMNS", "1000")
    outcome = run("models", "list")
    assert outcome.exit_code == 0, outcome.output
    rows = {line.split()[1]: line for line in outcome.stdout.splitlines() if line.startswith("│")}
    assert "learned on" in rows["good"]
    assert "smollm2-135m" in rows
    unseen = ("gates", "layers", "rank is absurd", "backbone", "other hash", "thresholds are none")
    if not fault.startswith(unseen):
        assert "learned on" not in rows["broken"]  # it is not read further here
        assert "skipviz.json" in rows["broken"]


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "thresholds.json"])
def test_a_pipe_in_a_folder_is_never_opened(
    name: str, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole[1 if name == "thresholds.json" else 0], folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(SkipvizError, match="is not a regular file"):
        skipviz.load(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.bfloat16, torch.float16])
def test_number_formats_are_understood(whole: tuple[Path, Path], dtype: Any) -> None:
    model = skipviz.load(whole[1], dtype=dtype)
    assert model.dtype == str(dtype).removeprefix("torch.")
    assert len(skipviz.trace(model, tiny.TEXT)) > 3
