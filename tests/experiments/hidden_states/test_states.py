"""Recorded states against those that transformers returns."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import skipviz
from skipviz.experiments.hidden_states.states import record_states
from skipviz.families.gated.modules import gated_units
from tests import tiny
from tests.families.exits.test_family import with_exits
from tests.synthetic import make_trace

TEXTS = [tiny.TEXT, "A second text.", tiny.TEXT[::-1]]


def returned(model: skipviz.SkipModel, ids: list[int]) -> np.ndarray:
    """States by ``output_hidden_states``, the last of which has been through the norm."""
    with torch.no_grad():
        given = model.model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return torch.stack(given.hidden_states)[:, 0].numpy()


def check(model: skipviz.SkipModel, states: np.ndarray, ids: list[int], rows: slice) -> None:
    wanted = returned(model, ids)[:, rows]
    np.testing.assert_allclose(states[:-1], wanted[:-1], atol=1e-4)
    with torch.no_grad():
        last = model.model.model.norm(torch.from_numpy(states[-1])).numpy()
    np.testing.assert_allclose(last, wanted[-1], atol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "gated"])
def test_states_are_those_of_each_text(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    trace = skipviz.trace(model, TEXTS)
    states = record_states(model, trace, seed=0)
    assert states.token.tolist() == list(range(len(trace)))
    assert states.values.shape == (tiny.LAYERS + 1, len(trace), 32)
    for sequence in range(len(TEXTS)):
        own = trace.tokens.filter(sequence=sequence)
        inside = own["token"].to_numpy()
        check(model, states.values[:, inside], own["token_id"].to_list(), slice(None))


def test_states_of_a_long_text_are_those_of_the_window_that_reports_them(
    gated: skipviz.SkipModel,
) -> None:
    trace = skipviz.trace(gated, tiny.TEXT, window=16, overlap=6)
    states = record_states(gated, trace, seed=0)
    ids = trace.tokens["token_id"].to_list()
    assert len(ids) > 30
    check(gated, states.values[:, :16], ids[:16], slice(None))
    check(gated, states.values[:, 16:26], ids[10:26], slice(6, None))


@pytest.mark.slow
def test_of_many_tokens_some_are_drawn(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXTS)
    whole, some = (record_states(gated, trace, most=most, seed=3) for most in (1000, 7))
    assert len(some.token) == 7
    assert (np.diff(some.token) > 0).all()
    assert (some.values == whole.values[:, some.token]).all()
    assert (record_states(gated, trace, most=7, seed=3).token == some.token).all()
    assert (record_states(gated, trace, most=7, seed=4).token != some.token).any()


def test_a_token_that_left_keeps_its_state() -> None:
    model = skipviz.from_parts(with_exits(), tiny.tokenizer(), name="tiny-exits")
    trace = skipviz.trace(model, tiny.TEXT)
    ran = trace.matrix("exec_count") > 0
    states = record_states(model, trace, seed=0)
    assert 0 < ran[:, -1].mean() < 1
    for site, layer in enumerate(trace.sites["layer"]):
        moved = (states.values[layer] != states.values[layer + 1]).any(axis=1)
        assert (moved == ran[:, site]).all()


def test_a_model_that_decides_otherwise_is_refused(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXTS)
    with torch.no_grad():
        for _, _, unit in gated_units(gated.model):
            unit.gate.up.bias.sub_(100)
    with pytest.raises(ValueError, match=r"decisions came out otherwise.*tiny-gated"):
        record_states(gated, trace, seed=0)


def test_progress_stop_and_no_tokens(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXTS)
    heard: list[float] = []
    record_states(gated, trace, seed=0, progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    stop = threading.Event()
    stop.set()
    with pytest.raises(skipviz.Stopped):
        record_states(gated, trace, seed=0, stop=stop)
    with pytest.raises(ValueError, match="0 tokens"):
        record_states(gated, make_trace(tokens=0), seed=0)
