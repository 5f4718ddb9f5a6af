from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance

import skipviz
from skipviz.evaluation.lm_eval_model import harness_model
from tests.folders import write_gated


@pytest.fixture
def folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_gated(tmp_path / "gated", backbone=tiny_model_folder)


def test_the_harness_gets_the_loss_of_the_budget_asked_for(folder: Path) -> None:
    context, continuation = "The quick brown", " fox jumps"
    found = {}
    for budget in (0.8, 0.6):
        model = harness_model(folder, budget=budget)
        asked = Instance(
            request_type="loglikelihood", doc={}, arguments=(context, continuation), idx=0
        )
        found[budget] = model.loglikelihood([asked], disable_tqdm=True)[0][0]
        loaded = skipviz.load(folder, budget=budget)
        whole = loaded.tokenizer(context + continuation)["input_ids"]
        first = len(loaded.tokenizer(context)["input_ids"])
        with torch.no_grad():
            log = loaded.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        wanted = sum(log[place - 1, whole[place]].item() for place in range(first, len(whole)))
        assert found[budget] == pytest.approx(wanted, abs=1e-4)
    assert found[0.8] != found[0.6]


def test_without_the_extra_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    with pytest.raises(ImportError, match=r"pip install 'skipviz\[benchmarks\]'"):
        harness_model(folder)
