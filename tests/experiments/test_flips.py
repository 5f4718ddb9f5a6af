"""The quick way of flipping is used where it is right, the general one elsewhere, or neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import skipviz
from skipviz.errors import InputError
from skipviz.experiments import flips
from skipviz.experiments.flips import flips_of
from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates
from tests import architectures, tiny

TEXT = tiny.TEXT[:26]


def gated_of(name: str) -> skipviz.SkipModel:
    model = architectures.causal_lm(name)
    install_gates(model, GatedConfig(first_layer=0, last_layer=2, gate_hidden=4, adapter_rank=2))
    torch.manual_seed(1)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    return skipviz.from_parts(model.eval(), tiny.tokenizer(), name=name)


def way_of(model: skipviz.SkipModel) -> str:
    trace = skipviz.trace(model, TEXT)
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    units = model.family.units(model.model)
    with torch.inference_mode():
        return type(flips_of(model, units, ids, trace.matrix("exec_count") > 0)).__name__


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3"])
def test_llamas_layout_is_run_by_rows(name: str) -> None:
    assert way_of(gated_of(name)) == "_ByRows"


@pytest.mark.parametrize("name", ["Granite", "OLMo 2", "Phi-3"])
def test_other_layers_are_run_by_the_models_own_forward(name: str) -> None:
    assert way_of(gated_of(name)) == "_ByDecoding"


def test_where_neither_is_right_nothing_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gated_of("Llama")
    monkeypatch.setattr(flips, "_right", lambda *_: False)
    with pytest.raises(InputError, match="Llama cannot be audited"):
        skipviz.audit(model, skipviz.trace(model, TEXT))


def test_fresh_gates_and_adapters_leave_a_model_as_it_is() -> None:
    dense = architectures.causal_lm("Llama")
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        plain = dense(ids).logits
        install_gates(
            dense, GatedConfig(first_layer=0, last_layer=2, gate_hidden=4, adapter_rank=2)
        )
        for _, _, unit in gated_units(dense):
            assert not unit.adapter(torch.randn(1, 3, 32)).any()
        every = skipviz.Plan(np.ones((9, 6), dtype=bool))
        handle: Any = skipviz.from_parts(dense, tiny.tokenizer())
        with handle.family.force(dense, every):
            assert torch.equal(dense(ids).logits, plain)
    assert repr(every) == "Plan((9, 6), 100% run, forced everywhere)"
