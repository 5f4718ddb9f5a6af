"""FLOPs by part, compared with FLOPs per token and with torch's own counter."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import skipviz
from skipviz.analysis.flops import token_flops
from skipviz.analysis.timing.parts import MODEL_PARTS, flops_by_part, flops_saved, part_totals
from tests import tiny
from tests.synthetic import FLOPS, make_trace

OF_TOKENS = {
    "attention": ("attention projections", "attention scores"),
    "mlp": ("MLP",),
    "adapters": ("adapters",),
    "gates": ("gates",),
    "keys_values": ("keys and values",),
    "head": ("head",),
}


@pytest.mark.parametrize("units", [("attn", "mlp"), ("block",), ("mlp",)])
@pytest.mark.parametrize("kv", ["computed", "absent"])
@pytest.mark.parametrize("visits", [1, 2])
def test_parts_add_up_to_what_tokens_cost(units: tuple[str, ...], kv: str, visits: int) -> None:
    trace = make_trace(units=units, kv=kv, visits=visits, tokens=17, sequences=2)
    parts, tokens = flops_by_part(trace), token_flops(trace)
    for name, group in OF_TOKENS.items():
        own = parts.filter(pl.col("part").is_in(group))
        assert own["flops"].sum() == tokens[name].sum(), name
    assert parts["flops"].sum() == tokens["total"].sum()
    assert parts["dense_flops"].sum() == tokens["dense_total"].sum()
    totals = part_totals(parts)
    assert totals["part"].to_list() == list(MODEL_PARTS)
    assert totals["dense_share"].sum() == pytest.approx(1.0)
    assert flops_saved(parts) == pytest.approx(1.0 - totals["share"].sum())


def test_some_tokens_and_some_heads_are_counted() -> None:
    trace = make_trace(tokens=12)
    counted = np.arange(12) < 5
    parts = flops_by_part(trace, counted=counted, heads=1)
    wanted = token_flops(trace).head(5)
    assert parts.filter(part="head")["flops"].to_list() == [FLOPS.head]
    assert parts["flops"].sum() == wanted["total"].sum() - 4 * FLOPS.head
    with pytest.raises(skipviz.InputError, match="count at least one"):
        flops_by_part(trace, counted=np.zeros(12, dtype=np.bool_))


def test_parts_of_a_layer_that_one_token_skips() -> None:
    ran = np.ones((2, 8), dtype=np.uint8)
    ran[1, 2] = 0  # attention of layer 2
    own = flops_by_part(make_trace(tokens=2, exec_count=ran, gate=7, skip=11)).filter(layer=2)
    rows = {(row["part"], row["unit"]): row["flops"] for row in own.to_dicts()}
    assert rows["attention projections", "attn"] == FLOPS.attn_fixed
    assert rows["attention scores", "attn"] == FLOPS.attn_per_key
    assert rows["keys and values", "attn"] == 2 * FLOPS.kv
    assert rows["MLP", "mlp"] == 2 * FLOPS.mlp
    assert (rows["gates", "attn"], rows["adapters", "attn"]) == (14, 11)
    assert rows["adapters", "mlp"] == 0


def counted_by_torch(model: torch.nn.Module, **given: Any) -> tuple[int, dict[str, int]]:
    """FLOPs of a forward and of each module, by torch's counter."""
    with FlopCounterMode(display=False, depth=None) as counter, torch.inference_mode():
        model(**given)
    found = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    return counter.get_total_flops() - angles(found), found


def angles(counted: dict[str, int]) -> int:
    """Return what some versions of transformers multiply to find the angles of places."""
    return next((n for name, n in counted.items() if name.endswith("model.rotary_emb")), 0)


def dense_trace() -> tuple[torch.nn.Module, skipviz.Trace]:
    model = tiny.backbone(seed=0)
    model.set_attn_implementation("eager")  # the counter misses sdpa on a CPU
    handle = skipviz.from_parts(model, tiny.tokenizer(), name="dense")
    return model, skipviz.trace(handle, tiny.TEXT)


def test_a_dense_forward_is_what_torch_counts() -> None:
    model, trace = dense_trace()
    ids = torch.tensor(trace.tokens["token_id"].to_list())[None]
    total, modules = counted_by_torch(model, input_ids=ids)
    parts = part_totals(flops_by_part(trace))
    flops = dict(parts.select("part", "flops").iter_rows())
    # Every query is multiplied by every key; a token needs those up to its own.
    tokens = len(trace)
    scores = FLOPS.attn_per_key * 6 * tokens * tokens
    assert flops["attention scores"] == FLOPS.attn_per_key * 6 * tokens * (tokens + 1) // 2
    assert total == sum(flops.values()) - flops["attention scores"] + scores
    layers = "LlamaForCausalLM.model.layers"
    assert modules["LlamaForCausalLM.lm_head"] == flops["head"]
    assert sum(modules[f"{layers}.{each}.mlp"] for each in range(6)) == flops["MLP"]


def test_a_decoded_token_is_what_torch_counts() -> None:
    model, trace = dense_trace()
    ids = torch.tensor(trace.tokens["token_id"].to_list())[None]
    with torch.inference_mode():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
    total, _ = counted_by_torch(model, input_ids=ids[:, -1:], past_key_values=cache)
    last = np.arange(len(trace)) == len(trace) - 1
    assert total == flops_by_part(trace, counted=last)["flops"].sum()


def test_what_ran_is_what_torch_counts_of_the_gathered_runtime() -> None:
    masked = skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer(), name="gated")
    masked.model.set_attn_implementation("eager")
    fast = skipviz.with_runtime(masked, "gathered")
    trace = skipviz.trace(fast, tiny.TEXT)
    assert trace.matrix("exec_count").mean(axis=0).max() < 0.85, "no unit is run whole"
    ids = torch.tensor(trace.tokens["token_id"].to_list())[None]
    total, modules = counted_by_torch(fast.model, input_ids=ids)
    flops = dict(part_totals(flops_by_part(trace)).select("part", "flops").iter_rows())

    def of(*names: str) -> int:
        return sum(n for name, n in modules.items() if name.rpartition(".")[2] in names)

    assert of("q_proj", "o_proj") == flops["attention projections"]
    assert of("k_proj", "v_proj") == flops["keys and values"]
    assert of("gate_proj", "up_proj", "down_proj") == flops["MLP"]
    assert of("lm_head") == flops["head"]
    # A gate and the first matrix of its adapter are multiplied for every token, the second for
    # those that skip; a budget counts adapters of these alone.
    tokens, sites = trace.matrix("exec_count").shape
    assert total >= sum(flops.values()) - flops["attention scores"] - flops["adapters"]
    assert total < part_totals(flops_by_part(trace))["dense_flops"].sum()
    assert sites * tokens * trace.sites["gate_flops"][0] == flops["gates"]
