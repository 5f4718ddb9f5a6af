from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from skipviz.analysis.layers.task_depth import (
    PUBLISHED,
    TASKS,
    layers_by_task,
    pairs_in_published_order,
)


def prompts(means: dict[str, float], *, each: int = 8, seed: int = 0) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    rows = [(task, generator.normal(mean, 0.5), 2.0) for task, mean in means.items()
            for _ in range(each)]  # fmt: skip
    return pl.DataFrame(rows, schema=["task", "layers", "nll"], orient="row")


def test_means_stand_in_their_intervals_beside_what_was_published() -> None:
    table = prompts({"add": 21.0, "copy": 20.0})
    found = layers_by_task(table, layers=30)
    assert found["task"].to_list() == ["copy", "add"]
    for row in found.rows(named=True):
        used = table.filter(task=row["task"])["layers"]
        assert row["layers"] == pytest.approx(used.mean())
        assert row["share"] == pytest.approx(row["layers"] / 30)
        error = float(used.std()) / np.sqrt(8)  # type: ignore[arg-type]
        assert row["high"] - row["low"] == pytest.approx(2 * stats.t.ppf(0.975, 7) * error)
        assert row["low"] < row["layers"] < row["high"]
        assert row["published_share"] == PUBLISHED[row["task"]] / 32


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = []
    for seed in range(400):
        row = layers_by_task(prompts({"add": 20.0}, seed=seed), layers=30)
        held.append(row["low"].item() <= 20.0 <= row["high"].item())
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_order_of_tasks_is_held_against_the_published_one() -> None:
    same = layers_by_task(prompts({t: float(PUBLISHED[t]) for t in TASKS}), layers=30)
    assert pairs_in_published_order(same) == (14, 14)  # copying and adding were published as equal
    other = layers_by_task(prompts({t: -float(PUBLISHED[t]) for t in TASKS}), layers=30)
    assert pairs_in_published_order(other) == (0, 14)


def test_a_single_prompt_has_no_interval() -> None:
    row = layers_by_task(prompts({"add": 20.0}, each=1), layers=30).row(0, named=True)
    assert (row["low"], row["high"]) == (None, None)
