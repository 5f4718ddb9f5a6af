from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skipviz.analysis.flops import realised_budget
from skipviz.analysis.gates.budget_threshold import budget_range, threshold_for
from skipviz.errors import InputError
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


@pytest.mark.parametrize("extreme", [np.inf, -np.inf])
def test_scores_that_are_infinite_decide_alike_at_any_threshold(extreme: float) -> None:
    trace = make_trace()
    score, count = trace.matrix("score").copy(), trace.matrix("exec_count").copy()
    score[3], count[3] = extreme, extreme > 0
    endless = replace(trace, matrices={**trace.matrices, "score": score, "exec_count": count})
    least, most = budget_range(endless)
    limit = threshold_for(endless, (least + most) / 2)
    assert score[np.isfinite(score)].min() < limit < score[np.isfinite(score)].max()


def test_everything_runs_also_where_scores_are_so_large_that_1_less_is_the_same() -> None:
    trace = make_trace()
    large = replace(
        trace, matrices={**trace.matrices, "score": trace.matrix("score") * np.float32(1e10)}
    )
    assert budget_range(large) == budget_range(trace)


def test_no_threshold_is_found_where_there_is_no_score() -> None:
    trace = make_trace()
    nothing = np.full(trace.matrix("score").shape, np.nan, dtype=np.float32)
    with pytest.raises(InputError, match="no finite scores"):
        threshold_for(replace(trace, matrices={**trace.matrices, "score": nothing}), 0.5)
