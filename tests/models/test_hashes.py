"""A trace tells two runs apart when anything that decides the output is another."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import skipviz
from skipviz.app.frame.stored import request_of
from skipviz.app.jobs import Jobs, Request
from skipviz.errors import ModelError
from skipviz.evaluation.frontier import measure
from skipviz.models.hashes import sampled_sha256
from skipviz.traces import METADATA_KEY
from tests import tiny
from tests.damage import packed
from tests.folders import write_gated

PROVENANCE = ("weights_sha256", "setup_sha256", "dtype", "policy", "budget")


def in_json(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def another_merge(folder: Path) -> None:
    """Another tokenizer for the same weights."""
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["model"]["merges"].pop()
    path.write_text(json.dumps(fields))


@pytest.fixture
def folders(tmp_path: Path, dense_folder: Path) -> tuple[Path, Path]:
    return dense_folder, write_gated(tmp_path / "gated", backbone=dense_folder)


def run_of(folder: Path, **options: Any) -> tuple[Any, ...]:
    trace = skipviz.trace(skipviz.load(folder, **options), tiny.TEXT)
    return trace.run.select(PROVENANCE).row(0)


@pytest.mark.parametrize(
    "change",
    [in_json("config.json", rms_norm_eps=0.3), in_json("config.json", rope_theta=5.0),
     another_merge, in_json("tokenizer_config.json", bos_token="<|endoftext|>")],
)  # fmt: skip
@pytest.mark.parametrize("which", [0, 1])
def test_another_configuration_or_tokenizer_is_another_run(
    folders: tuple[Path, Path], change: Callable[[Path], None], which: int
) -> None:
    before = run_of(folders[which])
    assert before[1] is not None
    assert run_of(folders[which]) == before
    change(folders[0])
    after = run_of(folders[which])
    assert after[0] == before[0], "the weights are the same"
    assert after[1] not in (None, before[1])


def test_another_threshold_at_the_same_budget_is_another_run(folders: tuple[Path, Path]) -> None:
    before = run_of(folders[1])
    in_json("skipviz.json", thresholds={"0.8": 0.1, "0.6": 0.5})(folders[1])
    after = run_of(folders[1])
    assert after[1] != before[1]
    assert (*after[:1], *after[2:]) == (*before[:1], *before[2:])
    assert run_of(folders[1], budget=0.6)[1] != after[1]


def test_another_precision_is_another_run(folders: tuple[Path, Path]) -> None:
    assert run_of(folders[0]) != run_of(folders[0], dtype="bfloat16")


def test_what_decides_nothing_changes_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    before = run_of(folders[0])
    in_json("config.json", transformers_version="9.9", _name_or_path="x")(folders[0])
    (folders[0] / "README.md").write_text("words")
    assert run_of(folders[0]) == before
    shutil.copytree(folders[0], tmp_path / "copy")
    assert run_of(tmp_path / "copy") == before


def test_a_model_in_memory_has_no_setup_that_is_known(gated: skipviz.SkipModel) -> None:
    assert skipviz.trace(gated, tiny.TEXT).run["setup_sha256"].item() is None


def test_a_trace_of_before_there_was_a_setup_is_read(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    trace, file = skipviz.trace(skipviz.load(folders[1]), tiny.TEXT), tmp_path / "old.parquet"
    trace.save(file)
    import polars as pl

    payload = json.loads(pl.read_parquet_metadata(file)[METADATA_KEY])
    del payload["run"]["setup_sha256"]
    file.write_bytes(packed(pl.read_parquet(file), {METADATA_KEY: json.dumps(payload)}))
    assert skipviz.Trace.load(file).run["setup_sha256"].item() is None


def test_a_store_of_figures_serves_no_other_configuration(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    store, documents = tmp_path / "store.parquet", [skipviz.Document("a", tiny.TEXT)]
    before = measure([], skipviz.load(folders[0]), documents, store=store)
    in_json("config.json", rms_norm_eps=0.3)(folders[0])
    changed = skipviz.load(folders[0])
    after = measure([], changed, documents, store=store)
    assert after["nll"].item() == measure([], changed, documents)["nll"].item()
    assert after["nll"].item() != before["nll"].item()


def test_models_in_memory_of_one_name_are_told_apart(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, tmp_path: Path
) -> None:
    store, documents = tmp_path / "store.parquet", [skipviz.Document("a", tiny.TEXT)]
    other = skipviz.from_parts(tiny.backbone(seed=5), dense.tokenizer, name=dense.name)
    first = measure([], dense, documents, store=store)
    assert measure([], other, documents, store=store)["nll"].item() != first["nll"].item()


def test_nothing_is_run_on_a_trace_of_another_configuration(folders: tuple[Path, Path]) -> None:
    trace = skipviz.trace(skipviz.load(folders[1]), tiny.TEXT)
    jobs, request = Jobs(), request_of(trace, stored="file")

    def ask(request: Request) -> skipviz.SkipModel:
        job = jobs.experiment(request, "nothing", lambda model, progress, stop: model)
        return job.future.result(timeout=60)

    assert ask(request).policy == "learned"
    assert ask(dataclasses.replace(request, setup=None)).policy == "learned"
    with pytest.raises(ModelError, match="another configuration, tokenizer or thresholds"):
        ask(dataclasses.replace(request, setup="0" * 64))
    jobs.close()


def test_a_glance_at_a_model_takes_in_each_parameter_and_buffer(gated: skipviz.SkipModel) -> None:
    before = sampled_sha256(gated)
    assert sampled_sha256(gated) == before
    for tensor in (*gated.model.parameters(), *gated.model.buffers()):
        was = tensor.detach().clone()
        tensor.data[...] = 1 - was.int() if tensor.dtype == torch.bool else was + 1
        assert sampled_sha256(gated) != before
        tensor.data[...] = was
    assert sampled_sha256(gated) == before


@pytest.mark.parametrize("shape", [(576, 576), (1536, 576), (49152, 64), (1024, 4096)])
def test_a_glance_takes_in_every_few_columns_and_rows_of_a_matrix(shape: tuple[int, int]) -> None:
    model: Any = SimpleNamespace(model=nn.Linear(shape[1], shape[0], bias=False))
    before = sampled_sha256(model)
    weight = model.model.weight
    for part in (weight.data[:, :64], weight.data[-shape[0] // 8 :]):
        was = part.clone()
        part.zero_()
        assert sampled_sha256(model) != before
        part.copy_(was)
