"""Families of published methods, against what layers of that layout note themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import skipviz
from skipviz.families.powers import CanForce
from tests import published, tiny

MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "flexidepth": ("flexidepth", published.flexidepth),
    "skipgpt": ("skipgpt", published.skipgpt),
    "mixture-of-depths": ("mixture-of-depths", published.mixture_of_depths),
    "mixture-of-depths, k=1": (
        "mixture-of-depths",
        lambda: published.mixture_of_depths(capacity=0.01),
    ),
    "mixture-of-depths, all": (
        "mixture-of-depths",
        lambda: published.mixture_of_depths(capacity=1.0),
    ),
    "attention by token": ("router-tuning", published.router_tuning),
    "MLP by token": ("router-tuning", lambda: published.router_tuning(target="mlp")),
    "block by text": (
        "router-tuning",
        lambda: published.router_tuning(target="block", level="sequence"),
    ),
}
FORCIBLE = [name for name, (family, _) in MODELS.items() if family != "mixture-of-depths"]


def wrapped(name: str) -> skipviz.SkipModel:
    family, make = MODELS[name]
    model = skipviz.from_parts(make(), tiny.tokenizer(), name=name)
    assert model.family.name == family
    return model


def ids_of(model: skipviz.SkipModel) -> torch.Tensor:
    ids: torch.Tensor = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    return ids


def logits(model: skipviz.SkipModel) -> torch.Tensor:
    torch.manual_seed(3)
    with torch.inference_mode():
        found: torch.Tensor = model.model(ids_of(model)).logits
    return found


def truth(model: skipviz.SkipModel) -> np.ndarray[Any, Any]:
    noted = published.truth_of(model.model)
    sites = [(site.layer, site.unit) for site in model.family.sites(model.model)]
    assert sorted(sites) == sorted(noted)
    return np.stack([noted[place][0].numpy() for place in sites], axis=1)


@pytest.mark.parametrize("name", MODELS)
def test_every_decision_is_the_one_that_was_made(name: str) -> None:
    model = wrapped(name)
    plain = logits(model)
    with skipviz.record(model) as recording:
        recorded = logits(model)
    assert torch.equal(plain, recorded)
    ran = recording.trace.matrix("exec_count") > 0
    assert np.array_equal(ran, truth(model))
    if name != "mixture-of-depths, all":
        assert 0 < ran.mean() < 1


@pytest.mark.parametrize("name", MODELS)
def test_trace_has_the_loss_of_the_model_that_skips(name: str) -> None:
    model = wrapped(name)
    trace = skipviz.trace(model, tiny.TEXT, seed=3)
    assert np.array_equal(trace.matrix("exec_count") > 0, truth(model))
    ids = ids_of(model)[0]
    wanted = torch.nn.functional.cross_entropy(logits(model)[0, :-1], ids[1:], reduction="none")
    assert np.allclose(trace.tokens["nll"].to_numpy()[:-1], wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "skipgpt"])
def test_score_and_threshold_say_what_ran(name: str) -> None:
    model = wrapped(name)
    trace = skipviz.trace(model, tiny.TEXT)
    ran = trace.matrix("exec_count") > 0
    margin = trace.margin
    assert np.isfinite(margin).all()
    clear = np.abs(margin) > 1e-5
    assert np.array_equal(ran[clear], margin[clear] > 0)


@pytest.mark.parametrize("name", FORCIBLE)
def test_forcing_its_own_decisions_reproduces_and_the_opposite_is_obeyed(name: str) -> None:
    model = wrapped(name)
    with skipviz.record(model) as recording:
        plain = logits(model)
    ran = recording.trace.matrix("exec_count") > 0
    assert isinstance(model.family, CanForce)
    with model.family.force(model.model, skipviz.Plan(ran)), skipviz.record(model) as again:
        assert torch.equal(logits(model), plain)
    assert np.array_equal(again.trace.matrix("exec_count") > 0, ran)
    assert again.trace.matrix("forced").all()
    with model.family.force(model.model, skipviz.Plan(~ran)), skipviz.record(model) as other:
        logits(model)
    assert np.array_equal(other.trace.matrix("exec_count") > 0, ~ran)
    assert np.array_equal(truth(model), ~ran)
    # The score stays the one that the gate gave; the first site sees the same states.
    first = [matrix.matrix("score")[:, 0] for matrix in (recording.trace, other.trace)]
    assert np.array_equal(*first)


def test_ranked_tokens_cannot_be_forced() -> None:
    model = wrapped("mixture-of-depths")
    assert not isinstance(model.family, CanForce)
    plan = skipviz.Plan(np.ones((len(ids_of(model)[0]), 3), dtype=np.bool_))
    with pytest.raises(skipviz.InputError, match="cannot be forced"):
        skipviz.trace(model, tiny.TEXT, plan=plan)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "skipgpt"])
def test_several_texts_are_decided_as_each_alone(name: str) -> None:
    model = wrapped(name)
    texts = [tiny.TEXT, tiny.TEXT[:20], tiny.TEXT[10:40]]
    together = skipviz.trace(model, texts)
    alone = [skipviz.trace(model, text) for text in texts]
    each = np.concatenate([trace.matrix("exec_count") for trace in alone])
    assert np.array_equal(together.matrix("exec_count"), each)


def test_what_is_drawn_differs_between_runs() -> None:
    model = wrapped("skipgpt")
    first, second = (skipviz.trace(model, tiny.TEXT).matrix("exec_count") for _ in range(2))
    assert 0.05 < (first != second).mean() < 0.95
    assert np.isnan(skipviz.trace(model, tiny.TEXT).matrix("threshold")).all()
    standing = torch.get_rng_state()
    one, two = (skipviz.trace(model, tiny.TEXT, seed=5) for _ in range(2))
    assert np.array_equal(one.matrix("exec_count"), two.matrix("exec_count"))
    assert one.run["seed"].item() == 5
    assert torch.equal(torch.get_rng_state(), standing)


def test_layers_that_repeat_count_as_often_as_they_ran() -> None:
    model = skipviz.from_parts(published.dr_llm(), tiny.tokenizer(), name="repeating")
    assert model.family.name == "dr-llm"
    trace = skipviz.trace(model, tiny.TEXT)
    times = model.model.model.truth
    assert set(times) == {0, 1, 2}  # layers are skipped, run and repeated
    assert trace.matrix("exec_count").tolist() == [times] * len(trace)
    assert trace.tokens["layers_used"].unique().to_list() == [float(sum(times))]
    assert np.isnan(trace.matrix("score")).all()
    assert trace.tokens["nll"].drop_nulls().len() == len(trace) - 1


def test_a_plan_that_splits_a_text_decided_as_a_whole_is_refused() -> None:
    model = wrapped("block by text")
    plan = np.ones((len(ids_of(model)[0]), 3), dtype=np.bool_)
    plan[4] = False
    with pytest.raises(skipviz.InputError, match="One decision is taken for a whole sequence"):
        skipviz.trace(model, tiny.TEXT, plan=skipviz.Plan(plan))
