"""CALM's rules against a loop over tokens and layers in plain Python."""

from __future__ import annotations

import doctest
import math
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import skipviz
from skipviz.errors import InputError
from skipviz.families.published import calm
from skipviz.families.published.calm import CalmRule, install_calm
from skipviz.text.spans import encode
from tests import tiny
from tests.forcing import forced

SHARP = 3.0
"""A factor on the head, so that random weights are confident of something."""
RULES = {
    "softmax": CalmRule(threshold=0.5),
    "softmax, falling": CalmRule(threshold=0.45, temperature=3.0, length=40),
    "softmax, behind a prompt": CalmRule(threshold=0.45, temperature=3.0, length=40, prompt=5),
    "state": CalmRule(measure="state", threshold=0.9),
    "classifier": CalmRule(measure="classifier", threshold=0.8),
}


def classifier() -> nn.Module:
    """Two layers, as FREE's ``cm_head``."""
    torch.manual_seed(4)
    made = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    return made.requires_grad_(False)


def with_calm(rule: CalmRule, *, sharp: float = SHARP) -> Any:
    model = tiny.backbone(seed=0)
    model.lm_head.weight.data *= sharp
    install_calm(model, rule, classifier=classifier() if rule.measure == "classifier" else None)
    return model.eval()


def ids() -> Tensor:
    return torch.tensor([encode(tiny.tokenizer(), tiny.TEXT).ids])


def threshold_at(rule: CalmRule, place: int) -> float:
    if place < rule.prompt:
        return math.inf
    if rule.temperature is None:
        return rule.threshold
    falls = 0.1 * math.exp(-rule.temperature * (place - rule.prompt) / rule.length)
    return min(1.0, max(0.0, 0.9 * rule.threshold + falls))


def by_hand(rule: CalmRule, leaves_at: Any = None) -> tuple[Tensor, np.ndarray[Any, Any], Any]:
    """Return logits, who ran each layer, and scores; a token after another, from a cache.

    ``leaves_at`` gives the layer after which a token leaves instead of the rule, or None.
    """
    dense: Any = tiny.backbone(seed=0)
    dense.lm_head.weight.data *= SHARP
    head = classifier()
    tokens, layers = ids()[0], list(dense.model.layers)
    seen: list[list[Tensor]] = [[] for _ in layers]  # what each layer was given so far
    ran = np.zeros((len(tokens), len(layers)), dtype=np.uint8)
    scores = np.full((len(tokens), len(layers)), np.nan)
    logits = []
    with torch.no_grad():
        for place, token in enumerate(tokens):
            state, inside = dense.model.embed_tokens(token)[None, None], True
            for number, layer in enumerate(layers):
                seen[number].append(state)
                if not inside:
                    continue
                made = tiny.last_made(dense, layer, seen[number])
                given, state, ran[place, number] = state, made, 1
                if number == len(layers) - 1 or (rule.measure == "state" and number == 0):
                    continue
                if rule.measure == "softmax":
                    best = dense.lm_head(dense.model.norm(state)).softmax(-1).sort().values
                    score = float(best[0, 0, -1] - best[0, 0, -2])
                elif rule.measure == "state":
                    a, b = state[0, 0], given[0, 0]
                    score = float(a @ b / (a.norm() * b.norm()))
                else:
                    score = float(head(state).softmax(-1)[0, 0, 1])
                scores[place, number] = score
                inside = score < threshold_at(rule, place)
                if leaves_at is not None:
                    inside = leaves_at[place] != number
            logits.append(dense.lm_head(dense.model.norm(state))[0])
    return torch.cat(logits), ran, scores


@pytest.mark.parametrize("name", RULES)
def test_exits_are_those_of_a_loop_in_plain_python(name: str) -> None:
    rule = RULES[name]
    model = skipviz.from_parts(with_calm(rule), tiny.tokenizer())
    assert model.family.name == "calm"
    trace = skipviz.trace(model, tiny.TEXT)
    logits, ran, scores = by_hand(rule)
    first = trace.sites["layer"][0]
    assert np.array_equal(trace.matrix("exec_count"), ran[:, first:])
    assert 0.05 < ran[:, -1].mean() < 0.95
    assert len(set(ran.sum(axis=1).tolist())) > 2
    np.testing.assert_allclose(trace.matrix("score"), scores[:, first - 1 : -1], atol=1e-4)
    limits = [threshold_at(rule, place) for place in range(len(trace))]
    np.testing.assert_allclose(trace.matrix("threshold")[:, 0], limits, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model.model(ids()).logits[0], logits, atol=1e-4, rtol=1e-4)
    if rule.prompt:
        assert (trace.matrix("exec_count")[: rule.prompt] == 1).all()


