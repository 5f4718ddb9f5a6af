"""Gathered exits give what masked ones give, and layers run only for tokens inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.families.exits import gathered
from skipviz.families.exits.family import Exits
from skipviz.families.exits.modules import ExitConfig, ExitRule, install_exits, set_exit_rule
from skipviz.families.gated import gathered as carried
from tests import tiny
from tests.gathering import (
    KINDS,
    TEXT,
    Both,
    same_attention_weights,
    same_generation,
    same_in_a_batch,
    same_losses,
)

RULES: tuple[ExitRule, ...] = ("confidence", "entropy", "patience")
CONFIG = ExitConfig(exits=(0, 2, 3), adapter_rank=2, head_rank=32)


def exits_of(kind: str, *, rule: ExitRule = "confidence", dtype: Any = torch.float32) -> Any:
    """A model that a third or so of the tokens leaves at each exit."""
    model = tiny.of_kind(kind).to(dtype)
    install_exits(model, CONFIG)
    torch.manual_seed(1)
    for translator in model.exits.translators:
        torch.nn.init.normal_(translator.up.weight, std=0.3)
    set_exit_rule(model, rule, {"confidence": 2.0, "entropy": 0.0, "patience": 1.0}[rule])
    made = skipviz.from_parts(model, tiny.tokenizer(), name=f"exits {kind}")
    if rule != "patience":
        scores = skipviz.trace(made, TEXT).matrix("score")
        share = 0.65 if rule == "confidence" else 0.35
        set_exit_rule(model, rule, float(np.quantile(scores[:, 0], share)))
    return made


def both(kind: str, **more: Any) -> Both:
    masked = exits_of(kind, **more)
    return masked, skipviz.with_runtime(masked, "gathered")


def same(first: skipviz.Trace, second: skipviz.Trace) -> None:
    counts = [trace.matrix("exec_count") for trace in (first, second)]
    assert np.array_equal(*counts)
    assert 0.1 < counts[0].mean() < 0.85
    for name in ("nll", "entropy"):
        found = [trace.tokens[name].to_numpy()[:-1] for trace in (first, second)]
        np.testing.assert_allclose(*found, atol=1e-4)
    # Of a token that left, no score either way.
    np.testing.assert_allclose(first.matrix("score"), second.matrix("score"), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_text_alone(kind: str, attention: str) -> None:
    masked = exits_of(kind)
    masked.model.set_attn_implementation(attention)
    fast = skipviz.with_runtime(masked, "gathered")
    first, second = (skipviz.trace(model, TEXT) for model in (masked, fast))
    same(first, second)
    assert second.run["runtime"].item() == "gathered"
    assert first.sites["computed_anyway"].all()
    assert not second.sites["computed_anyway"].any()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule: ExitRule) -> None:
    same(*(skipviz.trace(model, TEXT) for model in both("Llama", rule=rule)))


@pytest.mark.parametrize("kind", KINDS)
def test_unlike_texts_in_a_batch(kind: str) -> None:
    same_in_a_batch(both(kind))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_the_same_and_goes_on_where_it_stopped(kind: str, cache: str) -> None:
    same_generation(both(kind), cache=cache)


def test_attention_weights_are_of_every_layer() -> None:
    same_attention_weights(both("Llama"))


def test_recording_on_top_says_the_same() -> None:
    given = tiny.tokenizer()([tiny.TEXT, tiny.TEXT[:12]], return_tensors="pt", padding=True)
    traces = []
    for model in both("Llama"):
        with skipviz.record(model) as recording:
            model.model.generate(**given, do_sample=False, max_new_tokens=12, pad_token_id=2)
        traces.append(recording.trace)
    same(*traces)
    assert (traces[1].tokens["phase"] == "decode").sum() >= 11


def test_a_cache_is_continued_token_by_token() -> None:
    masked, fast = both("Llama")
    ids = masked.tokenizer(TEXT, return_tensors="pt").input_ids
    parts: list[list[Tensor]] = [[], []]
    for model, logits in zip((masked, fast), parts, strict=True):
        cache = None
        for start, stop in ((0, 40), (40, 41), (41, 60), *((at, at + 1) for at in range(60, 72))):
            with torch.inference_mode():
                output = model.model(ids[:, start:stop], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits.append(output.logits)
    with torch.inference_mode():
        whole = masked.model(ids[:, :72]).logits
    for logits in parts:
        torch.testing.assert_close(torch.cat(logits, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_is_carried_out(seed: int) -> None:
    masked, fast = both("Llama")
    tokens = len(skipviz.trace(masked, TEXT))
    assert isinstance(masked.family, Exits)
    drawn = masked.family.draw_plan(masked.model, texts=1, tokens=tokens, seed=seed).execute[0]
    first, second = (
        skipviz.trace(model, TEXT, plan=skipviz.Plan(drawn)) for model in (masked, fast)
    )
    same(first, second)
    assert np.array_equal(second.matrix("exec_count") > 0, drawn)


@pytest.mark.parametrize("share", [False, True])
def test_all_leave_and_none(share: bool) -> None:
    masked, fast = both("Llama")
    shape = (len(skipviz.trace(masked, TEXT)), sites_of(masked))
    plan = skipviz.Plan(np.full(shape, share))
    same_losses(*(skipviz.trace(model, TEXT, plan=plan) for model in (masked, fast)))


def sites_of(model: skipviz.SkipModel) -> int:
    return len(model.family.sites(model.model))


def rows_given(model: Any, layer: int, run: Any) -> dict[str, int]:
    """Return how many rows each linear layer of a layer is given in a run."""
    given: dict[str, int] = {}
    linear = {
        name.rpartition(".")[2]: module
        for name, module in model.model.layers[layer].named_modules()
        if isinstance(module, torch.nn.Linear)
    }

    def count(name: str) -> Any:
        def hook(module: Any, args: Any, result: Tensor) -> None:
            given[name] = given.get(name, 0) + result.shape[:-1].numel()

        return hook

    handles = [module.register_forward_hook(count(name)) for name, module in linear.items()]
    with torch.inference_mode():
        run()
    for handle in handles:
        handle.remove()
    return given


def test_a_token_that_left_costs_its_keys_and_values() -> None:
    masked, fast = both("Llama")
    ids = masked.tokenizer(TEXT, return_tensors="pt").input_ids
    ran = skipviz.trace(masked, TEXT).matrix("exec_count").sum(axis=0)
    for layer in range(CONFIG.exits[0] + 1, tiny.LAYERS):
        rows = rows_given(fast.model, layer, lambda: fast.model(ids, use_cache=True))
        assert rows.pop("k_proj") == rows.pop("v_proj") == ids.shape[1]
        assert set(rows.values()) == {ran[layer - CONFIG.exits[0] - 1]}
        rows = rows_given(masked.model, layer, lambda: masked.model(ids))
        assert set(rows.values()) == {ids.shape[1]}


@pytest.mark.parametrize("stays", [True, False])
def test_a_text_that_left_stops_in_decode(stays: bool) -> None:
    _, fast = both("Llama")
    ids, step = torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([[11], [12]])
    execute = np.ones((2, 4, sites_of(fast)), dtype=bool)
    execute[0, 3], execute[1, 3] = stays, False
    assert isinstance(fast.family, Exits)
    with torch.inference_mode(), fast.family.force(fast.model, skipviz.Plan(execute)):
        cache = fast.model(ids, use_cache=True).past_key_values
        rows = rows_given(
            fast.model, 4, lambda: fast.model(step, past_key_values=cache, use_cache=True)
        )
    assert rows.pop("k_proj") == rows.pop("v_proj") == 2
    assert list(rows.values()) == [1] * 5 * stays
    assert cache.get_seq_length(4) == cache.get_seq_length(0) == 4


def test_without_a_cache_nothing_is_made_for_nobody() -> None:
    _, fast = both("Llama")
    plan = skipviz.Plan(np.zeros((3, sites_of(fast)), dtype=bool))
    ids = torch.tensor([[5, 6, 7]])
    assert isinstance(fast.family, Exits)
    with fast.family.force(fast.model, plan):
        assert not rows_given(fast.model, 4, lambda: fast.model(ids, use_cache=False))


def test_a_copy_asks_its_own_exits_and_masked_is_masked_again() -> None:
    masked, fast = both("Llama")
    other = fast.under(Always(), policy="all")
    assert skipviz.trace(other, TEXT).matrix("exec_count").mean() == 0
    same(skipviz.trace(masked, TEXT), skipviz.trace(fast, TEXT))
    back = skipviz.with_runtime(other, "masked")
    assert skipviz.trace(back, TEXT).sites["computed_anyway"].all()
    ids = torch.tensor([[5, 6, 7]])
    assert rows_given(back.model, 4, lambda: back.model(ids))["q_proj"] == 3
    assert rows_given(other.model, 4, lambda: other.model(ids, use_cache=False)) == {}


class Always:
    """Lets every token leave first."""

    key = "all"

    def apply(self, model: Any) -> None:
        set_exit_rule(model, "confidence", 0.0)


def test_the_check_up_finds_that_time_is_saved() -> None:
    found = [
        {each.code: each.outcome for each in skipviz.check(model, TEXT).findings}
        for model in both("Llama")
    ]
    assert [each["SKV010"] for each in found] == ["tip", "passed"]
    assert {name: each for name, each in found[0].items() if name != "SKV010"} == {
        name: each for name, each in found[1].items() if name != "SKV010"
    }


def test_bfloat16_stays_near() -> None:
    masked, fast = both("Llama", dtype=torch.bfloat16)
    first, second = (skipviz.trace(model, TEXT) for model in (masked, fast))
    assert (first.matrix("exec_count") != second.matrix("exec_count")).mean() < 0.1


@pytest.mark.parametrize("fault", ["what is read", "keys of those that left"])
def test_what_differs_is_refused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, turned = carried.attention_of, carried.rotated

    def off(*given: Any, **more: Any) -> Tensor | None:
        read = honest(*given, **more)
        return None if read is None else read * 1.01

    if fault == "what is read":
        monkeypatch.setattr(gathered, "attention_of", off)
    else:
        monkeypatch.setattr(
            carried,
            "rotated",
            lambda *given: turned(*given) * (1.1 if given[3] == "k_norm" else 1),
        )
    with pytest.raises(skipviz.ModelError, match="its logits differ from the masked ones"):
        skipviz.with_runtime(exits_of("Llama"), "gathered")
