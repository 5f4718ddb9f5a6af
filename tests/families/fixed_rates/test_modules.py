from __future__ import annotations

from typing import Any

import pytest
import torch

import skipviz
from skipviz.analysis.flops import token_flops
from skipviz.families.fixed_rates.modules import Clock, install_rates, set_rates, set_seed
from skipviz.families.gated.modules import gated_units
from tests import tiny

SITES = 8
HALF = [0.5] * SITES


def fixed(rates: list[float], *, seed: int = 0) -> skipviz.SkipModel:
    model = tiny.backbone(seed=0)
    install_rates(model, tiny.GATES, seed=seed)
    torch.manual_seed(1)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    set_rates(model, rates)
    return skipviz.from_parts(model, tiny.tokenizer())


def test_a_static_policy_skips_the_same_sites_for_every_token() -> None:
    rates = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    traced = skipviz.trace(fixed(rates), tiny.TEXT)
    assert (traced.matrix("exec_count") == rates).all()
    assert traced.sites["rule"].unique().to_list() == ["schedule"]
    assert traced.sites["gate_flops"].sum() == 0


def test_nobody_pays_for_keys_that_a_schedule_leaves_unread() -> None:
    rates = [0.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]  # of layers 1 to 4, attention first
    traced = skipviz.trace(fixed(rates), tiny.TEXT)
    keys = token_flops(traced)["keys_values"]
    # What is drawn for each token may be read by a later one, whoever skipped it.
    assert (keys == 5 * traced.run["kv_flops"].item()).all()
    # One token that is made to run the dropped attention reads the keys of all.
    executed = traced.matrix("exec_count") > 0
    executed[-1, 0] = True
    forced = skipviz.trace(fixed(rates), tiny.TEXT, plan=skipviz.Plan(executed))
    assert (token_flops(forced)["keys_values"] == 6 * traced.run["kv_flops"].item()).all()


def test_everything_at_rate_one_is_the_dense_model(dense: skipviz.SkipModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(fixed([1.0] * SITES).model(ids).logits, dense.model(ids).logits)


def test_a_random_policy_runs_each_site_at_its_rate() -> None:
    rates = [0.1, 0.3, 0.5, 0.7, 0.9, 0.5, 0.0, 1.0]
    traced = skipviz.trace(fixed(rates), [tiny.TEXT * 20], window=256)
    assert len(traced) >= 800
    found = traced.matrix("exec_count").mean(axis=0)
    assert found == pytest.approx(rates, abs=0.05)
    assert traced.sites["rule"].to_list() == ["sample"] * 6 + ["schedule"] * 2


def test_sites_and_neighbouring_tokens_draw_independently() -> None:
    clock = Clock(seed=3)
    clock.start(torch.nn.Identity(), (torch.arange(4000)[None] % 50,), {})
    draws = torch.cat([clock.draw(site) for site in range(SITES)])
    assert draws.min() >= 0
    assert draws.max() < 1
    between = torch.corrcoef(draws) - torch.eye(SITES)
    assert between.abs().max() < 0.06
    along = torch.corrcoef(torch.stack([draws[0, 1:], draws[0, :-1]]))[0, 1]
    assert along.abs() < 0.06


def test_draws_depend_on_the_seed_and_on_nothing_that_follows() -> None:
    one = skipviz.trace(fixed(HALF), tiny.TEXT).matrix("exec_count")
    again = skipviz.trace(fixed(HALF), tiny.TEXT).matrix("exec_count")
    other = skipviz.trace(fixed(HALF, seed=1), tiny.TEXT).matrix("exec_count")
    longer = skipviz.trace(fixed(HALF), tiny.TEXT + " and more").matrix("exec_count")
    assert (one == again).all()
    assert 0.3 < (one != other).mean() < 0.7
    assert (one[:-2] == longer[: len(one) - 2]).all()


def test_a_new_seed_draws_anew() -> None:
    model = fixed(HALF)
    one = skipviz.trace(model, tiny.TEXT).matrix("exec_count")
    set_seed(model.model, 1)
    other = skipviz.trace(model, tiny.TEXT).matrix("exec_count")
    assert (other == skipviz.trace(fixed(HALF, seed=1), tiny.TEXT).matrix("exec_count")).all()
    assert (one != other).any()


def test_batches_and_cached_decoding_draw_as_a_full_forward() -> None:
    model = fixed(HALF)
    alone = skipviz.trace(model, tiny.TEXT).matrix("exec_count")
    batch = skipviz.trace(model, [tiny.TEXT, "Why? Nobody"]).matrix("exec_count")
    assert (batch[: len(alone)] == alone).all()
    ids = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids[:, :12]
    with skipviz.record(model) as recording:
        made: Any = model.model.generate(ids, max_new_tokens=6, do_sample=False)
    with torch.no_grad(), skipviz.record(model) as whole:
        model.model(made[:, :-1])
    cached, full = recording.trace.matrix("exec_count"), whole.trace.matrix("exec_count")
    assert cached.shape == full.shape
    assert (cached == full).all()


@pytest.mark.parametrize(
    ("rates", "said"), [([1.0], "1 rates were given for 8 sites"), ([1.5] * SITES, "rate 1.5")]
)
def test_rates_that_do_not_fit_are_refused(rates: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fixed(rates)


def test_learned_gates_have_no_rates_to_set() -> None:
    with pytest.raises(ValueError, match="no fixed rates"):
        set_rates(tiny.gated(seed=0), HALF)


def test_embeddings_without_tokens_are_refused() -> None:
    model = fixed(HALF).model
    with pytest.raises(ValueError, match="call the model with input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 32))
