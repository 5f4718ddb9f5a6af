"""ACT and PonderNet, against the steps that their own code counts and loops in plain Python."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

import skipviz
from skipviz.errors import InputError, RecordingError
from skipviz.readings.skipping import skipping_notes
from tests import halting, tiny
from tests.forcing import drawn, forced

MODELS: dict[str, Any] = {
    "act": halting.act,
    "act, soon": lambda: halting.act(threshold=0.4),
    "act, never": lambda: halting.act(bias=-90.0),
    "pondernet": halting.pondernet,
}


def wrapped(name: str) -> skipviz.SkipModel:
    model = skipviz.from_parts(MODELS[name](), tiny.tokenizer(), name=name)
    assert model.family.name == name.partition(",")[0]
    return model


def ids_of(model: skipviz.SkipModel) -> Any:
    return model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids


@pytest.mark.parametrize("name", MODELS)
def test_steps_are_those_that_the_code_counts(name: str) -> None:
    model = wrapped(name)
    trace = skipviz.trace(model, tiny.TEXT)
    counted = model.model.model.truth[0].numpy()
    assert np.array_equal(trace.tokens["layers_used"].to_numpy(), counted)
    wanted = np.arange(halting.STEPS)[None] < counted[:, None]
    assert np.array_equal(trace.matrix("exec_count"), wanted)
    if name in ("act", "act, soon", "pondernet"):
        assert len(set(counted.tolist())) > 2 - (name == "act, soon")
    assert trace.tokens["nll"].null_count() == 1
    assert trace.tokens["exit_depth"].to_list() == (counted.astype(int) - 1).tolist()


def test_scores_of_act_are_sums_of_halting_probabilities() -> None:
    model = wrapped("act")
    emitted: list[Any] = []
    unit = model.model.model.act_fn
    unit.p.register_forward_hook(lambda _, args, found: emitted.append(found.detach()[0, :, 0]))
    trace = skipviz.trace(model, tiny.TEXT)
    score, limit = trace.matrix("score"), trace.matrix("threshold")
    for token in range(len(trace)):
        added = 0.0
        for step in range(1, halting.STEPS):
            if added > 0.9:  # it has stopped, and is asked no more
                assert np.isnan(score[token, step])
                continue
            added += float(torch.sigmoid(emitted[step - 1][token]))
            assert abs(score[token, step] - added) < 1e-6
            assert limit[token, step] == np.float32(0.9)
            assert bool(trace.matrix("exec_count")[token, step]) == (added <= 0.9)
    assert np.isnan(score[:, 0]).all()


@pytest.mark.parametrize("name", ["act", "pondernet"])
def test_recording_changes_nothing(name: str) -> None:
    model = wrapped(name)
    torch.manual_seed(3)
    with torch.inference_mode():
        plain = model.model(ids_of(model)).logits
    torch.manual_seed(3)
    with torch.inference_mode(), skipviz.record(model) as recording:
        assert torch.equal(model.model(ids_of(model)).logits, plain)
    counted = model.model.model.truth[0].numpy()
    assert np.array_equal(recording.trace.tokens["layers_used"].to_numpy(), counted)


def test_draws_are_named_and_differ_with_the_seed() -> None:
    model = wrapped("pondernet")
    first, second = (skipviz.trace(model, tiny.TEXT, seed=seed) for seed in (0, 1))
    assert first.run["seed"].item() == 0
    assert (first.matrix("exec_count") != second.matrix("exec_count")).any()
    assert "drawn at random" in {note.label for note in skipping_notes(first)}
    score, chance = first.matrix("score"), first.matrix("p_execute")
    np.testing.assert_allclose(chance[:, 1:], 1 - score[:, 1:], atol=1e-6)
    assert np.isnan(first.matrix("threshold")).all()


def test_forcing_what_was_drawn_gives_the_same_bits_and_other_steps_are_obeyed() -> None:
    model = wrapped("pondernet")
    ids = ids_of(model)
    torch.manual_seed(3)
    with torch.inference_mode(), skipviz.record(model) as recording:
        plain = model.model(ids).logits
    ran = recording.trace.matrix("exec_count") > 0
    with torch.inference_mode(), forced(model, skipviz.Plan(ran)):
        assert torch.equal(model.model(ids).logits, plain)
    plan = drawn(model, tokens=ids.shape[1], seed=4)
    for outer in (True, False):  # whoever came first, what was forced is read
        with torch.inference_mode():
            if outer:
                with forced(model, plan), skipviz.record(model) as again:
                    made = model.model(ids).logits
            else:
                with skipviz.record(model) as again, forced(model, plan):
                    made = model.model(ids).logits
        assert np.array_equal(again.trace.matrix("exec_count") > 0, plan.execute[0])
        assert again.trace.matrix("forced")[:, 1:].all()
    # The step that the plan says, by hand: as many runs of the layer, then norm and head.
    inner = model.model.model
    with torch.inference_mode():
        states = inner.embed_tokens(ids)
        rotary = inner.rotary_emb(states, torch.arange(ids.shape[1])[None])
        every = []
        for _ in range(halting.STEPS):
            states = inner.ponder.layer(states, position_embeddings=rotary, attention_mask=None)
            every.append(inner.ponder.output_layer(states)[0])
    last = plan.execute[0].sum(axis=1) - 1
    wanted = torch.stack([every[step][token] for token, step in enumerate(last)])
    assert torch.equal(made[0], wanted)


def test_draws_of_other_threads_and_other_code_are_left_alone() -> None:
    model = wrapped("pondernet")
    ids, found = ids_of(model), []
    never = np.zeros((ids.shape[1], halting.STEPS), dtype=np.bool_)
    never[:, 0] = True

    def elsewhere() -> None:
        torch.manual_seed(3)
        with torch.inference_mode():
            model.model(ids)
        found.append(model.model.model.truth.clone())

    elsewhere()
    with forced(model, skipviz.Plan(never)):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert (torch.bernoulli(torch.ones(4)) == 1).all()
        with torch.inference_mode():
            model.model(ids)
        assert (model.model.model.truth == 1).all()
    assert torch.equal(found[0], found[1])


def test_plans_that_cannot_be_are_refused() -> None:
    model = wrapped("pondernet")
    tokens = ids_of(model).shape[1]
    every = np.ones((tokens, halting.STEPS), dtype=np.bool_)
    for change, words in (((0, 0), "first step"), ((0, 2), "that has stopped")):
        plan = every.copy()
        plan[change] = False
        with pytest.raises(InputError, match=words):
            skipviz.trace(model, tiny.TEXT, plan=skipviz.Plan(plan))
    with pytest.raises(InputError, match="decides 2 steps"):
        skipviz.trace(model, tiny.TEXT, plan=skipviz.Plan(every[:, :2]))


@pytest.mark.parametrize(
    "draw",
    [
        lambda made, p: made(input=p),
        lambda made, p: made(p, generator=None),
        lambda _, p: p.bernoulli(),
    ],
)
def test_a_draw_may_be_written_otherwise(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped("pondernet")
    usual = skipviz.trace(model, tiny.TEXT, seed=3)
    made = torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda p: draw(made, p))
    again = skipviz.trace(model, tiny.TEXT, seed=3)
    for matrix in ("exec_count", "score"):
        assert np.array_equal(again.matrix(matrix), usual.matrix(matrix), equal_nan=True)


def test_the_chance_of_a_draw_may_be_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = wrapped("pondernet"), torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda p: made(p, 0.25))
    score = skipviz.trace(model, tiny.TEXT, seed=3).matrix("score")
    assert (score[~np.isnan(score)] == 0.25).all()


def test_draws_of_whole_texts_are_refused_and_leave_the_run_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, made = wrapped("pondernet"), torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda p: made(p[:, :1].flatten()).expand_as(p))
    ids = ids_of(model)
    torch.manual_seed(3)
    with torch.inference_mode():
        plain = model.model(ids).logits
    with pytest.raises(RecordingError, match="each token has its own"), skipviz.record(model):  # noqa: PT012
        torch.manual_seed(3)
        with torch.inference_mode():
            again = model.model(ids).logits
    assert torch.equal(again, plain)
    plan = drawn(model, tokens=ids.shape[1], seed=4)
    with (
        pytest.raises(RecordingError, match="each token has its own"),
        forced(model, plan),
    ):
        model.model(ids)


@pytest.mark.parametrize("name", ["act", "pondernet"])
def test_the_check_up_finds_what_the_code_does(name: str) -> None:
    found = {
        each.code: each.outcome
        for each in skipviz.check(wrapped(name), ignore=("SKV012",)).findings
    }
    issues = {code for code, outcome in found.items() if outcome == "issue"}
    # labml's code makes a next state behind the last step too, of which nothing is taken.
    assert issues == ({"SKV006", "SKV014"} if name == "pondernet" else set()), found
