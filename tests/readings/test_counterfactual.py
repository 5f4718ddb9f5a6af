from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.counterfactual import WhatIf, decided_by
from skipviz.readings.counterfactual import caveat_reading, flip_reading, what_if_reading
from tests.synthetic import make_trace

TRACE = make_trace(tokens=20)


def answer(*, flips: int, nats: float) -> WhatIf:
    """A trace in which the first cells are flipped, the very first as asked, and losses move."""
    counts = TRACE.matrix("exec_count").copy()
    counts.ravel()[:flips] = 1 - counts.ravel()[:flips]
    asked = np.zeros(counts.shape, dtype=bool)
    asked[0, 0] = True
    moved = TRACE.tokens.with_columns((pl.col("nll") + nats).cast(pl.Float32))
    after = replace(TRACE, tokens=moved, matrices={**TRACE.matrices, "exec_count": counts})
    return WhatIf(
        question="one cell", before=TRACE, trace=after, asked=asked, kl=np.full(20, 0.25),
        computed_anew="layers 3 to 5",
    )  # fmt: skip


def test_the_loss_comes_first_and_changes_are_told_apart() -> None:
    said = what_if_reading(answer(flips=4, nats=0.5))
    assert said.startswith("**The loss would rise by 0.5000 to ")
    assert "4 of 160 decisions would be others: 1 as asked, and 3 downstream" in said
    assert "move by 0.250 nats" in said
    assert re.search(r"realised would be 0\.\d{4} instead of 0\.\d{4}, and the share of the ", said)
    assert re.search(r"FLOPs that the text needs would be [\d.]+% instead of [\d.]+%\.", said)
    assert "fall by 0.5000" in what_if_reading(answer(flips=4, nats=-0.5))
    assert "The loss would stay at" in what_if_reading(answer(flips=4, nats=0.0))


def test_figures_that_are_written_alike_stay() -> None:
    """An MLP run for one token instead of another costs as much."""
    counts = TRACE.matrix("exec_count").copy()
    site = int(np.flatnonzero(TRACE.sites["unit"] == "mlp")[0])
    changed = [int(np.flatnonzero(counts[:, site] == ran)[0]) for ran in (0, 1)]
    counts[changed, site] = 1 - counts[changed, site]
    found = replace(
        answer(flips=0, nats=0.0),
        trace=replace(TRACE, matrices={**TRACE.matrices, "exec_count": counts}),
    )
    was, now = found.costs
    assert was.budget == pytest.approx(now.budget, abs=1e-6)
    said = what_if_reading(found)
    assert f"The budget realised would stay at {now.budget:.4f}, and" in said
    assert f"needs would stay at {now.flop_share:.2%}." in said


def test_no_change_is_said_so() -> None:
    assert what_if_reading(answer(flips=0, nats=0.0)).startswith("**Nothing would change**")
    assert "Computed anew: layers 3 to 5." in caveat_reading(answer(flips=0, nats=0.0))


def test_the_table_of_changes_and_the_figures() -> None:
    found = answer(flips=4, nats=0.5)
    assert found.changed.select("token", "site", "asked").rows() == [
        (0, 0, True), (0, 1, False), (0, 2, False), (0, 3, False)
    ]  # fmt: skip
    assert (found.changed["executed"].to_numpy() == (TRACE.matrix("exec_count")[0, :4] == 0)).all()
    row = found.tokens.row(0, named=True)
    assert (row["asked"], row["downstream"]) == (1, 3)
    assert row["nll_change"] == pytest.approx(0.5, abs=1e-5)
    assert found.same_top.all()


@pytest.mark.parametrize("polarity", [1, -1])
def test_what_other_thresholds_decide_about_the_same_scores(polarity: int) -> None:
    trace = make_trace(tokens=20, polarity=polarity)
    ran = trace.matrix("exec_count") > 0
    limits = trace.matrix("threshold")[0].astype(np.float64)
    assert (decided_by(trace, limits) == ran).all()
    assert (decided_by(trace, limits - polarity * 1e6)).all()
    forced = np.zeros(ran.shape, dtype=bool)
    forced[3] = True
    held = replace(trace, matrices={**trace.matrices, "forced": forced})
    assert (decided_by(held, limits - polarity * 1e6)[3] == ran[3]).all()


def test_a_flip_is_told_by_the_loss_then_by_what_follows() -> None:
    ran = bool(TRACE.matrix("exec_count")[0, 0])
    what = "Skipping it" if ran else "Running it"
    said = flip_reading(answer(flips=4, nats=0.5), 0, 0, can_depend=120)
    assert said[0].startswith(f"{what} would raise the loss on the next token by 0.5000 nats, to ")
    assert said[1] == "Over the 18 later tokens: +9.0000 nats in all."
    assert said[2] == "Of the 120 decisions that can depend on it, 3 would change."
    lower = flip_reading(answer(flips=1, nats=-0.5), 0, 0, can_depend=120)
    assert "would lower the loss on the next token by 0.5000 nats" in lower[0]
    same = flip_reading(answer(flips=1, nats=0.0), 0, 0, can_depend=120)
    assert same[0] == f"{what} would leave the loss on the next token as it is."


def test_the_last_token_has_no_next_token_to_lose_on() -> None:
    said = flip_reading(answer(flips=1, nats=0.5), 19, 0, can_depend=4)
    assert said[0].startswith("It is the last token of the text")
    assert len(said) == 2
