from __future__ import annotations

import numpy as np

from skipviz.plots.lenses.traced import traced_lenses
from tests.synthetic import make_trace


def test_lenses_of_a_trace_hold_its_numbers() -> None:
    trace = make_trace(polarity=-1)
    lenses = {lens.name: lens for lens in traced_lenses(trace)}
    assert list(lenses) == [
        "layers used", "loss on the next token", "surprisal", "entropy", "decision",
        "score minus threshold",
    ]  # fmt: skip
    for name, column in (("layers used", "layers_used"), ("surprisal", "surprisal")):
        known = trace.tokens[column].to_numpy()
        np.testing.assert_array_equal(lenses[name].values, known.astype(np.float32))
    assert np.isnan(lenses["surprisal"].values[0]), "nothing precedes the first token"
    np.testing.assert_array_equal(lenses["decision"].values, trace.matrix("exec_count") > 0)
    # What speaks for running is above 0, though here a high score skips.
    margin = lenses["score minus threshold"].values
    assert ((margin > 0) == (trace.matrix("exec_count") > 0)).all()
    assert lenses["layers used"].ends == (2.0, 6.0)


def test_a_model_without_gates_has_lenses_of_tokens_alone() -> None:
    lenses = traced_lenses(make_trace(gated=(), statistics=False))
    assert not any(lens.of_cells for lens in lenses)
    assert np.isnan(lenses[1].values).all()
    assert lenses[1].stretched() == lenses[1].ends
