"""How far the loop moves a parameter in a step: warm-up, cosine and clipped gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skipviz.training.loop import train
from skipviz.training.recipe import Recipe

PEAK = 0.1


class Slope:
    """One parameter, under a loss whose gradient at each step is chosen."""

    def __init__(self, slope: Callable[[int], float]) -> None:
        self.slope = slope
        self.places: list[float] = []
        self.parameters = {"gate": nn.Parameter(torch.zeros(1, dtype=torch.float64))}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.places.append(self.parameters["gate"].item())
        return self.slope(step) * self.parameters["gate"].sum(), {}

    def finish(self) -> None:
        self.places.append(self.parameters["gate"].item())

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        raise AssertionError("no checkpoint was there to go on from")

    def moves(self) -> list[float]:
        return [now - then for now, then in zip(self.places[1:], self.places[:-1], strict=True)]


def trained(folder: Path, *, steps: int, slope: Callable[[int], float]) -> tuple[Slope, list[Any]]:
    objective, reported = Slope(slope), []
    recipe = Recipe(steps=steps, gate_lr=PEAK)
    train(objective, recipe=recipe, folder=folder, report=reported.append)
    return objective, reported


def test_learning_rates_warm_up_over_twenty_steps_and_then_fall(tmp_path: Path) -> None:
    # Under a constant gradient AdamW moves by the learning rate.
    objective, _ = trained(tmp_path, steps=400, slope=lambda step: -0.5)
    moves = objective.moves()
    assert moves[0] == pytest.approx(PEAK / 20, rel=1e-4)
    assert moves[9] == pytest.approx(PEAK / 2, rel=0.01)
    assert moves.index(max(moves)) == 19
    assert max(moves) == pytest.approx(PEAK, rel=0.01)
    assert moves[199] == pytest.approx(PEAK / 2, rel=0.02)
    assert moves[-1] == pytest.approx(PEAK / 100, rel=0.01)


def test_a_gradient_longer_than_one_is_cut_to_one(tmp_path: Path) -> None:
    wild, told = trained(tmp_path / "wild", steps=8, slope=lambda step: [1e3, 1.0][step % 2])
    even, _ = trained(tmp_path / "even", steps=8, slope=lambda step: 1.0)
    assert wild.moves() == pytest.approx(even.moves(), rel=1e-5)
    assert [figures["grad_norm"] for figures in told] == pytest.approx([1e3, 1.0] * 4)


def test_a_shorter_gradient_is_left_as_it_is(tmp_path: Path) -> None:
    mixed, _ = trained(tmp_path / "mixed", steps=8, slope=lambda step: [0.2, 0.8][step % 2])
    even, _ = trained(tmp_path / "even", steps=8, slope=lambda step: 0.8)
    assert mixed.moves()[1] != pytest.approx(even.moves()[1], rel=0.01)
