"""Proposals of how to describe gates, on planted routers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import skipviz
from tests import published, tiny
from tests.families.described.test_described import own_model


def test_a_router_is_found_by_what_it_emits() -> None:
    found = skipviz.inspect(own_model(), tiny.tokenizer())
    modules = {each.spec.module for each in found}
    assert modules == {"model.layers.{layer}.switch", "model.layers.{layer}.switch.linear"}
    assert all(each.layers == tiny.LAYERS for each in found)


@pytest.mark.parametrize("make", [published.routed, published.router_tuning])
def test_the_proposal_reads_what_ran(make: Callable[[], Any]) -> None:
    model = make()
    proposal = skipviz.inspect(model, tiny.tokenizer())[0]
    assert proposal.agreement == 1.0
    assert proposal.named
    handle = skipviz.from_parts(model, tiny.tokenizer(), family=proposal.spec)
    trace = skipviz.trace(handle, tiny.TEXT)
    noted = published.truth_of(model)
    wanted = np.stack([ran[0].numpy() for _, ran in sorted(noted.items())], axis=1)
    assert np.array_equal(trace.matrix("exec_count") > 0, wanted)


def test_two_routers_are_told_apart_by_name() -> None:
    found = {
        each.spec.module.rpartition(".")[2]: each.spec
        for each in skipviz.inspect(published.skipgpt(), tiny.tokenizer())
    }
    assert found["router_attention"].rule == found["router_mlp"].rule == "argmax"


def test_a_dense_model_has_no_proposals() -> None:
    assert skipviz.inspect(tiny.backbone(seed=0), tiny.tokenizer()) == []


def test_a_model_that_does_not_run_is_a_sentence() -> None:
    model = published.routed()
    model.model.layers[2].router = None
    with pytest.raises(skipviz.ModelError, match="does not run a text"):
        skipviz.inspect(model, tiny.tokenizer())
