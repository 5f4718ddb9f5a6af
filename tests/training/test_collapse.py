from __future__ import annotations

import pytest
import torch

from skipviz.errors import TrainingError
from skipviz.training.collapse import CollapseWatch


def test_a_gate_that_stops_choosing_is_named_with_the_step_it_began() -> None:
    watch = CollapseWatch(["L2.attn", "L2.mlp"], steps=3)
    watch.see(0, torch.tensor([1.0, 0.5]))
    watch.see(1, torch.tensor([0.5, 0.0]))
    watch.see(2, torch.tensor([1.0, 0.0]))
    with pytest.raises(TrainingError, match=r"L2\.mlp runs for no token since step 1, 3 "):
        watch.see(3, torch.tensor([1.0, 0.0]))


def test_a_gate_that_chooses_now_and_then_goes_on() -> None:
    watch = CollapseWatch(["L2.attn"], steps=2)
    for step in range(10):
        watch.see(step, torch.tensor([1.0 if step % 2 else 0.99]))


def test_zero_never_stops() -> None:
    watch = CollapseWatch(["L2.attn"], steps=0)
    for step in range(10):
        watch.see(step, torch.tensor([1.0]))


def test_a_run_taken_up_again_has_so_many_steps_anew() -> None:
    watch = CollapseWatch(["L2.attn"], steps=4)
    watch.since = [1]  # as a checkpoint has it
    for step in (6, 7, 8):
        watch.see(step, torch.tensor([1.0]))
    with pytest.raises(TrainingError, match=r"since step 1, 9 steps ago"):
        watch.see(9, torch.tensor([1.0]))
