from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.gates.agreement import agreement, beside_flips, worth_of_cells
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=12)


def shares_of(trace: Trace, worth: np.ndarray) -> pl.DataFrame:
    """Shares that say a worth: of executed cells on one path, of skipped ones on the other."""
    token, site = np.indices(worth.shape).reshape(2, -1)
    executed = (trace.matrix("exec_count") > 0).ravel()
    loss = -worth.ravel()
    return pl.DataFrame(
        {
            "token": token,
            "site": site,
            "from_skipped": np.where(executed, loss, 0.0),
            "to_all": np.where(executed, 0.0, loss),
        }
    )


def flips_of(worth: np.ndarray) -> pl.DataFrame:
    token, site = np.indices(worth.shape).reshape(2, -1)
    return pl.DataFrame({"token": token, "site": site, "utility": worth.ravel()})


def test_a_share_is_signed_like_a_utility_and_named(trace: Trace) -> None:
    worth = np.random.default_rng(0).standard_normal((12, 8))
    cells = worth_of_cells(trace, shares_of(trace, worth))
    np.testing.assert_allclose(cells["share"].to_numpy(), worth.ravel())
    assert cells["executed"].to_list() == (trace.matrix("exec_count") > 0).ravel().tolist()
    row = cells.filter(token=5, label="L2.mlp").row(0, named=True)
    assert (row["layer"], row["unit"]) == (2, "mlp")
    assert row["share"] == pytest.approx(worth[5, row["site"]])


def test_agreement_is_whole_reversed_or_none(trace: Trace) -> None:
    worth = np.random.default_rng(0).standard_normal((12, 8))
    cells = worth_of_cells(trace, shares_of(trace, worth))
    same = agreement(beside_flips(cells, flips_of(worth**3)))  # the same ranks and signs
    assert (same.cells, same.rank, same.ran, same.skipped, same.same_sign) == (96, 1, 1, 1, 1)
    turned = agreement(beside_flips(cells, flips_of(-worth)))
    assert (turned.rank, turned.same_sign) == (-1, 0)
    executed = trace.matrix("exec_count") > 0
    half = agreement(beside_flips(cells, flips_of(np.where(executed, worth, -worth))))
    assert (half.ran, half.skipped) == (1, -1)


def test_only_flipped_cells_are_compared_and_too_few_say_nothing(trace: Trace) -> None:
    worth = np.random.default_rng(0).standard_normal((12, 8))
    cells = worth_of_cells(trace, shares_of(trace, worth))
    two = beside_flips(cells, flips_of(2 * worth).head(2))
    assert two["difference"].to_list() == pytest.approx((-worth.ravel()[:2]).tolist())
    assert np.isnan(agreement(two).rank)
    with pytest.raises(ValueError, match="0 cells"):
        agreement(two.clear())
