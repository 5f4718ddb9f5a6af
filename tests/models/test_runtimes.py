"""The gathered runtime gives what the masked one gives, and runs only what executes."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import skipviz
from skipviz.families.gated import gathered, looking, one_token
from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates
from skipviz.families.gated.one_token import Turns
from skipviz.models.runtimes import TRIED_LENGTH, _logits, spread_apart
from tests import published, tiny
from tests.gathering import (
    KINDS,
    TEXT,
    Both,
    same_attention_weights,
    same_generation,
    same_in_a_batch,
    same_losses,
)


def gated_of(kind: str, *, dtype: torch.dtype = torch.float32) -> skipviz.SkipModel:
    model = tiny.of_kind(kind).to(dtype)  # gates score in float32
    install_gates(model, GatedConfig(first_layer=1, last_layer=4, gate_hidden=4, adapter_rank=2))
    torch.manual_seed(1)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
        torch.nn.init.normal_(unit.gate.up.bias, mean=-0.5, std=0.2)
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    return skipviz.from_parts(model, tiny.tokenizer(), name=f"gated {kind}")


def both(kind: str) -> Both:
    masked = gated_of(kind)
    return masked, skipviz.with_runtime(masked, "gathered")


def same(first: skipviz.Trace, second: skipviz.Trace) -> None:
    clear = np.abs(first.margin) > 1e-5
    counts = [trace.matrix("exec_count") for trace in (first, second)]
    assert np.array_equal(counts[0][clear], counts[1][clear])
    assert 0.1 < counts[0].mean() < 0.85
    same_losses(first, second)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_text_alone(kind: str, attention: str) -> None:
    masked = gated_of(kind)
    masked.model.set_attn_implementation(attention)
    fast = skipviz.with_runtime(masked, "gathered")
    first, second = (skipviz.trace(model, TEXT) for model in (masked, fast))
    same(first, second)
    assert second.run["runtime"].item() == "gathered"
    assert first.sites["computed_anyway"].all()
    assert not second.sites["computed_anyway"].any()


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
    masked, fast = both("Llama")
    given = masked.tokenizer(tiny.TEXT, return_tensors="pt")
    traces = []
    for model in (masked, fast):
        with skipviz.record(model) as recording:
            model.model.generate(**given, do_sample=False, max_new_tokens=10, pad_token_id=2)
        traces.append(recording.trace)
    same(*traces)
    assert (traces[1].tokens["phase"] == "decode").sum() == 9


def test_a_plan_is_carried_out() -> None:
    masked, fast = both("Llama")
    tokens, sites = len(skipviz.trace(masked, TEXT)), 8
    for seed in range(4):
        drawn = np.random.default_rng(seed).random((tokens, sites)) < 0.25 * (seed + 0.5)
        plan = skipviz.Plan(drawn)
        same_losses(*(skipviz.trace(model, TEXT, plan=plan) for model in (masked, fast)))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_and_none(share: float) -> None:
    masked, fast = both("Llama")
    tokens = len(skipviz.trace(masked, TEXT))
    plan = skipviz.Plan(np.full((tokens, 8), bool(share)))
    same_losses(*(skipviz.trace(model, TEXT, plan=plan) for model in (masked, fast)))


def test_skipped_tokens_do_not_go_through_a_unit() -> None:
    masked, fast = both("Llama")
    found = [
        {each.code: each for each in skipviz.check(model, TEXT).findings}
        for model in (masked, fast)
    ]
    assert found[0]["SKV010"].outcome == "tip"
    assert found[1]["SKV010"].outcome == "passed"
    assert found[1]["SKV001"].outcome == found[1]["SKV002"].outcome == "passed"
    assert found[1]["SKV004"].outcome == found[1]["SKV005"].outcome == "passed"


def test_a_token_that_skips_alone_costs_its_keys_and_values() -> None:
    _, fast = both("Llama")
    unit = fast.model.model.layers[2].self_attn
    called: list[str] = []
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        getattr(unit.unit, name).register_forward_hook(lambda *_, name=name: called.append(name))
    unit.decide.threshold.fill_(1e6)
    with torch.inference_mode():
        cache = fast.model(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
        called.clear()
        fast.model(torch.tensor([[8]]), past_key_values=cache, use_cache=True)
    assert called == ["k_proj", "v_proj"]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_prompt_without_padding_goes_on(cache: str) -> None:
    masked, fast = both("Llama")
    given = masked.tokenizer(TEXT, return_tensors="pt")
    more: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 2}
    if cache == "static":
        more["cache_implementation"] = "static"
    more |= {"output_logits": True, "return_dict_in_generate": True}
    found = [model.model.generate(**given, **more) for model in (masked, fast)]
    for first, second in zip(found[0].logits, found[1].logits, strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("through_data", [True, False])
def test_weights_that_are_written_to_are_seen(through_data: bool) -> None:
    masked, fast = both("Llama")
    skipviz.trace(fast, TEXT)
    for _, _, unit in gated_units(masked.model):
        for weight in (unit.gate.down.weight, unit.gate.down.bias, unit.adapter.down.weight):
            new = weight.detach() * 1.5 + 0.01
            with torch.no_grad():
                (weight.data if through_data else weight).copy_(new)
    same(*(skipviz.trace(model, TEXT) for model in (masked, fast)))


def written(weight: torch.nn.Parameter, new: torch.Tensor) -> torch.nn.Parameter:
    weight.copy_(new)
    return weight


def taken_anew(weight: torch.nn.Parameter, new: torch.Tensor) -> torch.nn.Parameter:
    weight.data = new
    return weight


def exchanged(weight: torch.nn.Parameter, new: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(new, requires_grad=False)


@pytest.mark.parametrize("changed", [written, taken_anew, exchanged])
@torch.no_grad()
def test_weights_that_change_between_two_tokens_are_seen(changed: Callable[..., Any]) -> None:
    caches, logits = [], []
    models = both("Llama")
    for handle in models:  # what a single token needs is made from the weights as they are
        out = handle.model(torch.tensor([[5, 6, 7]]), use_cache=True)
        caches.append(handle.model(torch.tensor([[8]]), past_key_values=out.past_key_values))
    gates = [list(gated_units(handle.model)) for handle in models]
    for (*_, unit), (*_, same_unit) in zip(*gates, strict=True):
        for part in ("gate.down", "gate.up", "adapter.down", "adapter.up"):
            module, other = unit.get_submodule(part), same_unit.get_submodule(part)
            for name, weight in list(module.named_parameters()):
                made = changed(weight, weight * -1.5 + 0.01)
                setattr(module, name, made)
                setattr(other, name, made)
    for handle, out in zip(models, caches, strict=True):
        ids = torch.tensor([[9]])
        logits.append(handle.model(ids, past_key_values=out.past_key_values).logits)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_scores_that_are_kept_of_a_token_are_not_written_over_by_the_next() -> None:
    _, fast = both("Llama")
    unit = fast.model.model.layers[2].mlp
    kept: list[torch.Tensor] = []
    before = unit.decide.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    out = fast.model(torch.tensor([[5, 6, 7]]), use_cache=True)
    kept.clear()
    for token in (8, 9):
        out = fast.model(torch.tensor([[token]]), past_key_values=out.past_key_values)
        assert kept[-1].shape == (1, 1)
    before.remove()
    assert len(kept) == 2
    assert kept[0].item() != kept[1].item()


@torch.no_grad()
def test_a_hook_that_runs_the_model_again_changes_nothing() -> None:
    masked, fast = both("Llama")
    logits = []
    for handle in (masked, fast):
        unit = handle.model.model.layers[2].self_attn
        out = handle.model(torch.tensor([[5, 6, 7]]), use_cache=True)
        inside: list[bool] = []

        def again(*_: Any, model: Any = handle.model, inside: list[bool] = inside) -> None:
            if not inside:
                inside.append(True)
                model(torch.tensor([[3]]))

        for module in (unit.decide, unit.unit.v_proj, handle.model.model.layers[3].mlp.decide):
            inside.clear()
            hook = module.register_forward_hook(again)
            out = handle.model(torch.tensor([[8]]), past_key_values=out.past_key_values)
            hook.remove()
            assert inside
            logits.append(out.logits)
    for first, second in zip(logits[:3], logits[3:], strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["gate", "gate.up", "adapter"])
@torch.no_grad()
def test_hooks_that_change_what_gates_and_adapters_make_are_obeyed(part: str) -> None:
    logits = []
    for handle in both("Llama"):
        out = handle.model(torch.tensor([[5, 6, 7]]), use_cache=True)
        out = handle.model(torch.tensor([[8]]), past_key_values=out.past_key_values)
        for _, _, unit in gated_units(handle.model):
            unit.get_submodule(part).register_forward_hook(lambda *given: -2.0 * given[2])
        out = handle.model(torch.tensor([[9]]), past_key_values=out.past_key_values)
        logits.append(out.logits)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


def hooked_to_double(module: torch.nn.Module) -> None:
    module.register_forward_hook(lambda *given: 2.0 * given[2])


def patched_to_double(module: torch.nn.Module) -> None:
    honest = module.forward
    module.forward = lambda *given: 2.0 * honest(*given)  # as libraries that place weights do


@pytest.mark.parametrize("doubled", [hooked_to_double, patched_to_double])
@pytest.mark.parametrize(
    "part",
    ["self_attn.unit.q_proj", "self_attn.unit.k_proj", "self_attn.unit.v_proj",
     "self_attn.unit.o_proj", "mlp.unit", "mlp.unit.gate_proj", "mlp.unit.up_proj",
     "mlp.unit.down_proj", "mlp.unit.act_fn"],
)  # fmt: skip
@torch.no_grad()
def test_what_is_changed_of_a_unit_is_obeyed_for_a_single_token(
    part: str, doubled: Callable[[torch.nn.Module], None]
) -> None:
    masked, fast = both("Llama")
    logits = []
    for handle in (masked, fast):
        out = handle.model(torch.tensor([[5, 6, 7]]), use_cache=True)
        layer = handle.model.model.layers[2]
        for unit in (layer.self_attn, layer.mlp):
            unit.decide.threshold.fill_(-1e6)
        for change in (lambda _: None, doubled):
            change(layer.get_submodule(part))
            cache = copy.deepcopy(out.past_key_values)
            made = handle.model(torch.tensor([[8]]), past_key_values=cache)
            logits.append(made.logits)
    as_masked, as_gathered = logits[:2], logits[2:]
    assert not torch.allclose(*as_masked, atol=1e-4)
    for first, second in zip(as_masked, as_gathered, strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["Doubled", "LlamaMLP"])
@torch.no_grad()
def test_an_mlp_of_another_class_runs_as_it_is_written(name: str) -> None:
    logits = []
    for handle in both("Llama"):
        unit = handle.model.model.layers[2].mlp
        unit.decide.threshold.fill_(-1e6)
        out = handle.model(torch.tensor([[5, 6, 7]]), use_cache=True)
        honest = type(unit.unit).forward

        def doubled(own: Any, given: torch.Tensor, honest: Any = honest) -> Any:
            return 2.0 * honest(own, given)

        unit.unit.__class__ = type(name, (type(unit.unit),), {"forward": doubled})
        logits.append(handle.model(torch.tensor([[8]]), past_key_values=out.past_key_values).logits)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_single_token_calls_no_linear_layer_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fast = both("Llama")
    out = fast.model(torch.tensor([[5, 6, 7]]), use_cache=True)
    computed: list[torch.Tensor] = []

    class Counted:
        scaled_dot_product_attention = staticmethod(F.scaled_dot_product_attention)

        @staticmethod
        def linear(states: torch.Tensor, *weights: Any) -> torch.Tensor:
            computed.append(states)
            return F.linear(states, *weights)

    monkeypatch.setattr(one_token, "F", Counted)
    units = list(gated_units(fast.model))
    for _, _, unit in units:
        unit.decide.threshold.fill_(-1e6)
    fast.model(torch.tensor([[8]]), past_key_values=out.past_key_values)
    attentions = sum(kind == "attn" for _, kind, _ in units)
    assert len(computed) == 4 * attentions + 3 * (len(units) - attentions)


@torch.no_grad()
def test_a_hook_on_all_modules_sees_those_of_a_single_token() -> None:
    seen = []
    for handle in both("Llama"):
        unit = handle.model.model.layers[2].mlp
        unit.decide.threshold.fill_(-1e6)
        names = {module: name for name, module in unit.named_modules()}
        called: set[str] = set()
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_, names=names, called=called: called.add(names.get(module, ""))
        )
        try:
            unit(torch.randn(1, 1, handle.model.config.hidden_size))
        finally:
            hook.remove()
        seen.append(called)
    assert "unit.down_proj" in seen[1]
    assert "decide" in seen[1]
    assert {each for each in seen[0] if each.startswith("unit")} <= seen[1]


@torch.no_grad()
def test_threads_that_join_the_same_weights_at_once_see_what_is_written_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, fast = both("Llama")
    model = copy.deepcopy(fast.model)  # whose weights nobody has joined
    unit = model.model.layers[2].mlp
    state = torch.randn(1, 1, model.config.hidden_size)
    both_there = threading.Barrier(2)

    def slow(honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            made = honest(*given)
            with contextlib.suppress(threading.BrokenBarrierError):
                both_there.wait(0.2)  # while one joins, the other never comes
            both_there.reset()
            return made

        return call

    for place, name in ((torch, "cat"), (looking, "_padded")):
        monkeypatch.setattr(place, name, slow(getattr(place, name)))
    looks = looking.Look()
    written = threading.Event()
    scores = []

    def look() -> None:
        with torch.no_grad():
            looks(unit, state)
            both_seen.wait()
            written.wait()
            scores.append(looks(unit, state)[0])

    both_seen = threading.Barrier(3)
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    both_seen.wait(30)
    unit.gate.down.weight.mul_(-3.0)
    written.set()
    for thread in threads:
        thread.join()
    for score in scores:
        torch.testing.assert_close(score.view(1, 1), unit.gate(state), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
@torch.no_grad()
def test_derivatives_go_forward_through_a_token() -> None:
    found = []
    for handle in both("Llama"):
        unit = handle.model.model.layers[2].mlp
        torch.manual_seed(0)
        state, way = torch.randn(2, 1, 1, handle.model.config.hidden_size)
        unit.decide.threshold.fill_(1e6)  # the adapter's, which is the same in both
        found.append(torch.func.jvp(unit, (state,), (way,)))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_autocast_runs_gathered_as_it_does_masked() -> None:
    masked, fast = both("Llama")
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = [handle.model(ids).logits.float() for handle in (masked, fast)]
    assert spread_apart(logits[0][0], logits[1][0]) < 0.25


def test_parts_say_how_they_run() -> None:
    _, fast = both("Llama")
    mine = skipviz.from_parts(fast.model, fast.tokenizer)
    assert mine.runtime == "gathered"
    assert skipviz.with_runtime(mine, "masked").family.sites(mine.model)
    sites = skipviz.trace(skipviz.with_runtime(mine, "masked"), tiny.TEXT).sites
    assert sites["computed_anyway"].all()


def test_gates_and_adapters_learn_through_it() -> None:
    _, fast = both("Llama")
    ids = fast.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    fast.model.eval()
    fast.model(ids, labels=ids).loss.backward()
    grads = [unit.adapter.down.weight.grad for _, _, unit in gated_units(fast.model)]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)


def test_cosines_that_are_written_anew_are_seen() -> None:
    turns, cosine, sine = Turns(), torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    assert torch.equal(turns.at((cosine, sine), layer=1), torch.eye(4))
    cosine.mul_(2)
    assert torch.equal(turns.at((cosine, sine), layer=1), 2 * torch.eye(4))


def test_bfloat16_stays_near() -> None:
    masked = gated_of("Llama", dtype=torch.bfloat16)
    fast = skipviz.with_runtime(masked, "gathered")
    first, second = (skipviz.trace(model, TEXT) for model in (masked, fast))
    assert (first.matrix("exec_count") != second.matrix("exec_count")).mean() < 0.02


@pytest.mark.parametrize(("dtype", "fills"), [(torch.bfloat16, True), (torch.float32, False)])
def test_rows_are_filled_up_where_each_number_of_them_costs_a_kernel(
    dtype: torch.dtype, fills: bool
) -> None:
    seen: list[int] = []

    class Counted(torch.nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            seen.append(len(given))
            return super().forward(given)

    counted = Counted(8, 3, dtype=dtype)
    for rows in (torch.randn(5, 8, dtype=dtype), torch.randn(32, 8, dtype=dtype)):
        made = gathered.rows_through(counted, rows)
        assert made.shape == (len(rows), 3)
        torch.testing.assert_close(made, counted(rows), rtol=1e-2, atol=1e-2)
    assert seen == [gathered.ROWS_FILLED if fills else 5, 5, 32, 32]


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_gathering_moves_logits_as_rounding_does(dtype: str) -> None:
    exact, masked = (skipviz.load("smollm2-gated", dtype=each) for each in ("float32", dtype))
    fast = skipviz.with_runtime(masked, "gathered")
    ids = exact.tokenizer(TEXT * 4, return_tensors="pt").input_ids[:, :TRIED_LENGTH]
    with torch.inference_mode():
        logits, own, others = (_logits(each, ids)[0] for each in (masked, fast, exact))
    assert 0 < spread_apart(logits, own) < 2 * spread_apart(others, logits)


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.float32, 1.01), (torch.bfloat16, 1.5), (torch.float16, 1.1)]
)
def test_what_differs_is_refused(
    dtype: torch.dtype, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = gathered._attend

    def off(*given: Any, **more: Any) -> torch.Tensor:
        return honest(*given, **more) * factor

    monkeypatch.setattr(gathered, "_attend", off)
    with pytest.raises(skipviz.ModelError, match="its logits differ from the masked ones"):
        skipviz.with_runtime(gated_of("Llama", dtype=dtype), "gathered")


def test_what_cannot_gather_says_so(dense: skipviz.SkipModel) -> None:
    with pytest.raises(skipviz.InputError, match="is of the family dense, whose units cannot"):
        skipviz.with_runtime(dense, "gathered")
    other = skipviz.from_parts(published.flexidepth(), tiny.tokenizer())
    with pytest.raises(skipviz.InputError, match="flexidepth"):
        skipviz.with_runtime(other, "gathered")


def test_gradients_and_attribution_pass() -> None:
    masked, fast = both("Llama")
    target = skipviz.Target(token=6)
    first, second = (
        skipviz.attribute_depth(model, skipviz.trace(model, tiny.TEXT), target, steps=2)
        for model in (masked, fast)
    )
    assert repr(first) == repr(second)
