"""Plans that decide instead of published gates, against forwards written out by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.errors import InputError
from skipviz.families.powers import CanDrawPlans, CanForce
from tests import encoders, published, tiny, wrapped_units

MODELS: dict[str, Callable[[], Any]] = {
    "dr-llm": published.dr_llm,
    "ouro": wrapped_units.ouro,
    "gateskip": wrapped_units.gateskip,
    "deebert": encoders.deebert,
    "pabee": encoders.pabee,
}


def wrapped(name: str) -> Any:
    model = skipviz.from_parts(MODELS[name](), tiny.tokenizer(), name=name)
    assert model.family.name == name
    return model


def ids_of(model: Any) -> Tensor:
    ids: Tensor = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    return ids


def logits_of(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        made = model.model(ids)
    found: Tensor = made.logits if hasattr(made, "logits") else made[0]
    return found


def plan_for(model: Any, ran: npt.NDArray[Any], seed: int = 2) -> skipviz.Plan:
    if isinstance(model.family, CanDrawPlans):
        drawn = model.family.draw_plan(model.model, texts=1, tokens=len(ran), seed=seed)
        return skipviz.Plan(drawn.execute[0])
    return skipviz.Plan(~(ran > 0))


def dr_llm_by_hand(model: Any, ids: Tensor, plan: npt.NDArray[np.bool_]) -> Tensor:
    inner = model.model
    states = inner.embed_tokens(ids)
    places = torch.arange(ids.shape[1])[None]
    rotary = inner.rotary_emb(states, places)
    for number, layer in enumerate(inner.layers):
        windows = states.tensor_split(min(8, states.shape[1]), dim=1)
        votes = torch.stack([inner.routers[number](part.mean(dim=1)) for part in windows])
        once_or_twice = 1 + int(votes.mean(dim=0)[0, 1:].argmax())
        for _ in range(once_or_twice if plan[0, number] else 0):
            states = layer(states, position_embeddings=rotary, position_ids=places)
    return model.lm_head(inner.norm(states))  # type: ignore[no-any-return]


def ouro_by_hand(model: Any, ids: Tensor, plan: npt.NDArray[np.bool_]) -> Tensor:
    inner = model.model
    states = inner.embed_tokens(ids)
    rotary = inner.rotary_emb(states, torch.arange(ids.shape[1])[None])
    every = []
    for _ in range(wrapped_units.ROUNDS):
        for layer in inner.layers:
            states = layer(states, position_embeddings=rotary, attention_mask=None)
        states = inner.norm(states)
        every.append(states[0])
    last = plan[:, :: len(inner.layers)].sum(axis=1) - 1
    taken = torch.stack([every[round_][token] for token, round_ in enumerate(last)])
    return model.lm_head(taken[None])  # type: ignore[no-any-return]


def gateskip_by_hand(model: Any, ids: Tensor, plan: npt.NDArray[np.bool_]) -> Tensor:
    inner = model.model
    states = inner.embed_tokens(ids)
    rotary = inner.rotary_emb(states, torch.arange(ids.shape[1])[None])
    for number, layer in enumerate(inner.layers):
        for site, norm, part in (
            (2 * number, layer.input_layernorm, layer.self_attn),
            (2 * number + 1, layer.post_attention_layernorm, layer.mlp),
        ):
            normed = norm(states)
            more = {"position_embeddings": rotary, "attention_mask": None} if site % 2 == 0 else {}
            made = part.module(normed, **more)
            made = part.gate(normed) * (made[0] if isinstance(made, tuple) else made)
            runs = torch.from_numpy(plan[:, site])[None, :, None]
            states = states + torch.where(runs, made, torch.zeros_like(made))
    return model.lm_head(inner.norm(states))  # type: ignore[no-any-return]


def deebert_by_hand(model: Any, ids: Tensor, plan: npt.NDArray[np.bool_]) -> Tensor:
    encoder = model.bert.encoder
    states = model.bert.embeddings(input_ids=ids)
    count = 1 + int(plan[0].sum())
    for layer in encoder.layer[:count]:
        made = layer(states)
        states = made[0] if isinstance(made, tuple) else made
    left: Tensor = encoder.highway[count - 1]((states,))[0]
    # Behind the last layer nothing is left to skip, and its exit decides as it does.
    sure = torch.distributions.Categorical(logits=left).entropy() < encoder.early_exit_entropy[-1]
    whole: Tensor = model.classifier(model.bert.pooler(states))
    return left if count < encoders.LAYERS or sure else whole


def pabee_by_hand(model: Any, ids: Tensor, plan: npt.NDArray[np.bool_]) -> Tensor:
    states = model.bert.embeddings(input_ids=ids)
    count = 1 + int(plan[0].sum())
    for layer in model.bert.encoder.layer[:count]:
        made = layer(states)
        states = made[0] if isinstance(made, tuple) else made
    return model.classifiers[count - 1](model.bert.pooler(states))  # type: ignore[no-any-return]


BY_HAND: dict[str, Callable[[Any, Tensor, npt.NDArray[np.bool_]], Tensor]] = {
    "dr-llm": dr_llm_by_hand,
    "ouro": ouro_by_hand,
    "gateskip": gateskip_by_hand,
    "deebert": deebert_by_hand,
    "pabee": pabee_by_hand,
}


@pytest.mark.parametrize("name", MODELS)
def test_its_own_decisions_give_the_same_bits(name: str) -> None:
    model = wrapped(name)
    assert isinstance(model.family, CanForce)
    ids = ids_of(model)
    with skipviz.record(model) as recording:
        plain = logits_of(model, ids)
    own = recording.trace
    plan = skipviz.Plan(own.matrix("exec_count") > 0)
    with model.family.force(model.model, plan), skipviz.record(model) as again:
        assert torch.equal(logits_of(model, ids), plain)
    for matrix in ("exec_count", "score", "threshold"):
        assert np.array_equal(again.trace.matrix(matrix), own.matrix(matrix), equal_nan=True)
    assert again.trace.matrix("forced").any()
    assert torch.equal(logits_of(model, ids), plain)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_other_decisions_are_a_forward_by_hand(name: str, seed: int) -> None:
    model = wrapped(name)
    ids = ids_of(model)
    with skipviz.record(model) as recording:
        logits_of(model, ids)
    plan = plan_for(model, recording.trace.matrix("exec_count"), seed)
    trace = skipviz.trace(model, tiny.TEXT, plan=plan)
    assert np.array_equal(trace.matrix("exec_count") > 0, plan.execute)
    with model.family.force(model.model, plan):
        made = logits_of(model, ids)
    with torch.inference_mode():
        wanted = BY_HAND[name](model.model, ids, plan.execute)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    assert np.array_equal(trace.matrix("score")[:, :1], recording.trace.matrix("score")[:, :1],
                          equal_nan=True)  # fmt: skip


@pytest.mark.parametrize("name", ["ouro", "gateskip"])
def test_a_single_decision_leaves_the_others_to_the_gates(name: str) -> None:
    model = wrapped(name)
    own = skipviz.trace(model, tiny.TEXT)
    ran = own.matrix("exec_count") > 0
    site = ran.shape[1] - 3 if name == "ouro" else 4
    token = int(np.flatnonzero(~ran[:, site])[0])
    execute, forced = ran.copy(), np.zeros_like(ran)
    group = slice(3, None) if name == "ouro" else slice(site, site + 1)
    execute[token, group], forced[token, group] = True, True
    found = skipviz.trace(model, tiny.TEXT, plan=skipviz.Plan(execute, forced))
    assert found.matrix("exec_count")[token, site] == 1
    assert np.array_equal(found.matrix("forced"), forced)
    if name == "ouro":
        rest = np.arange(len(ran)) != token
        assert np.array_equal(found.matrix("exec_count")[rest] > 0, ran[rest])


@pytest.mark.parametrize("name", MODELS)
def test_another_model_is_not_forced(name: str) -> None:
    model, other = wrapped(name), wrapped(name)
    own = skipviz.trace(other, tiny.TEXT)
    plan = plan_for(model, own.matrix("exec_count"))
    with model.family.force(model.model, plan):
        logits_of(model, ids_of(model))
        with skipviz.record(other) as recording:
            logits_of(other, ids_of(other))
    for matrix in ("exec_count", "score", "forced"):
        assert np.array_equal(recording.trace.matrix(matrix), own.matrix(matrix), equal_nan=True)


def test_another_thread_is_not_forced() -> None:
    model = wrapped("deebert")
    ids = ids_of(model)
    plain, found = logits_of(model, ids), []
    natural = list(model.model.bert.encoder.early_exit_entropy)
    plan = skipviz.Plan(np.zeros((ids.shape[1], encoders.LAYERS - 1), dtype=np.bool_))
    with model.family.force(model.model, plan):
        thread = threading.Thread(target=lambda: found.append(logits_of(model, ids)))
        thread.start()
        thread.join()
        logits_of(model, ids)
        assert model.model.truth == 1
    assert torch.equal(found[0], plain)
    never = skipviz.from_parts(encoders.pabee(patience=0), tiny.tokenizer(), name="never")
    with pytest.raises(InputError, match="patience of 0"):
        skipviz.trace(never, tiny.TEXT, plan=plan)
    assert type(model.model.bert.encoder.early_exit_entropy) is list
    assert model.model.bert.encoder.early_exit_entropy == natural


def test_plans_that_cannot_be_are_refused() -> None:
    tokens = ids_of(wrapped("ouro")).shape[1]

    def plan(sites: int, *skipped: tuple[int, int]) -> skipviz.Plan:
        execute = np.ones((tokens, sites), dtype=np.bool_)
        for place in skipped:
            execute[place] = False
        return skipviz.Plan(execute)

    layers = 3 * wrapped_units.ROUNDS
    for name, given, words in (
        ("dr-llm", plan(tiny.LAYERS, (0, 1)), "share a decision"),
        ("dr-llm", plan(2), "decides 2 sites"),
        ("deebert", plan(encoders.LAYERS - 1, (slice(None), 0)), "come back"),  # type: ignore[arg-type]
        ("ouro", plan(layers, (0, 4)), "all layers of a round"),
        ("ouro", plan(layers, (0, slice(0, 3))), "first step"),  # type: ignore[arg-type]
        ("gateskip", plan(3), "decides 3 sites"),
    ):
        with pytest.raises(InputError, match=words):
            skipviz.trace(wrapped(name), tiny.TEXT, plan=given)
    steps = skipviz.from_parts(wrapped_units.ouro(step=1), tiny.tokenizer(), name="steps")
    with pytest.raises(InputError, match="where a threshold decides"):
        skipviz.trace(steps, tiny.TEXT, plan=plan(layers))
