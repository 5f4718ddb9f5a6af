"""Layers that run several times for every token are counted as often as they ran."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

import skipviz
from skipviz.families import family_of
from skipviz.families.dense import Dense
from skipviz.families.looped import Looped
from tests import architectures, published, tiny

RUNS = published.HRM_RUNS
STOCK = pytest.mark.skipif(
    not hasattr(transformers, "HrmTextForCausalLM"), reason="this transformers has no HRM-Text"
)


class _Twice(LlamaModel):
    """A backbone of code of its own that runs its layers once for each of ``rounds``."""

    rounds = 2

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        made = super().forward(input_ids=input_ids, **kwargs)
        for _ in range(self.rounds - 1):
            kwargs["inputs_embeds"] = made.last_hidden_state
            made = super().forward(**kwargs)
        return made


class _Halves(LlamaDecoderLayer):
    """Runs twice, the second time for the first half of the tokens only."""

    def __call__(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        made: Tensor = super().__call__(hidden_states, **kwargs)
        half = hidden_states.shape[1] // 2
        rotary = tuple(each[:, :half] for each in kwargs.pop("position_embeddings"))
        given = {"position_embeddings": rotary, "attention_mask": None}
        again = super().__call__(made[:, :half], **given)
        return torch.cat([again, made[:, half:]], dim=1)


@STOCK
def test_every_run_of_a_stock_loop_is_counted() -> None:
    model = skipviz.from_parts(published.hrm_text(), tiny.tokenizer(), name="hrm")
    assert (model.family.name, model.policy) == ("looped", "dense")
    trace = skipviz.trace(model, tiny.TEXT)
    assert trace.matrix("exec_count").tolist() == [RUNS] * len(trace)
    assert trace.sites["computed_anyway"].to_list() == [False] * len(RUNS)
    # The cache of keys and values has a place for each run.
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    with torch.inference_mode():
        made = model.model(ids, use_cache=True)
    assert len(made.past_key_values.layers) == sum(RUNS)
    assert trace.tokens["layers_used"].unique().to_list() == [float(sum(RUNS))]
    assert trace.run["layers"].item() == len(RUNS)
    own = nn.functional.cross_entropy(made.logits[0, :-1], ids[0, 1:], reduction="none")
    np.testing.assert_allclose(trace.tokens["nll"].to_numpy()[:-1], own.numpy(), atol=1e-5)


@STOCK
def test_a_generation_is_recorded_and_left_alone() -> None:
    model = skipviz.from_parts(published.hrm_text(), tiny.tokenizer(), name="hrm")
    ids = tiny.tokenizer()(tiny.TEXT[:20], return_tensors="pt").input_ids
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 2}
    plain = model.model.generate(ids, **options)
    with skipviz.record(model) as recording:
        recorded = model.model.generate(ids, **options)
    assert torch.equal(plain, recorded)
    assert recording.trace.matrix("exec_count").tolist() == [RUNS] * len(recording.trace)


@STOCK
def test_the_check_up_finds_no_issue() -> None:
    found = skipviz.check(skipviz.from_parts(published.hrm_text(), tiny.tokenizer(), name="hrm"))
    assert [each.code for each in found.findings if each.outcome == "issue"] == []


@pytest.mark.parametrize("name", architectures.CAUSAL)
def test_other_stock_models_are_dense_and_not_tried(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = architectures.causal_lm(name)
    monkeypatch.setattr(type(model), "forward", None)
    assert isinstance(family_of(model), Dense)


def test_a_loop_of_code_of_its_own_is_not_called_dense() -> None:
    model: Any = tiny.backbone(seed=0)
    looped = _Twice(model.config)
    looped.load_state_dict(model.model.state_dict())
    model.model = looped.eval()
    with pytest.raises(skipviz.ModelError, match=r"Looped\(\) where layers run several times"):
        skipviz.from_parts(model, tiny.tokenizer())
    named = skipviz.from_parts(model, tiny.tokenizer(), family=Looped())
    trace = skipviz.trace(named, tiny.TEXT)
    assert trace.matrix("exec_count").tolist() == [[2] * tiny.LAYERS] * len(trace)


def test_a_model_without_a_loop_is_not_taken_for_one() -> None:
    with pytest.raises(skipviz.InputError, match="looped does not recognise"):
        skipviz.from_parts(tiny.backbone(seed=0), tiny.tokenizer(), family=Looped())


def test_layers_that_run_again_for_some_tokens_are_refused() -> None:
    model: Any = tiny.backbone(seed=0)
    layers = [_Halves(model.config, number) for number in range(tiny.LAYERS)]
    model.model.layers = nn.ModuleList(layers).eval()
    named = skipviz.from_parts(model, tiny.tokenizer(), family=Looped())
    with pytest.raises(skipviz.RecordingError, match="for some tokens"):
        skipviz.trace(named, tiny.TEXT)
