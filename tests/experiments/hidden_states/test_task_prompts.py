from __future__ import annotations

import math
import threading

import polars as pl
import pytest

import skipviz
from skipviz.analysis.layers.task_depth import TASKS
from skipviz.experiments.hidden_states.task_prompts import EACH, PASSAGES, task_depths, task_prompts


def test_every_task_has_its_prompts_and_right_answers() -> None:
    prompts = task_prompts(seed=0)
    assert [prompt.task for prompt in prompts] == [task for task in TASKS for _ in range(EACH)]
    for prompt in prompts:
        if prompt.task in ("copy", "repeat"):
            assert prompt.answer.strip() in prompt.prompt
        if prompt.task in ("add", "multiply"):
            numbers = [int(n) for n in prompt.prompt.split("\n")[0][9:].split(", ")]
            total = sum(numbers) if prompt.task == "add" else math.prod(numbers)
            for step in prompt.answer.split(", "):
                left, right = step.split(" = ")
                assert eval(left.replace("x", "*")) == int(right)
            assert prompt.answer.endswith(f"= {total}")
    assert [p.answer.strip() for p in prompts if p.task == "continue"] == [p[1] for p in PASSAGES]


def test_the_seed_makes_the_numbers() -> None:
    assert task_prompts(seed=0) == task_prompts(seed=0)
    assert task_prompts(seed=0) != task_prompts(seed=1)


@pytest.mark.slow
def test_layers_are_those_of_the_tokens_that_predict_the_answer(gated: skipviz.SkipModel) -> None:
    depths = task_depths(gated, seed=0)
    found = depths.prompts
    assert depths.trace.tokens["sequence"].n_unique() == found.height
    assert found.height == EACH * len(TASKS)
    for place in (0, 20, 47):
        row = found.row(place, named=True)
        alone = skipviz.trace(gated, row["prompt"] + row["answer"]).tokens
        answer = alone.filter(pl.col("char_start") >= len(row["prompt"]))["token"].to_list()
        said = "".join(alone["text"].gather(answer))
        assert said == row["answer"]
        before = [token - 1 for token in answer]
        assert row["tokens"] == len(answer)
        used, nll = alone["layers_used"].gather(before), alone["nll"].gather(before)
        assert row["layers"] == pytest.approx(used.mean(), abs=1e-4)
        assert row["nll"] == pytest.approx(nll.mean(), abs=1e-3)


def test_it_can_be_stopped(gated: skipviz.SkipModel) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(skipviz.Stopped):
        task_depths(gated, seed=0, stop=stop)
