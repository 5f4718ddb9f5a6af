from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skipviz.analysis.flops import (
    COMPONENTS,
    compute_share,
    cost_summary,
    execution_rates,
    realised_budget,
    token_flops,
)
from skipviz.traces import Trace
from tests.synthetic import FLOPS, make_trace


def by_hand(trace: Trace) -> list[dict[str, int]]:
    """What each token cost, by a loop over tokens and layers."""
    layers = trace.run["layers"][0]
    sites = trace.sites.to_dicts()
    rows = []
    for token in range(len(trace)):
        attention = FLOPS.attn_fixed + FLOPS.attn_per_key * trace.tokens["context"][token]
        row = dict.fromkeys(("attention", "mlp", "adapters", "gates", "keys_values"), 0)
        for layer in range(layers):
            here = [site for site in sites if site["layer"] == layer]
            if not any(site["unit"] in ("attn", "block") for site in here):
                row["attention"] += attention
                row["keys_values"] += FLOPS.kv
            if not any(site["unit"] in ("mlp", "block") for site in here):
                row["mlp"] += FLOPS.mlp
            for site in here:
                times = int(trace.matrix("exec_count")[token, site["site"]])
                row["gates"] += site["gate_flops"]
                if times == 0:
                    row["adapters"] += site["skip_flops"]
                if site["unit"] in ("attn", "block"):
                    row["attention"] += times * attention
                    row["keys_values"] += FLOPS.kv * (
                        times or (1 if site["kv"] == "computed" else 0)
                    )
                if site["unit"] in ("mlp", "block"):
                    row["mlp"] += times * FLOPS.mlp
        row["head"] = FLOPS.head
        row["total"] = sum(row.values())
        row["dense_attention"] = layers * attention
        row["dense_mlp"] = layers * FLOPS.mlp
        row["dense_keys_values"] = layers * FLOPS.kv
        row["dense_total"] = layers * (attention + FLOPS.mlp + FLOPS.kv) + FLOPS.head
        rows.append({"token": token, **row})
    return rows


UNITS = st.sampled_from([("attn", "mlp"), ("block",), ("attn",), ("mlp",)])
LAYERS = st.sets(st.integers(0, 5), max_size=6).map(lambda layers: tuple(sorted(layers)))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    tokens=st.integers(1, 12),
    gated=LAYERS,
    units=UNITS,
    visits=st.integers(1, 2),
    sequences=st.integers(1, 2),
    gate=st.integers(0, 500),
    skip=st.integers(0, 500),
    kv=st.sampled_from(["computed", "absent"]),
)
def test_token_flops_equal_a_loop_over_tokens_and_layers(
    seed: int,
    tokens: int,
    gated: tuple[int, ...],
    units: tuple[str, ...],
    visits: int,
    sequences: int,
    gate: int,
    skip: int,
    kv: str,
) -> None:
    counts = np.random.default_rng(seed).integers(
        0, 4, (tokens, len(gated) * len(units) * visits), dtype=np.uint8
    )
    trace = make_trace(
        seed=seed, tokens=tokens, gated=gated, units=units, visits=visits, sequences=sequences,
        exec_count=counts, gate=gate, skip=skip, kv=kv,
    )  # fmt: skip
    expected = by_hand(trace)
    frame = token_flops(trace)
    assert frame.to_dicts() == expected
    assert set(frame.drop("token").dtypes) == {pl.Int64()}
    spent = sum(r["attention"] + r["mlp"] + r["adapters"] + r["gates"] for r in expected)
    dense = sum(r["dense_attention"] + r["dense_mlp"] for r in expected)
    assert realised_budget(trace) == spent / dense


def test_units_gated_differently_in_different_layers() -> None:
    trace = make_trace(seed=5)
    keep = [0, 3, 5]  # attention of layer 1, MLP of layers 2 and 3
    sites = trace.sites[keep].with_columns(site=pl.int_range(len(keep), dtype=pl.Int64))
    matrices = {name: matrix[:, keep].copy() for name, matrix in trace.matrices.items()}
    part = Trace(run=trace.run, sites=sites, tokens=trace.tokens, matrices=matrices)
    assert token_flops(part).to_dicts() == by_hand(part)


