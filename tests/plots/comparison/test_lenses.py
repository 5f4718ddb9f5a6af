from __future__ import annotations

from dataclasses import replace

import numpy as np

from skipviz.analysis.comparison import compare_traces
from skipviz.plots.comparison.lenses import COMPARISON_LENSES, comparison_lenses
from skipviz.plots.style.palette import PAGE, RAMPS
from tests.synthetic import make_trace


def test_tokens_have_the_difference_of_their_piece() -> None:
    found = compare_traces(make_trace(tokens=24, exec_count=1), make_trace(tokens=24, exec_count=0))
    layers, surprisal, loss = comparison_lenses(found)
    assert np.allclose(layers.values, 4.0)
    assert surprisal.values.shape == (24,)
    for row in found.pieces.rows(named=True):
        here = surprisal.values[row["first_token"] : row["first_token"] + row["tokens"]]
        if row["surprisal"] is None or row["surprisal_other"] is None:
            assert np.isnan(here).all()
        else:
            assert np.allclose(here, row["surprisal"] - row["surprisal_other"], atol=1e-5)

    assert np.allclose(loss.values[:-1], (found.trace - found.other)["nll"][:-1])
    assert np.isnan(loss.values[-1])
    for lens in (layers, surprisal, loss):
        assert lens.scale == "diverging"
        assert RAMPS[lens.colours]["dark"][len(RAMPS[lens.colours]["dark"]) // 2] == PAGE["dark"]


def test_runs_of_other_tokens_have_no_loss_in_common() -> None:
    trace = make_trace(tokens=24)
    found = replace(compare_traces(trace, trace), match="characters")
    assert [lens.name for lens in comparison_lenses(found)] == list(COMPARISON_LENSES[:2])


def test_two_texts_have_no_lenses_in_common() -> None:
    assert comparison_lenses(compare_traces(make_trace(tokens=9), make_trace(tokens=5))) == []
