"""Policies of fixed rates under the gathered runtime: what they drop is not run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.families.fixed_rates.modules import FixedRate, install_rates, set_rates
from skipviz.families.gated import gathered
from skipviz.families.gated.modules import gated_units
from tests import tiny
from tests.gathering import TEXT, Both, same_attention_weights, same_generation, same_losses

STATIC = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
"""Of layers 1 to 4, attention first."""
RANDOM = [0.5, 0.2, 0.9, 0.4, 0.0, 0.5, 1.0, 0.6]


def both(rates: list[float], *, kind: str = "Llama", attention: str = "sdpa") -> Both:
    model = tiny.of_kind(kind)
    install_rates(model, tiny.GATES, seed=0)
    torch.manual_seed(1)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    set_rates(model, rates)
    model.set_attn_implementation(attention)
    masked = skipviz.from_parts(model, tiny.tokenizer())
    return masked, skipviz.with_runtime(masked, "gathered")


@pytest.mark.parametrize(
    ("kind", "attention"),
    [("Llama", "sdpa"), ("Mistral", "eager"), ("Qwen2", "sdpa"), ("Qwen3", "eager")],
)
@pytest.mark.parametrize("rates", [STATIC, RANDOM], ids=["static", "random"])
def test_a_text_alone(rates: list[float], kind: str, attention: str) -> None:
    traces = [skipviz.trace(m, TEXT) for m in both(rates, kind=kind, attention=attention)]
    for name in ("exec_count", "score"):
        assert np.array_equal(*(trace.matrix(name) for trace in traces))
    same_losses(*traces)
    assert [trace.sites["computed_anyway"].all() for trace in traces] == [True, False]
    assert not traces[1].sites["computed_anyway"].any()
    assert traces[1].run["runtime"].item() == "gathered"


@pytest.mark.parametrize("rates", [STATIC, RANDOM], ids=["static", "random"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generating_for_a_padded_batch(rates: list[float], cache: str) -> None:
    same_generation(both(rates), cache=cache)


def test_attention_weights_are_of_every_layer() -> None:
    same_attention_weights(both(STATIC))


def calls(model: Any, run: Any) -> set[tuple[int, str, str]]:
    """Return which linear layers and gates of gated units are called in a run."""
    called: set[tuple[int, str, str]] = set()

    def note(place: tuple[int, str, str]) -> Any:
        def hook(*_: Any) -> None:
            called.add(place)

        return hook

    handles = [
        module.register_forward_hook(note((layer, kind, name.rpartition(".")[2])))
        for layer, kind, unit in gated_units(model)
        for name, module in unit.named_modules()
        if isinstance(module, torch.nn.Linear | FixedRate)
    ]
    with torch.inference_mode():
        run()
    for handle in handles:
        handle.remove()
    return called


def test_what_is_dropped_is_not_run_and_nothing_is_asked() -> None:
    _, fast = both(STATIC)
    ids = torch.tensor([[5, 6, 7, 8]])
    whole = {
        "attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
        "mlp": {"gate_proj", "up_proj", "down_proj"},
    }
    kept_of: tuple[tuple[bool, set[str]], ...] = ((False, set()), (True, {"k_proj", "v_proj"}))
    for cached, kept in kept_of:
        found = calls(fast.model, lambda cached=cached: fast.model(ids, use_cache=cached))
        for rate, (layer, kind, _) in zip(STATIC, gated_units(fast.model), strict=True):
            names = {name for at, unit, name in found if (at, unit) == (layer, kind)}
            assert names == (whole[kind] if rate else kept if kind == "attn" else set())


def test_a_plan_is_asked_for_where_all_is_fixed() -> None:
    masked, fast = both(STATIC)
    tokens = len(skipviz.trace(masked, TEXT))
    plan = skipviz.Plan(np.random.default_rng(0).random((tokens, len(STATIC))) < 0.4)
    first, second = (skipviz.trace(model, TEXT, plan=plan) for model in (masked, fast))
    assert np.array_equal(second.matrix("exec_count") > 0, plan.execute)
    same_losses(first, second)
    # From a cache too, whose keys of a dropped attention the plan lets later tokens read.
    ids = masked.tokenizer(tiny.TEXT, return_tensors="pt").input_ids[:, :12]
    logits: list[Tensor] = []
    for model in (masked, fast):
        with torch.inference_mode():
            cache = model.model(ids[:, :-1], use_cache=True).past_key_values
            every = skipviz.Plan(np.ones((1, len(STATIC)), dtype=bool))
            with skipviz.families.powers.force(model.family, model.model, every, name="it"):
                logits.append(model.model(ids[:, -1:], past_key_values=cache).logits)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


def test_what_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = gathered.rows_through
    monkeypatch.setattr(gathered, "rows_through", lambda *given: honest(*given) * 1.01)
    with pytest.raises(skipviz.ModelError, match="its logits differ from the masked ones"):
        both(STATIC)
