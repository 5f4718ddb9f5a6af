"""``benchmarks/gpu.py`` on a tiny model without a GPU: all of it but the captured graphs."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import skipviz
from skipviz.experiments.timing.stopwatch import prefill
from tests import tiny

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in ("gpu", "bucketed_decode"):
        sys.modules.pop(name, None)


def test_capacities_hold_every_count(script: Any) -> None:
    module = sys.modules["bucketed_decode"]
    for batch in (1, 2, 5, 16):
        sizes = module.capacities(batch)
        assert sizes[0] == 0
        assert sizes[-1] == batch
        for count in range(batch + 1):
            capacity = module.capacity_for(count, sizes)
            assert count <= capacity <= max(2 * count - 1, 1) or capacity == count
    assert module.capacities(16) == [0, 1, 2, 4, 8, 16]


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("skipping", [True, False])
def test_steps_in_buckets_are_those_of_the_model(script: Any, batch: int, skipping: bool) -> None:
    model = tiny.gated(seed=0) if skipping else tiny.backbone(seed=0)
    handle = skipviz.from_parts(model, tiny.tokenizer(), name="tiny")
    ids = script.random_ids(handle, batch, 14)
    bucketed = script.BucketedDecode(model, batch=batch, length=20, capture=False)
    with torch.inference_mode():
        cache = prefill(model, ids[:, :8], cache=True).past_key_values
        bucketed.fill(cache)
        for place in range(8, 14):
            token = ids[:, place : place + 1]
            wanted = model(token, past_key_values=cache, use_cache=True)
            cache = wanted.past_key_values
            found = bucketed.step(token, place)
            torch.testing.assert_close(found, wanted.logits[:, -1], atol=1e-4, rtol=1e-4)
    units = 6 * batch * 8  # steps, texts, gated units
    assert (0 < bucketed.ran < units) if skipping else bucketed.ran == 0


@pytest.mark.slow
def test_the_whole_command_writes_one_json_and_the_gates(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, kept = tmp_path / "gpu.json", tmp_path / "kept"
    words = ["gpu.py", "--device", "cpu", "--tiny", "--json", str(target), "--train-minutes",
             "0.005", "--keep-gates", str(kept)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    found = json.loads(target.read_text(encoding="utf-8"))
    assert found["machine"]["device"] == "cpu"
    assert {row["dtype"] for row in found["equality"]} == {"float32", "bfloat16"}
    for row in found["equality"]:
        if row["dtype"] == "float32":
            assert row["largest_difference"] < 1e-4
            assert row["decisions_flipped"] == 0
    assert len(found["prefill"]) == 2 * 1 * 2 * 2
    assert len(found["decode"]) == 2 * 1 * 2
    for row in found["decode"]:
        assert not row["captured"]
        assert row["graphs"] == 0
        assert row["masked_pieces_over_dense"] > 0
        if row["dtype"] == "float32":
            assert row["largest_difference"] < 1e-4
    trained = found["training"]
    assert trained["tokens_per_second"] > 0
    assert trained["steps"] >= 1
    assert Path(trained["gates"]) == kept / "model"
    assert (kept / "model" / "gates.safetensors").exists()
    assert found["left_out"] == []
    assert found["seconds"] < 8 * 60
