from __future__ import annotations

import torch

from skipviz.training.batch_order import batches
from skipviz.training.recipe import Recipe


def test_windows_of_ones_own_come_as_they_were_made() -> None:
    found = batches(Recipe(steps=3, batch=2), 7, shuffled=False)
    assert found.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_every_window_is_seen_before_any_is_seen_again() -> None:
    found = batches(Recipe(steps=7, batch=3), 10, shuffled=True).flatten()
    assert sorted(found[:10].tolist()) == sorted(found[10:20].tolist()) == list(range(10))
    assert found[:10].tolist() != found[10:20].tolist()


def test_the_order_is_that_of_the_seed() -> None:
    first, again, other = (
        batches(Recipe(steps=9, batch=2, seed=seed), 30, shuffled=True) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
