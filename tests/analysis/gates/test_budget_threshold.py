from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skipviz.analysis.flops import realised_budget
from skipviz.analysis.gates.budget_threshold import budget_range, threshold_for
from tests.synthetic import make_trace


def test_gates_that_were_not_asked_stay_as_they_are() -> None:
    trace = make_trace()
    score = trace.matrix("score").copy()
    score[30:, 2:] = np.nan
    unasked = replace(trace, matrices={**trace.matrices, "score": score})

    def at(run: bool) -> float:
        counts = np.where(np.isnan(score), trace.matrix("exec_count"), run).astype(np.uint8)
        return realised_budget(
            replace(unasked, matrices={**unasked.matrices, "exec_count": counts})
        )

    least, most = budget_range(unasked)
    assert (least, most) == (at(False), at(True))
    middle = (least + most) / 2
    limit = threshold_for(unasked, middle)
    ran = np.where(np.isnan(score), trace.matrix("exec_count"), score > limit).astype(np.uint8)
    found = replace(unasked, matrices={**unasked.matrices, "exec_count": ran})
    assert realised_budget(found) == pytest.approx(middle, abs=0.01)
