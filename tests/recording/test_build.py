from __future__ import annotations

import numpy as np
import pytest
import torch

import skipviz
from skipviz.recording.build import TokenColumns, build_trace
from skipviz.recording.statistics import TokenStatistics
from skipviz.schema import TOP_K


def test_only_a_token_that_follows_takes_the_loss_before_it(dense: skipviz.SkipModel) -> None:
    sequence, position = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 3, 4, 5, 6])
    count = len(sequence)
    nll = torch.arange(1.0, count + 1)
    trace = build_trace(
        dense,
        TokenColumns(
            source=["a"] * count,
            sequence=sequence,
            position=position,
            token_id=np.arange(5, 5 + count),
            text=["x"] * count,
            char_start=np.full(count, -1),
            char_end=np.full(count, -1),
            span=np.arange(count),
            context=position + 1,
            decode=np.zeros(count, dtype=bool),
        ),
        {
            name: np.zeros((count, 0), dtype=kind)
            for name, kind in (
                ("score", np.float32),
                ("p_execute", np.float32),
                ("threshold", np.float32),
                ("exec_count", np.uint8),
                ("forced", np.bool_),
            )
        },
        statistics=TokenStatistics(
            nll=nll,
            entropy=torch.ones(count),
            top_ids=torch.full((count, TOP_K), 5),
            top_probs=torch.full((count, TOP_K), 0.1),
        ),
        policy="dense",
    )
    # The third token is not the one that the second predicted, nor the fifth that of the fourth.
    assert trace.tokens["surprisal"].to_list() == [None, 1.0, None, 3.0, None, 5.0]
    assert trace.tokens["nll"].to_list() == pytest.approx(nll.tolist())
