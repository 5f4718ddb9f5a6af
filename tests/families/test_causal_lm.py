"""Losses are those of the model's own forward, whatever it does after its head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import skipviz
from skipviz.errors import InputError, ModelError
from skipviz.families import causal_lm
from skipviz.families.causal_lm import has_logits_apart, last_hidden_states, logits_of
from skipviz.families.dense import Dense
from tests import architectures, tiny

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps."


def own_losses(model: Any, ids: list[int]) -> np.ndarray:
    """The losses of the model's own logits, by torch."""
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(input_ids=tokens).logits[0].float()
    return F.cross_entropy(logits[:-1], tokens[0, 1:], reduction="none").numpy()


@pytest.mark.parametrize("name", architectures.CAUSAL)
def test_a_trace_and_a_recording_have_the_models_own_losses(name: str) -> None:
    model = architectures.causal_lm(name)
    handle = skipviz.from_parts(model, tiny.tokenizer(), name=name)
    shares: list[float] = []
    trace = skipviz.trace(handle, [TEXT, "Short."], progress=shares.append)
    assert shares[-1] == 1.0
    assert len(shares) > 3  # layers were found, and told of
    with skipviz.record(handle) as recording, torch.inference_mode():
        ids = trace.tokens.filter(sequence=0)["token_id"].to_list()
        model(input_ids=torch.tensor([ids]))
    expected = own_losses(model, ids)
    for found in (trace.tokens.filter(sequence=0), recording.trace.tokens):
        np.testing.assert_allclose(found["nll"].to_numpy()[:-1], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["Granite", "Gemma 2", "Cohere", "OPT", "Mixtral"])
def test_logits_of_states_are_the_models_own_with_their_gradient(name: str) -> None:
    model = architectures.causal_lm(name)
    ids = torch.arange(3, 12)[None]
    whole = model(input_ids=ids).logits
    states = last_hidden_states(model, input_ids=ids)
    torch.testing.assert_close(logits_of(model, states), whole)
    torch.testing.assert_close(logits_of(model, states[0, 4]), whole[0, 4])
    given = states.detach().requires_grad_()
    logits_of(model, given).sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0


def test_the_plain_head_would_be_wrong() -> None:
    """What the test above would not see if scaling did nothing here."""
    model = architectures.causal_lm("Granite")
    ids = torch.arange(3, 12)[None]
    states = last_hidden_states(model, input_ids=ids)
    assert (model.lm_head(states) - model(input_ids=ids).logits).abs().max() > 0.1


class Odd(type(tiny.backbone(seed=0))):  # type: ignore[misc]
    """A model whose logits are no function of its last hidden states alone."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        output = super().forward(input_ids=input_ids, **kwargs)
        if input_ids is not None:
            output.logits = output.logits + input_ids[..., None] * 0.1
        return output


def test_a_model_whose_head_sees_more_is_traced_whole_and_refused_elsewhere() -> None:
    model = tiny.backbone(seed=0)
    model.__class__ = Odd
    handle = skipviz.from_parts(model, tiny.tokenizer(), family=Dense())
    assert not has_logits_apart(model)
    trace = skipviz.trace(handle, TEXT)
    expected = own_losses(model, trace.tokens["token_id"].to_list())
    np.testing.assert_allclose(trace.tokens["nll"].to_numpy()[:-1], expected, atol=1e-4)
    with pytest.raises(ModelError, match="cannot be computed from its last hidden states"):
        logits_of(model, torch.zeros(1, 32))


def test_a_model_that_sees_what_follows_is_not_traced() -> None:
    handle = skipviz.from_parts(architectures.bert(), tiny.tokenizer(), name="bert")
    with pytest.raises(InputError, match="bert is not a causal language model"):
        skipviz.trace(handle, TEXT)
    with skipviz.record(handle) as recording, torch.inference_mode():
        handle.model(input_ids=torch.arange(3, 12)[None])
    assert len(recording.trace) == 9


def test_the_trial_is_not_recorded() -> None:
    model = skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer())
    with skipviz.record(model) as recording, torch.inference_mode():
        has_logits_apart(model.model)
        causal_lm.is_causal(model.model)
        model.model(input_ids=torch.arange(3, 12)[None])
    assert len(recording.trace) == 9


@pytest.mark.parametrize("name", ["GPT-2", "Phi-3", "Mixtral"])
def test_flops_that_are_unknown_are_said_to_be(name: str) -> None:
    handle = skipviz.from_parts(architectures.causal_lm(name), tiny.tokenizer())
    trace = skipviz.trace(handle, TEXT)
    assert trace.run["mlp_flops"].item() is None
    figure = skipviz.plots.compute_share_figure(trace)
    assert "unknown" in figure.layout.title.text
