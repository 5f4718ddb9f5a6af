from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from skipviz.errors import InputError
from skipviz.families.base import Plan
from skipviz.families.plan_run import PlanRun

GATE = nn.Identity()
CPU = torch.device("cpu")


def test_a_plan_is_used_up_prefill_first_then_token_by_token() -> None:
    execute = np.array([[True, False], [False, True], [True, True], [False, False]])
    forced = np.array([[True, True], [True, False], [False, True], [True, True]])
    run = PlanRun.of(Plan(execute, forced), device=CPU)
    prefill = torch.tensor([[False, True], [True, True]])
    assert run.apply(GATE, 0, prefill, last=False).tolist() == [[True, False], [True, False]]
    assert run.last_forced is not None
    assert run.last_forced[0] is GATE
    assert run.last_forced[1].tolist() == [[True, True], [True, True]]
    assert run.apply(GATE, 1, prefill, last=True).tolist() == [[False, True], [False, True]]
    assert run.used == 2
    one = torch.tensor([[False], [True]])
    assert run.apply(GATE, 0, one, last=False).tolist() == [[False], [True]]
    assert run.apply(GATE, 1, one, last=True).tolist() == [[True], [True]]
    assert run.apply(GATE, 0, one, last=False).tolist() == [[False], [False]]
    assert run.apply(GATE, 1, one, last=True).tolist() == [[False], [False]]
    with pytest.raises(InputError, match="decides 4 tokens and the model has been given 5"):
        run.apply(GATE, 0, one, last=False)


def test_each_text_of_a_batch_has_its_own_plan_and_what_is_not_said_is_forced() -> None:
    execute = np.array([[[True], [False]], [[False], [True]]])
    run = PlanRun.of(Plan(execute), device=CPU)
    natural = torch.zeros(2, 2, dtype=torch.bool)
    assert run.apply(GATE, 0, natural, last=True).tolist() == [[True, False], [False, True]]
    execute[:] = False  # the plan that runs is the one that was given
    assert run.execute.any()


def planned(execute: Any, forced: Any) -> Plan:
    """A plan of what a caller hands over, where nothing enforces annotations."""
    plan = object.__new__(Plan)
    vars(plan).update(execute=execute, forced=forced)
    plan.__post_init__()
    return plan


@pytest.mark.parametrize(
    ("execute", "forced", "message"),
    [
        (np.ones(3, dtype=bool), None, r"shape \(3,\)"),
        (np.ones((2, 2, 2, 2), dtype=bool), None, "a boolean array"),
        (np.ones((2, 2), dtype=bool), np.ones((2, 1), dtype=bool), r"forced has shape \(2, 1\)"),
        (np.ones((2, 2), dtype=bool), np.ones((2, 2)), "forced of a plan is a boolean array"),
        ([[True], [True, False]], None, "type object"),
        ([[1, 0]], None, "type int64"),
        (None, None, "type object"),
        ("yes", None, "type <U3"),
    ],
)
def test_what_is_no_plan_is_refused(execute: Any, forced: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(execute, forced)


@pytest.mark.parametrize("given", [[[True, False]], torch.tensor([[True, False]])])
def test_a_plan_may_be_lists_or_a_tensor(given: Any) -> None:
    plan = planned(given, given)
    assert plan.forced is not None
    np.testing.assert_array_equal(plan.execute, np.array([[True, False]]))
    assert PlanRun.of(plan, device=CPU).forced.tolist() == [[[True, False]]]


def test_a_plan_for_another_number_of_texts_is_refused() -> None:
    run = PlanRun.of(Plan(np.ones((2, 1, 1), dtype=bool)), device=CPU)
    with pytest.raises(InputError, match="decides for 2 texts and the model has been given 3"):
        run.apply(GATE, 0, torch.zeros(3, 1, dtype=torch.bool), last=True)


def test_a_plan_says_what_it_is() -> None:
    execute = np.array([[True, False]])
    assert repr(Plan(execute)) == "Plan((1, 2), 50% run, forced everywhere)"
    assert repr(Plan(execute, execute)) == "Plan((1, 2), 50% run, forced 1 decisions)"
