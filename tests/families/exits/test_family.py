"""Early exits against a loop over layers written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.families.exits.modules import (
    ExitConfig,
    ExitRule,
    install_exits,
    leading_directions,
    set_exit_rule,
)
from skipviz.families.exits.settings import ExitAt
from skipviz.families.llama import UnitFlops
from skipviz.text.spans import encode
from tests import tiny

WIDTH = 32
CONFIG = ExitConfig(exits=(1, 3), adapter_rank=2, head_rank=WIDTH)
THRESHOLDS: dict[ExitRule, float] = {"confidence": 0.06, "entropy": 5.05, "patience": 1.0}


def with_exits(
    *, rule: ExitRule = "confidence", seed: int = 0, change: Callable[[Any], None] = lambda _: None
) -> Any:
    """``change`` is made before there are exits."""
    model = tiny.backbone(seed=seed)
    change(model)
    install_exits(model, CONFIG)
    torch.manual_seed(seed)
    for translator in model.exits.translators:
        torch.nn.init.normal_(translator.up.weight, std=0.3)
    set_exit_rule(model, rule, THRESHOLDS[rule])
    return model.eval()


def ids() -> Tensor:
    return torch.tensor([encode(tiny.tokenizer(), tiny.TEXT).ids])


def scores_of(rule: ExitRule, logits: Tensor, before: Tensor | None) -> Tensor:
    if rule == "confidence":
        return logits.softmax(-1).amax(-1)
    if rule == "entropy":
        return torch.distributions.Categorical(logits=logits).entropy()
    agree = torch.zeros(logits.shape[:-1]) if before is None else logits.argmax(-1) == before
    return agree.float()


def by_hand(model: Any, rule: ExitRule) -> tuple[Tensor, Tensor]:
    """One token after another, one layer after another; dense layers of the same weights."""
    dense = tiny.backbone(seed=0)
    tokens = ids()
    length = tokens.shape[1]
    inside = torch.ones(length, dtype=torch.bool)
    executed = torch.ones(length, tiny.LAYERS, dtype=torch.bool)
    state = dense.model.embed_tokens(tokens)
    left = torch.zeros_like(state)
    position = torch.arange(length)[None]
    rotary = dense.model.rotary_emb(state, position)
    mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
    before = None
    with torch.no_grad():
        for number, layer in enumerate(dense.model.layers):
            executed[:, number] = inside
            result = layer(state, attention_mask=mask, position_embeddings=rotary)
            state = torch.where(inside[None, :, None], result, state)
            if number in CONFIG.exits:
                translator = model.exits.translators[CONFIG.exits.index(number)]
                guess = state + state @ translator.down.weight.T @ translator.up.weight.T
                guess = guess + translator.up.bias
                logits = dense.lm_head(dense.model.norm(guess))[0]
                score = scores_of(rule, logits, before)
                before = logits.argmax(-1)
                limit = THRESHOLDS[rule]
                goes = score < limit if rule == "entropy" else score >= limit
                left[0, inside & goes] = guess[0, inside & goes]
                inside = inside & ~goes
        final = torch.where(inside[None, :, None], state, left)
        return dense.lm_head(dense.model.norm(final))[0], executed


@pytest.mark.parametrize("rule", ["confidence", "entropy", "patience"])
def test_exits_are_what_a_loop_over_layers_does(rule: ExitRule) -> None:
    model = with_exits(rule=rule)
    loaded = skipviz.from_parts(model, tiny.tokenizer())
    traced = skipviz.trace(loaded, tiny.TEXT)
    logits, executed = by_hand(model, rule)
    sites = executed[:, CONFIG.exits[0] + 1 :].numpy()
    assert np.array_equal(traced.matrix("exec_count"), sites.astype(np.uint8))
    assert 0.05 < sites[:, -1].mean() < 0.95
    with torch.no_grad():
        torch.testing.assert_close(model(ids()).logits[0], logits, atol=1e-4, rtol=1e-4)


def test_a_token_that_left_is_asked_no_more() -> None:
    loaded = skipviz.from_parts(with_exits(), tiny.tokenizer())
    traced = skipviz.trace(loaded, tiny.TEXT)
    executed = traced.matrix("exec_count") > 0
    second = traced.matrix("score")[:, 2]
    assert np.array_equal(np.isnan(second), ~executed[:, 0])
    depth = traced.tokens["exit_depth"].to_numpy()
    assert np.array_equal(depth == CONFIG.exits[0], ~executed[:, 0])
    assert set(depth.tolist()) <= {1, 3, tiny.LAYERS - 1}


def test_recording_changes_nothing_and_hears_the_same() -> None:
    model = with_exits()
    loaded = skipviz.from_parts(model, tiny.tokenizer())
    with torch.no_grad():
        bare = model(ids()).logits
        with skipviz.record(loaded) as recording:
            heard = model(ids()).logits
    assert torch.equal(bare, heard)
    traced = skipviz.trace(loaded, tiny.TEXT)
    assert np.array_equal(recording.trace.matrix("exec_count"), traced.matrix("exec_count"))


def test_decoding_from_a_cache_is_a_whole_forward() -> None:
    model = with_exits()
    tokens = ids()
    with torch.no_grad():
        whole = model(tokens).logits
        parts = tiny.decoded(model, tokens, last=3)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_forcing_what_was_decided_gives_the_same_bits() -> None:
    model = with_exits()
    loaded = skipviz.from_parts(model, tiny.tokenizer())
    traced = skipviz.trace(loaded, tiny.TEXT)
    executed = traced.matrix("exec_count") > 0
    with torch.no_grad():
        natural = model(ids()).logits
        set_exit_rule(model, "confidence", 2.0)  # the rule alone would let nobody leave
        with loaded.family.force(model, skipviz.Plan(executed)):
            assert torch.equal(model(ids()).logits, natural)
        assert not torch.equal(model(ids()).logits, natural)


@pytest.mark.parametrize(
    ("sites", "value", "words"),
    [
        (slice(0, 1), False, "one exit in front"),
        (slice(0, 2), False, "come back"),
    ],
)
def test_an_impossible_plan_is_refused(sites: slice, value: bool, words: str) -> None:
    loaded = skipviz.from_parts(with_exits(), tiny.tokenizer())
    execute = np.ones((ids().shape[1], 4), dtype=np.bool_)
    execute[3, sites] = value
    with (
        pytest.raises(ValueError, match=words),
        loaded.family.force(loaded.model, skipviz.Plan(execute)),
    ):
        pass


def test_the_budget_counts_questions_only_where_they_were_asked() -> None:
    loaded = skipviz.from_parts(with_exits(), tiny.tokenizer())
    traced = skipviz.trace(loaded, tiny.TEXT)
    config = loaded.model.config
    flops = UnitFlops.from_config(config)
    question = 4 * WIDTH * 2 + 2 * WIDTH * (WIDTH + config.vocab_size)
    executed = traced.matrix("exec_count")
    spent = dense = 0.0
    for place, ran in enumerate(executed):
        layer = flops.attn_fixed + flops.attn_per_key * (place + 1) + flops.mlp
        spent += layer * (2 + int(ran.sum())) + question * (1 + int(ran[0]))
        dense += layer * tiny.LAYERS
    assert realised_budget(traced) == pytest.approx(spent / dense)


def test_leading_directions_of_full_rank_change_no_probability() -> None:
    head = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    state = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    into, out = leading_directions(head, 8)
    torch.testing.assert_close(
        (state @ into @ out).softmax(-1), (state @ head.T).softmax(-1), atol=1e-5, rtol=1e-4
    )


def test_an_exit_after_the_last_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="saves nothing"):
        install_exits(tiny.backbone(seed=0), ExitConfig(exits=(1, 5), adapter_rank=2, head_rank=4))


def new_head(model: Any, way: str) -> None:
    with torch.random.fork_rng():
        head = tiny.backbone(seed=7).lm_head.weight.detach()
    if way == "loaded":
        model.load_state_dict({"lm_head.weight": head}, strict=False)
    elif way == "put in its place":
        model.lm_head.weight = torch.nn.Parameter(head.clone())
    else:
        weight = model.lm_head.weight
        weight.grad = weight.detach() - head
        torch.optim.SGD([weight], lr=1.0).step()


@pytest.mark.parametrize("way", ["loaded", "put in its place", "trained"])
def test_rules_read_the_head_as_it_is(way: str) -> None:
    after = with_exits()
    new_head(after, way)
    before = with_exits(change=lambda model: new_head(model, way))
    expected, seen = (skipviz.from_parts(each, tiny.tokenizer()) for each in (before, after))
    scores = skipviz.trace(expected, tiny.TEXT).matrix("score")
    for model in (seen, seen.under(ExitAt("confidence", THRESHOLDS["confidence"]))):
        found = skipviz.trace(model, tiny.TEXT).matrix("score")
        np.testing.assert_allclose(found, scores, atol=1e-6)