@pytest.mark.parametrize("units", [("attn", "mlp"), ("block",)])
@pytest.mark.parametrize("gated", [(), (1, 2, 3, 4), tuple(range(6))])
def test_budget_is_exactly_one_when_all_runs_and_gates_are_free(
    gated: tuple[int, ...], units: tuple[str, ...]
) -> None:
    trace = make_trace(gated=gated, units=units, exec_count=1, gate=0)
    assert realised_budget(trace) == 1.0
    assert cost_summary(trace).flop_share == 1.0


@pytest.mark.parametrize("units", [("attn", "mlp"), ("block",)])
def test_budget_when_everything_gated_is_skipped(units: tuple[str, ...]) -> None:
    everything = make_trace(gated=tuple(range(6)), units=units, exec_count=0, gate=0, skip=0)
    assert realised_budget(everything) == 0.0
    inner = make_trace(units=units, exec_count=0, gate=0, skip=0)
    assert realised_budget(inner) == pytest.approx(2 / 6)


def test_budget_pays_for_gates_and_adapters() -> None:
    trace = make_trace(exec_count=0, gate=7, skip=11, tokens=1)
    dense = 6 * (FLOPS.attn_fixed + FLOPS.attn_per_key + FLOPS.mlp)
    assert realised_budget(trace) == pytest.approx(2 / 6 + 8 * (7 + 11) / dense)


def test_keys_and_values_cost_nothing_where_they_are_absent() -> None:
    trace = make_trace(exec_count=0, kv="absent")
    frame = token_flops(trace)
    assert frame["keys_values"].to_list() == [2 * FLOPS.kv] * len(trace)
    assert frame["dense_keys_values"].to_list() == [6 * FLOPS.kv] * len(trace)


def test_compute_share_adds_up() -> None:
    trace = make_trace(seed=3)
    share = compute_share(trace)
    tokens = token_flops(trace)
    assert tuple(share["component"]) == COMPONENTS
    assert share["flops"].sum() == tokens["total"].sum()
    assert share["dense_flops"].sum() == tokens["dense_total"].sum()
    assert share["dense_share"].sum() == pytest.approx(1.0)
    assert share["share"].sum() == pytest.approx(cost_summary(trace).flop_share)
    spent = share.filter(pl.col("component").is_in(["attention", "mlp", "adapters", "gates"]))
    dense = share.filter(pl.col("component").is_in(["attention", "mlp"]))
    assert realised_budget(trace) == spent["flops"].sum() / dense["dense_flops"].sum()


def test_execution_rates_count_tokens_not_repeats() -> None:
    counts = np.array([[0, 1], [2, 1], [0, 1], [3, 0]], dtype=np.uint8)
    rates = execution_rates(make_trace(tokens=4, gated=(2,), exec_count=counts))
    assert rates.select("label", "layer", "unit", "rate", "tokens", "executed").rows() == [
        ("L2.attn", 2, "attn", 0.5, 4, 2),
        ("L2.mlp", 2, "mlp", 0.75, 4, 3),
    ]
    assert execution_rates(make_trace(gated=())).height == 0


def test_summary_gives_loss_layers_and_cost() -> None:
    trace = make_trace(seed=1, sequences=2, tokens=31)
    figures = cost_summary(trace)
    losses = [loss for loss in trace.tokens["nll"].to_list() if loss is not None]
    used = sorted(trace.tokens["layers_used"].to_list())
    assert figures.tokens == 31
    assert figures.scored == len(losses) == 29, "the last token of each text has no loss"
    assert figures.loss == pytest.approx(sum(losses) / len(losses))
    assert figures.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)))
    assert figures.layers == 6
    assert figures.layers_mean == pytest.approx(sum(used) / 31)
    assert figures.layers_median == used[15]
    assert (figures.layers_min, figures.layers_max) == (used[0], used[-1])
    assert figures.budget == realised_budget(trace)
    tokens = token_flops(trace)
    assert figures.flop_share == tokens["total"].sum() / tokens["dense_total"].sum()


def test_summary_without_losses() -> None:
    figures = cost_summary(make_trace(statistics=False))
    assert figures.loss is None
    assert figures.perplexity is None
    assert figures.scored == 0


@pytest.mark.parametrize(
    "function", [realised_budget, compute_share, execution_rates, cost_summary]
)
def test_no_tokens_is_a_sentence(function: object) -> None:
    with pytest.raises(ValueError, match="0 tokens; trace a text"):
        function(make_trace(tokens=0))  # type: ignore[operator]


def test_no_tokens_have_no_rows() -> None:
    assert token_flops(make_trace(tokens=0)).height == 0
