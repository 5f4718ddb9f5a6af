from __future__ import annotations

import pytest

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.evaluation.calibration import calibrate_exits, leaving
from skipviz.families.exits.modules import ExitConfig, ExitRule, install_exits, set_exit_rule
from tests import tiny
from tests.families.exits.test_family import with_exits

TEXTS = [skipviz.Document(source=str(n), text=tiny.TEXT * (n + 1)) for n in range(2)]


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_a_calibrated_threshold_realises_its_budget(rule: ExitRule) -> None:
    loaded = skipviz.from_parts(with_exits(rule=rule), tiny.tokenizer())
    set_exit_rule(loaded.model, rule, 1e9 if rule == "confidence" else -1e9)
    most = realised_budget(skipviz.trace(loaded, TEXTS))
    found = calibrate_exits(loaded, TEXTS, rule, [most - 0.2, 0.01], tolerance=0.01)
    assert len(found) == 1  # the other is out of reach
    set_exit_rule(loaded.model, rule, found[most - 0.2])
    realised = realised_budget(skipviz.trace(loaded, TEXTS))
    assert realised == pytest.approx(most - 0.2, abs=0.01)


def test_patience_takes_whole_numbers() -> None:
    model = tiny.backbone(seed=0)
    install_exits(model, ExitConfig(exits=(0, 1, 2), adapter_rank=1, head_rank=1))
    loaded = skipviz.from_parts(model.eval(), tiny.tokenizer())
    found = calibrate_exits(loaded, TEXTS, "patience", [0.5])
    assert list(found.values()) == [2.0, 1.0]
    for budget, count in found.items():
        set_exit_rule(loaded.model, "patience", count)
        assert realised_budget(skipviz.trace(loaded, TEXTS)) == pytest.approx(budget, abs=0.005)


def test_patience_that_costs_more_than_it_saves_is_left_out() -> None:
    loaded = skipviz.from_parts(with_exits(rule="patience"), tiny.tokenizer())
    assert realised_budget(skipviz.trace(loaded, TEXTS)) > 1
    assert calibrate_exits(loaded, TEXTS, "patience", [0.5]) == {}


def test_leaving_is_the_run_where_scores_do_not_change() -> None:
    loaded = skipviz.from_parts(with_exits(), tiny.tokenizer())
    set_exit_rule(loaded.model, "confidence", 1e9)
    nobody = skipviz.trace(loaded, tiny.TEXT)
    set_exit_rule(loaded.model, "confidence", 0.06)
    left = skipviz.trace(loaded, tiny.TEXT)
    guessed = leaving(nobody, "confidence", 0.06)
    # At the first exit nobody has left yet, so there the two are the same.
    first = left.matrix("exec_count")[:, 0]
    assert (guessed.matrix("exec_count")[:, 0] == first).all()
    assert realised_budget(guessed) == pytest.approx(realised_budget(left), abs=0.1)
