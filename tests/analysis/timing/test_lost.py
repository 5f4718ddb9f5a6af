"""Where the saving went, on planted profiles."""

from __future__ import annotations

import polars as pl
import pytest

from skipviz.analysis.timing.lost import PROFILE, parts_of_time
from skipviz.analysis.timing.measured import TIMED_PARTS
from skipviz.analysis.timing.savings import WorkSaved, savings
from tests.analysis.timing.test_savings import runs

DENSE = {"attention": 4.0, "MLP": 4.0, "head": 1.0, "other": 1.0}
GATHERED = {"attention": 2.5, "MLP": 2.0, "head": 1.0, "other": 1.0, "gates": 0.5, "gathering": 1.0}


def planted() -> pl.DataFrame:
    rows = [
        {"phase": "prefill", "runtime": name, "part": part, "seconds": seconds}
        for name, parts in (("dense", DENSE), ("gathered", GATHERED))
        for part, seconds in parts.items()
    ]
    return pl.DataFrame(rows, schema=PROFILE)


def test_parts_add_up_to_the_measured_whole_and_losses_to_what_did_not_arrive() -> None:
    taken = runs(0.8, rounds=1)
    found = parts_of_time(
        planted(),
        taken,  # 1 s dense, 0.8 s gathered: profiles took ten times as long
        savings(taken, {"prefill": WorkSaved(flops=0.4)}),
        ran={"prefill": {"attention": 0.5, "MLP": 0.5, "head": 1.0}},
    )
    own = found.filter(runtime="gathered")
    assert own["part"].to_list() == list(TIMED_PARTS)
    assert own["seconds"].sum() == pytest.approx(0.8)
    assert found.filter(runtime="dense")["seconds"].sum() == pytest.approx(1.0)
    assert own["ideal_seconds"].sum() == pytest.approx(0.6)
    assert own["lost_seconds"].sum() == pytest.approx(0.2)
    by_part = dict(own.select("part", "lost_seconds").iter_rows())
    assert by_part["attention"] == pytest.approx(0.25 - 0.2)
    assert by_part["MLP"] == pytest.approx(0.0)
    assert by_part["gates"] == pytest.approx(0.05)
    assert by_part["gathering"] == pytest.approx(0.1)
    assert by_part["head"] == pytest.approx(0.0)
    assert by_part["other"] == pytest.approx(0.0, abs=1e-12)
    assert found.filter(runtime="dense")["lost_seconds"].null_count() == len(TIMED_PARTS)


def test_without_known_work_nothing_is_said_to_be_lost() -> None:
    found = parts_of_time(planted(), runs(0.8), savings(runs(0.8), {}), ran={})
    assert found.height == 2 * len(TIMED_PARTS)
    assert found["lost_seconds"].null_count() == found.height
    assert found["seconds"].null_count() == 0


def test_without_a_profile_there_are_no_parts() -> None:
    found = parts_of_time(pl.DataFrame(schema=PROFILE), runs(0.8), savings(runs(0.8), {}), ran={})
    assert found.is_empty()
