from __future__ import annotations

import numpy as np

from skipviz.analysis.comparison import compare_traces
from skipviz.plots.comparison.lenses import comparison_lenses
from tests.synthetic import make_trace


def test_tokens_have_the_difference_of_their_piece() -> None:
    found = compare_traces(make_trace(tokens=24, exec_count=1), make_trace(tokens=24, exec_count=0))
    layers, surprisal = comparison_lenses(found)
    assert np.allclose(layers.values, 4.0)
    assert surprisal.values.shape == (24,)
    for row in found.pieces.rows(named=True):
        here = surprisal.values[row["first_token"] : row["first_token"] + row["tokens"]]
        if row["surprisal"] is None or row["surprisal_other"] is None:
            assert np.isnan(here).all()
        else:
            assert np.allclose(here, row["surprisal"] - row["surprisal_other"], atol=1e-5)


def test_two_texts_have_no_lenses_in_common() -> None:
    assert comparison_lenses(compare_traces(make_trace(tokens=9), make_trace(tokens=5))) == []
