from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

import skipviz
from skipviz.app import jobs
from skipviz.app.components.canvas_payload import payload
from skipviz.app.memory import held_bytes
from skipviz.text.documents import Document
from tests import tiny

RUNS = 100
PAGE_BYTES = 4096
STATM = Path("/proc/self/statm")
ROWS = 100_000
TOLERANCE = 2_000
"""Bytes of the objects around the arrays."""


@dataclass(frozen=True)
class Held:
    first: npt.NDArray[np.float32]
    second: object


ARRAY = np.zeros(ROWS, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ARRAY, 4 * ROWS),
        (ARRAY[:1], 4 * ROWS),  # a view keeps the whole
        (np.broadcast_to(ARRAY[:7].copy(), (ROWS, 7)), 7 * 4),
        (pl.DataFrame({"a": np.zeros(ROWS), "b": np.zeros(ROWS, dtype=np.uint8)}), 9 * ROWS),
        (pl.DataFrame({"a": np.zeros(ROWS)}).to_pandas(), 8 * ROWS),
        (torch.zeros(ROWS)[:5], 4 * ROWS),
        ("x" * ROWS, ROWS),
        (Held(ARRAY, {"again": [ARRAY, "y" * ROWS]}), 5 * ROWS),
        (None, 0),
    ],
)
def test_what_a_value_holds(value: object, expected: int) -> None:
    assert expected <= held_bytes(value) <= expected + TOLERANCE


@pytest.mark.long
@pytest.mark.slow
def test_memory_is_steady_over_many_runs(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``benchmarks/memory.py`` in small: what the results take, and what the process takes."""
    limit = 2**20
    monkeypatch.setattr(jobs, "load_served", lambda name: gated)
    monkeypatch.setattr(jobs, "RESULT_BYTES", limit)
    worker = jobs.Jobs(lambda session: True)
    resident: list[int] = []
    for number in range(RUNS):
        documents = (Document(source="a", text=f"{number}. {tiny.TEXT * 24}"),)
        request = jobs.Request(model="tiny", documents=documents)
        trace = worker.submit(request).future.result(30)
        view = worker.made(f"view {request.key}", lambda t=trace: payload(t, key="k"))
        size = held_bytes(trace) + held_bytes(view)
        assert worker.kept_bytes <= limit + size  # that which came last stays
        if STATM.exists():
            resident.append(int(STATM.read_text().split()[1]) * PAGE_BYTES)
    worker.close()
    half = RUNS // 2
    assert half * size > 3 * limit, "the texts are too short to fill what may be kept"
    if resident:
        before, after = (
            np.median(part) for part in (resident[half - 5 : half + 5], resident[-10:])
        )
        assert after - before < half * size / 2, "half of the runs were kept"
