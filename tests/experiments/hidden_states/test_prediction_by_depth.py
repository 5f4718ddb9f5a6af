"""Convergence layers, exits and influence against loops over layers and tokens."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.experiments.hidden_states.prediction_by_depth import (
    convergence_layers,
    exit_heads,
    layer_influence,
)
from skipviz.experiments.hidden_states.states import States, record_states
from tests import tiny
from tests.families.exits.test_family import CONFIG, with_exits

TEXTS = [tiny.TEXT, "A second text."]


@pytest.fixture
def traced(gated: skipviz.SkipModel) -> tuple[skipviz.Trace, States]:
    trace = skipviz.trace(gated, TEXTS)
    return trace, record_states(gated, trace, seed=0)


def lens(model: skipviz.SkipModel, trace: skipviz.Trace) -> np.ndarray:
    """The likeliest next token behind each layer, the embeddings first, [layers + 1, tokens]."""
    parts = []
    for (_,), tokens in trace.tokens.group_by("sequence", maintain_order=True):
        ids = torch.tensor([tokens["token_id"].to_list()])
        with torch.no_grad():
            states = model.model(ids, output_hidden_states=True).hidden_states
            normed = [model.model.model.norm(state) for state in states[:-1]] + [states[-1]]
            parts.append([model.model.lm_head(state)[0].argmax(-1).tolist() for state in normed])
    return np.concatenate(parts, axis=1)


def test_settled_is_the_lowest_layer_from_which_the_lens_says_the_same(
    gated: skipviz.SkipModel, traced: tuple[skipviz.Trace, States]
) -> None:
    trace, states = traced
    found = convergence_layers(gated, trace, states)
    said = lens(gated, trace)
    for row in found.rows(named=True):
        token = row["token"]
        layer = tiny.LAYERS
        while layer > 0 and said[layer - 1, token] == said[-1, token]:
            layer -= 1
        assert row["settled"] == layer - 1
        ran = trace.matrix("exec_count")[token]
        after = sum(
            0.5 * ran[trace.sites.filter(layer=above, unit=unit)["site"].item()]
            if above in range(tiny.GATES.first_layer, tiny.GATES.last_layer + 1)
            else 0.5
            for above in range(layer, tiny.LAYERS)
            for unit in ("attn", "mlp")
        )
        assert row["layers_after"] == pytest.approx(after)
    assert found["settled"].n_unique() > 2
    assert (found["exit_depth"] == trace.tokens["exit_depth"]).all()


def test_layers_above_the_embeddings_are_all_that_were_used(
    gated: skipviz.SkipModel, traced: tuple[skipviz.Trace, States]
) -> None:
    trace, states = traced
    same = replace(states, values=np.repeat(states.values[-1:], tiny.LAYERS + 1, axis=0))
    found = convergence_layers(gated, trace, same)
    assert (found["settled"] == -1).all()
    assert found["layers_after"].to_numpy() == pytest.approx(trace.tokens["layers_used"].to_numpy())


def test_influence_is_one_minus_the_cosine(traced: tuple[skipviz.Trace, States]) -> None:
    trace, states = traced
    found = layer_influence(trace, states)
    ran = trace.matrix("exec_count") > 0
    for layer, row in enumerate(found.rows(named=True)):
        before, after = torch.from_numpy(states.values[layer : layer + 2])
        turned = 1 - torch.cosine_similarity(before, after, dim=1).numpy()
        assert row["influence"] == pytest.approx(turned.mean(), abs=1e-5)
        gate = trace.sites.filter(layer=layer, unit="mlp")["site"]
        if not len(gate):
            assert row["executed"] is None
            assert row["skipped_tokens"] is None
            continue
        inside = ran[:, gate.item()]
        assert row["executed_tokens"] == inside.sum() == len(trace) - row["skipped_tokens"]
        assert row["executed"] == pytest.approx(turned[inside].mean(), abs=1e-5)
        assert row["skipped"] == pytest.approx(turned[~inside].mean(), abs=1e-5)


def test_an_exit_is_read_through_its_translator() -> None:
    model = skipviz.from_parts(with_exits(), tiny.tokenizer(), name="tiny-exits")
    trace = skipviz.trace(model, TEXTS)
    states = record_states(model, trace, seed=0)
    found = exit_heads(model, trace, states)
    stayed = (trace.matrix("exec_count") > 0).all(axis=1)
    assert found["layer"].to_list() == list(CONFIG.exits)
    assert 2 < stayed.sum() < len(trace)
    said = trace.tokens["top_ids"].to_numpy()[:, 0][stayed]
    dense = tiny.backbone(seed=0)
    for number, row in enumerate(found.rows(named=True)):
        assert row["tokens"] == stayed.sum()
        state = torch.from_numpy(states.values[row["layer"] + 1][stayed])
        with torch.no_grad():
            head, read = (
                dense.lm_head(dense.model.norm(each)).argmax(-1).numpy()
                for each in (model.model.exits.translators[number](state), state)
            )
        assert row["head"] == pytest.approx((head == said).mean())
        assert row["lens"] == pytest.approx((read == said).mean())
    assert (found["head"] != found["lens"]).any()


@pytest.mark.parametrize("statistics", [True, False])
def test_a_token_that_left_ends_as_the_model_predicts(statistics: bool) -> None:
    model = skipviz.from_parts(with_exits(), tiny.tokenizer(), name="tiny-exits")
    trace = skipviz.trace(model, TEXTS, statistics=statistics)
    states = record_states(model, trace, seed=0)
    found = convergence_layers(model, trace, states)
    predicted = skipviz.trace(model, TEXTS).tokens["top_ids"].to_numpy()[:, 0]
    dense = tiny.backbone(seed=0)
    with torch.no_grad():
        said = dense.lm_head(dense.model.norm(torch.from_numpy(states.values))).argmax(-1).numpy()
    wanted: list[int | None] = []
    for token, last in enumerate(predicted):
        layer = tiny.LAYERS + 1
        while layer > 0 and said[layer - 1, token] == last:
            layer -= 1
        wanted.append(layer - 1 if layer <= tiny.LAYERS else None)
    assert found["settled"].to_list() == wanted
    assert (found["settled"].is_null() == found["layers_after"].is_null()).all()
    left = ~(trace.matrix("exec_count") > 0).all(axis=1)
    known = found["settled"].is_not_null().to_numpy()
    assert known[~left].all()
    assert 0 < known[left].sum() < left.sum()
    assert (said[-1] != predicted)[left].any()


def test_what_has_no_exits_is_refused(
    gated: skipviz.SkipModel, traced: tuple[skipviz.Trace, States]
) -> None:
    with pytest.raises(ValueError, match="no exits to read"):
        exit_heads(gated, *traced)


def test_a_model_without_gates_settles_too(dense: skipviz.SkipModel) -> None:
    trace = skipviz.trace(dense, TEXTS)
    states = record_states(dense, trace, seed=0)
    found = convergence_layers(dense, trace, states)
    assert found["exit_depth"].null_count() == len(trace)
    assert (found["layers_after"] == tiny.LAYERS - 1 - found["settled"]).all()
    assert layer_influence(trace, states).select(pl.col("executed", "skipped").is_null().all()).row(
        0
    ) == (
        True,
        True,
    )


def test_it_can_be_stopped(gated: skipviz.SkipModel, traced: tuple[skipviz.Trace, States]) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(skipviz.Stopped):
        convergence_layers(gated, *traced, stop=stop)
