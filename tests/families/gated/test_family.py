from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from skipviz.families import Gated, Plan
from skipviz.families.gated.modules import gated_units
from tests import tiny

IDS = torch.randint(3, 260, (2, 7), generator=torch.Generator().manual_seed(0))
SITES = 8


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def on_gate(self, site: int, **event: Any) -> None:
        self.events.append((site, event["score"], event["ran"], event["forced"]))


def hooks(model: Any) -> int:
    return sum(len(unit.decide._forward_hooks) for _, _, unit in gated_units(model))


def test_sites_come_in_running_order() -> None:
    model, sink = tiny.gated(seed=0), Sink()
    sites = Gated().sites(model)
    assert [(site.layer, site.unit) for site in sites] == [
        (layer, unit) for layer in (1, 2, 3, 4) for unit in ("attn", "mlp")
    ]
    with Gated().observe(model, sink):
        model(IDS)
    assert [event[0] for event in sink.events] == list(range(SITES))


def test_what_is_observed_is_what_the_gates_say() -> None:
    model, sink = tiny.gated(seed=0), Sink()
    with Gated().observe(model, sink):
        model(IDS)
    for _, score, executed, forced in sink.events:
        assert score.shape == executed.shape == IDS.shape
        assert torch.equal(executed, score > 0)
        assert forced is None
        assert not score.requires_grad
    assert hooks(model) == 0


def test_a_plan_decides_only_where_it_says() -> None:
    model, sink = tiny.gated(seed=0), Sink()
    random = np.random.default_rng(0)
    plan = Plan(random.random((7, SITES)) < 0.5, random.random((7, SITES)) < 0.5)
    with Gated().force(model, plan), Gated().observe(model, sink):
        model(IDS)
    for site, score, executed, forced in sink.events:
        assert forced is not None
        wanted = torch.from_numpy(plan.execute[:, site]).expand(2, -1)
        assert torch.equal(executed[forced], wanted[forced])
        assert torch.equal(executed[~forced], (score > 0)[~forced])
        assert torch.equal(forced[0], torch.from_numpy(plan.forced[:, site]))  # type: ignore[index]
    assert hooks(model) == 0


def test_a_plan_for_a_batch_has_a_row_for_each_sequence() -> None:
    model, sink = tiny.gated(seed=0), Sink()
    execute = np.random.default_rng(1).random((2, 7, SITES)) < 0.5
    with Gated().observe(model, sink), Gated().force(model, Plan(execute)):
        model(IDS)
    for site, _, executed, _ in sink.events:
        assert np.array_equal(executed.numpy(), execute[:, :, site])


def test_a_plan_too_short_is_a_sentence_and_leaves_no_hook() -> None:
    model = tiny.gated(seed=0)
    with (
        pytest.raises(ValueError, match="decides 3 tokens and the model has been given 7"),
        Gated().force(model, Plan(np.ones((3, SITES), dtype=bool))),
    ):
        model(IDS)
    assert hooks(model) == 0


def test_a_plan_of_other_sites_is_a_sentence() -> None:
    model = tiny.gated(seed=0)
    with (
        pytest.raises(ValueError, match="The plan decides 5 sites; the model has 8"),
        Gated().force(model, Plan(np.ones((7, 5), dtype=bool))),
    ):
        pass


@pytest.mark.parametrize(
    ("execute", "forced"),
    [
        (np.ones(3, dtype=bool), None),
        (np.ones((3, 2), dtype=bool), np.ones((2, 3), dtype=bool)),
    ],
)
def test_what_is_no_plan_is_refused(execute: Any, forced: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        Plan(execute, forced)
