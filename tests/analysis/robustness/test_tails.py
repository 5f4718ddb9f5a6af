from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.robustness.tails import cost_of_worst, over_dense, tails, worst_places
from skipviz.errors import TraceError
from skipviz.traces import Trace
from tests.synthetic import make_trace, say


def with_losses(trace: Trace, losses: np.ndarray) -> Trace:
    """Return the trace with these losses, where it had any."""
    known = trace.tokens["nll"].is_not_null()
    nll = pl.select(pl.when(known).then(pl.Series(losses, dtype=pl.Float32))).to_series()
    tokens = trace.tokens.with_columns(nll=nll)
    return Trace(run=trace.run, sites=trace.sites, tokens=tokens, matrices=trace.matrices)


@pytest.fixture
def pair() -> tuple[Trace, Trace]:
    """Two texts of 150 tokens, the gated one's losses above or below the dense ones."""
    generator = np.random.default_rng(0)
    made = make_trace(tokens=300, sequences=2)
    dense = generator.gamma(2.0, 1.0, 300)
    return with_losses(made, dense + generator.normal(0.1, 0.5, 300)), with_losses(made, dense)


def test_costs_are_differences_of_losses(pair: tuple[Trace, Trace]) -> None:
    trace, dense = pair
    costs = over_dense(trace, dense)
    assert costs["token"].to_list() == [t for t in range(300) if t not in (149, 299)]
    row = costs.row(37, named=True)
    assert row["over_dense"] == pytest.approx(trace.tokens["nll"][37] - dense.tokens["nll"][37])
    assert (row["text"], row["next"]) == tuple(trace.tokens["text"][37:39])


def test_quantiles_are_those_of_numpy(pair: tuple[Trace, Trace]) -> None:
    trace, dense = pair
    costs = over_dense(trace, dense)
    table = tails(trace, costs)
    assert table["tokens"].to_list() == [150, 150]
    assert table["source"].to_list() == ["text 0", "text 1"]
    for sequence, row in enumerate(table.iter_rows(named=True)):
        tokens = trace.tokens.filter(sequence=sequence)
        given = {
            "layers_used": tokens["layers_used"],
            "nll": tokens["nll"].drop_nulls(),
            "over_dense": costs.filter(sequence=sequence)["over_dense"],
        }
        for name, values in given.items():
            assert row[f"{name}_mean"] == pytest.approx(values.mean())
            for share in (50, 95, 99):
                wanted = np.percentile(values.to_numpy().astype(float), share)
                assert row[f"{name}_p{share}"] == pytest.approx(wanted)
    assert "over_dense_mean" not in tails(trace).columns


def test_a_trace_without_losses_has_depths_alone() -> None:
    trace = make_trace(statistics=False)
    table = tails(trace)
    assert table["nll_p99"].item() is None
    assert table["layers_used_p99"].item() > 0
    with pytest.raises(ValueError, match="no losses"):
        over_dense(trace, trace)
    with pytest.raises(TraceError, match="different tokens"):
        over_dense(trace, make_trace(tokens=8))


def test_the_worst_places_are_apart_and_shown_in_context() -> None:
    pieces = [f" w{number}" for number in range(40)]
    made = say(make_trace(tokens=40), pieces)
    losses = np.zeros(40)
    losses[[10, 12, 30, 0]] = [3.0, 2.5, 2.0, 1.0]
    costs = over_dense(with_losses(made, losses), with_losses(made, np.zeros(40)))
    table = worst_places(made, costs, around=3)
    assert table["token"].to_list() == [10, 30, 0]  # 12 is seen with 10
    assert table["over_dense"].to_list() == [3.0, 2.0, 1.0]
    assert table.select("before", "next", "after").row(0) == (
        " w8 w9 w10", " w11", " w12 w13 w14",
    )  # fmt: skip
    assert table["before"][2] == " w0"
    assert worst_places(made, costs, most=1)["token"].to_list() == [10]
    assert worst_places(made, costs.filter(pl.col("over_dense") <= 0)).is_empty()
    with pytest.raises(ValueError, match="around=0"):
        worst_places(made, costs, around=0)
    with pytest.raises(ValueError, match="most=0"):
        worst_places(made, costs, most=0)
    near = worst_places(made, costs, most=2, around=1)
    assert near.select("token", "before", "after").rows() == [
        (10, " w10", " w12"),
        (12, " w12", " w14"),
    ]


def test_context_ends_with_the_text_and_shows_whole_characters() -> None:
    made = make_trace(tokens=24, sequences=2)  # tokens 3 to 5 share one character
    losses = np.zeros(24)
    losses[[3, 13]] = 1.0
    costs = over_dense(with_losses(made, losses), with_losses(made, np.zeros(24)))
    inside, second = worst_places(made, costs, around=4).sort("token").iter_rows(named=True)
    assert (inside["before"], inside["next"]) == ("The fox <b>bold</b> ", "🦊")
    assert second["before"] == "The fox"  # and nothing of the text before


def test_a_place_hides_nothing_of_another_text() -> None:
    made = make_trace(tokens=24, sequences=2)
    losses = np.zeros(24)
    losses[[10, 12]] = [2.0, 1.0]  # the last but one of a text, the first of the next
    costs = over_dense(with_losses(made, losses), with_losses(made, np.zeros(24)))
    assert worst_places(made, costs, around=4)["token"].to_list() == [10, 12]


def test_the_worst_tokens_carry_a_share() -> None:
    made = make_trace(tokens=201)
    losses = np.full(201, 0.1)
    losses[[5, 9]] = 10.0
    costs = over_dense(with_losses(made, losses), with_losses(made, np.zeros(201)))
    count, mean, rest = cost_of_worst(costs)
    assert count == 2
    assert mean == pytest.approx((198 * 0.1 + 20) / 200)
    assert rest == pytest.approx(198 * 0.1 / 200)
    assert cost_of_worst(costs.head(3))[0] == 1
