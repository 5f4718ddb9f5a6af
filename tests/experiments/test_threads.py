"""Runs of one model at once, in one process, give what each gives alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.experiments.attribution.over_tokens import attribute
from skipviz.experiments.attribution.target import Target
from tests import tiny

OTHER = "Tokens decide for themselves. Some skip."


def together(*work: Callable[[], Any]) -> list[Any]:
    """What each gives, begun at the same time in a thread of its own."""
    found: list[Any] = [None] * len(work)
    barrier = threading.Barrier(len(work))

    def run(place: int) -> None:
        barrier.wait()
        found[place] = work[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def frames(result: Any) -> list[pl.DataFrame]:
    if isinstance(result, pl.DataFrame):
        return [result]
    if isinstance(result, skipviz.Trace):
        return [result.tokens, result.decisions]
    return [result.table]


@pytest.mark.slow
def test_what_runs_at_once_gives_what_it_gives_alone(gated: skipviz.SkipModel) -> None:
    text = tiny.TEXT[:40]
    traced, other = skipviz.trace(gated, text), skipviz.trace(gated, OTHER)
    cells = [(token, site) for token in range(0, 12, 3) for site in range(traced.sites.height)]
    plan = skipviz.Plan(traced.matrix("exec_count") == 0)
    target = Target(token=6)

    def recorded() -> skipviz.Trace:
        with skipviz.record(gated) as recording, torch.inference_mode():
            gated.model(torch.tensor([other.tokens["token_id"].to_list()]))
        return recording.trace

    work: list[Callable[[], Any]] = [
        lambda: skipviz.audit(gated, traced, cells=cells, downstream="react"),
        lambda: skipviz.audit(gated, other, horizon=3, cells=cells[:8]),
        lambda: skipviz.trace(gated, OTHER),
        lambda: skipviz.trace(gated, text, plan=plan),
        lambda: attribute(
            gated, traced, target, gates="straight_through", method="input_x_gradient"
        ),
        recorded,
    ]
    alone = [frames(each()) for each in work]
    for _ in range(8):
        for expected, found in zip(alone, map(frames, together(*work)), strict=True):
            for one, two in zip(expected, found, strict=True):
                for name in one.columns:
                    if one[name].dtype.is_float():
                        a, b = one[name].to_numpy(), two[name].to_numpy()
                        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
                    else:
                        assert one[name].equals(two[name]), name
