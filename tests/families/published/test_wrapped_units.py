"""GateSkip and Ouro, against what the models note themselves, and planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import skipviz
from skipviz.families.published import gateskip, ouro
from tests import tiny, wrapped_units

GATED: dict[str, Callable[[], Any]] = {
    "attention and MLP": wrapped_units.gateskip,
    "MLP alone": lambda: wrapped_units.gateskip(kinds=("mlp",)),
    "nothing": lambda: wrapped_units.gateskip(ratio=0.0),
}
ROUNDS: dict[str, Callable[[], Any]] = {
    "threshold": wrapped_units.ouro,
    "step": lambda: wrapped_units.ouro(step=1),
    "neither": lambda: wrapped_units.ouro(threshold=None),
    "never reached": lambda: wrapped_units.ouro(threshold=1.5),
}


def wrapped(made: Any) -> skipviz.SkipModel:
    return skipviz.from_parts(made, tiny.tokenizer(), name="tiny")


def rounds_noted(made: Any) -> npt.NDArray[np.bool_]:
    stopped = made.truth[0].numpy()[:, None]
    return np.repeat(np.arange(wrapped_units.ROUNDS)[None] <= stopped, 3, axis=1)


@pytest.mark.parametrize("name", GATED)
def test_every_masked_unit_is_seen(name: str) -> None:
    model = wrapped(GATED[name]())
    assert model.family.name == "gateskip"
    ids = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        plain = model.model(ids).logits
        with skipviz.record(model) as recording:
            assert torch.equal(model.model(ids).logits, plain)
    trace = skipviz.trace(model, tiny.TEXT)
    for found in (trace, recording.trace):
        ran = found.matrix("exec_count") > 0
        assert np.array_equal(ran, wrapped_units.gateskip_truth(model.model).numpy())
    assert ran.all() == (name == "nothing")
    margin = trace.margin
    clear = np.isfinite(margin) & (np.abs(margin) > 1e-6)
    assert np.array_equal((margin > 0)[clear], ran[clear])


def test_the_check_up_of_gates_that_rank() -> None:
    found = skipviz.check(wrapped(wrapped_units.gateskip()), ignore=("SKV012",)).findings
    outcomes = {each.code: each.outcome for each in found}
    assert (outcomes["SKV003"], outcomes["SKV010"]) == ("issue", "tip")
    assert {outcomes[code] for code in ("SKV001", "SKV007", "SKV008", "SKV009")} == {"passed"}


@pytest.mark.parametrize("name", ROUNDS)
def test_every_round_counts_up_to_where_a_token_stopped(name: str) -> None:
    model = wrapped(ROUNDS[name]())
    assert model.family.name == "ouro"
    trace = skipviz.trace(model, tiny.TEXT)
    assert np.array_equal(trace.matrix("exec_count") > 0, rounds_noted(model.model))
    used = trace.tokens["layers_used"].to_numpy()
    assert np.array_equal(used, 3 * (1 + model.model.truth[0].numpy()))
    depth = trace.tokens["exit_depth"].to_numpy()
    assert np.array_equal(depth, used - 1)
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    with torch.inference_mode():
        logits = model.model(ids).logits[0]
    own = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    assert np.allclose(trace.tokens["nll"].to_numpy()[:-1], own.numpy(), atol=1e-5)
    if name == "threshold":
        assert len(np.unique(used)) > 1


def test_what_a_call_asks_for_goes_before_the_configuration() -> None:
    model = wrapped(wrapped_units.ouro())
    ids = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    with torch.inference_mode(), skipviz.record(model) as recording:
        model.model(ids, exit_at_step=2)
    assert np.array_equal(recording.trace.matrix("exec_count") > 0, rounds_noted(model.model))


def test_the_check_up_of_rounds() -> None:
    found = skipviz.check(wrapped(wrapped_units.ouro()), ignore=("SKV012",)).findings
    outcomes = {each.code: each.outcome for each in found}
    assert "issue" not in outcomes.values(), found
    assert outcomes["SKV010"] == "tip"
    assert {outcomes[code] for code in ("SKV001", "SKV003", "SKV007", "SKV009")} == {"passed"}


def test_planted_faults_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ouro._added_up
    monkeypatch.setattr(ouro, "_added_up", lambda gates: whole(gates[:1] + gates[:-1]))
    late = wrapped(wrapped_units.ouro())
    trace = skipviz.trace(late, tiny.TEXT)
    assert not np.array_equal(trace.matrix("exec_count") > 0, rounds_noted(late.model))
    monkeypatch.setattr(gateskip, "_unit", lambda each: "mlp" if "attn" in each.module_name else
                        "attn")  # fmt: skip
    swapped = skipviz.check(wrapped(wrapped_units.gateskip())).findings
    assert {each.code: each.outcome for each in swapped}["SKV008"] == "issue"