@pytest.mark.parametrize("name", RULES)
def test_recording_decoding_and_forcing_change_nothing(name: str) -> None:
    model = skipviz.from_parts(with_calm(RULES[name]), tiny.tokenizer())
    tokens = ids()
    with torch.inference_mode():
        plain = model.model(tokens).logits
        with skipviz.record(model) as recording:
            assert torch.equal(model.model(tokens).logits, plain)
        ran = recording.trace.matrix("exec_count") > 0
        with forced(model, skipviz.Plan(ran)):
            assert torch.equal(model.model(tokens).logits, plain)
        parts = tiny.decoded(model.model, tokens, last=4)
    torch.testing.assert_close(parts, plain, atol=1e-4, rtol=1e-4)


def test_other_exits_are_a_loop_that_leaves_there() -> None:
    rule = RULES["softmax"]
    model = skipviz.from_parts(with_calm(rule), tiny.tokenizer())
    leaves = np.random.default_rng(0).integers(0, tiny.LAYERS, size=ids().shape[1])
    plan = skipviz.Plan(np.arange(1, tiny.LAYERS)[None] <= leaves[:, None])
    trace = skipviz.trace(model, tiny.TEXT, plan=plan)
    _, ran, _ = by_hand(rule, leaves_at=leaves)
    assert np.array_equal(trace.matrix("exec_count"), ran[:, 1:])
    assert np.array_equal(trace.matrix("exec_count") > 0, plan.execute)
    with torch.no_grad(), forced(model, plan):
        made = model.model(ids()).logits[0]
    wanted, _, _ = by_hand(rule, leaves_at=leaves)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)


def test_a_text_in_a_padded_batch_is_as_alone() -> None:
    model = skipviz.from_parts(with_calm(RULES["softmax, falling"]), tiny.tokenizer())
    both = skipviz.trace(model, [tiny.TEXT, tiny.TEXT[:20]])
    alone = skipviz.trace(model, tiny.TEXT[:20])
    of = (both.tokens["sequence"] == 1).to_numpy()
    assert np.array_equal(both.matrix("exec_count")[of], alone.matrix("exec_count"))


def test_the_check_up_finds_no_issue() -> None:
    model = skipviz.from_parts(with_calm(RULES["softmax"]), tiny.tokenizer())
    found = {each.code: each.outcome for each in skipviz.check(model, ignore=("SKV012",)).findings}
    assert "issue" not in found.values(), found
    assert found["SKV002"] == found["SKV007"] == "passed"


@pytest.mark.parametrize("wrong", [
    {"temperature": math.nan}, {"temperature": math.inf}, {"temperature": -1.0},
    {"threshold": math.nan}, {"length": math.nan}, {"prompt": 2.5}, {"measure": "other"},
])  # fmt: skip
def test_a_rule_of_wrong_numbers_is_refused(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
        CalmRule(**wrong)


def test_what_does_not_fit_is_refused() -> None:
    model: Any = tiny.backbone(seed=0)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        CalmRule(threshold=2.0)
    with pytest.raises(InputError, match="needs a module"):
        install_calm(model, CalmRule(measure="classifier"))
    with pytest.raises(InputError, match="no other takes one"):
        install_calm(model, CalmRule(), classifier=classifier())
    install_calm(model)
    with pytest.raises(InputError, match="exits already"):
        install_calm(model)
    wrapped = skipviz.from_parts(model, tiny.tokenizer())
    back = np.ones((ids().shape[1], tiny.LAYERS - 1), dtype=np.bool_)
    back[3, 1] = False
    with pytest.raises(InputError, match="come back"):
        skipviz.trace(wrapped, tiny.TEXT, plan=skipviz.Plan(back))
    scaled = tiny.of_kind("Granite")
    scaled.config.logits_scaling = 4.0
    with pytest.raises(InputError, match="scale or cap"):
        install_calm(scaled)


def test_the_example_is_true() -> None:
    dense = skipviz.from_parts(tiny.backbone(seed=0), tiny.tokenizer(), name="dense")
    names = {**vars(calm), "skipviz": skipviz, "dense": dense}
    (example,) = doctest.DocTestFinder(recurse=False).find(install_calm, globs=names)
    assert example.examples
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
