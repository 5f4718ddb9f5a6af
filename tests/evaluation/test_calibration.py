from __future__ import annotations

import pytest
import torch

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.evaluation.calibration import calibrate
from skipviz.families.gated.modules import gated_units
from skipviz.families.gated.settings import Threshold


def test_calibration_realises_the_budget(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    before = skipviz.trace(gated, documents)
    aim = realised_budget(skipviz.trace(gated.under(Threshold(0.4)), documents))
    threshold = calibrate(gated, documents, budget=aim, tolerance=0.02, attempts=20)
    met = skipviz.trace(gated.under(Threshold(threshold)), documents)
    assert realised_budget(met) == pytest.approx(aim, abs=0.02)
    again = skipviz.trace(gated, documents)
    assert again.matrix("threshold").tobytes() == before.matrix("threshold").tobytes()


def test_a_budget_out_of_reach_is_a_sentence(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    with pytest.raises(ValueError, match="is out of reach"):
        calibrate(gated, documents, budget=0.01)


def test_scores_have_no_scale_of_their_own(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    aim = realised_budget(skipviz.trace(gated.under(Threshold(0.4)), documents))
    with torch.no_grad():
        for _, _, unit in gated_units(gated.model):
            unit.gate.up.weight.mul_(1e-5)
            unit.gate.up.bias.mul_(1e-5)
    threshold = calibrate(gated, documents, budget=aim, tolerance=0.02, attempts=20)
    met = skipviz.trace(gated.under(Threshold(threshold)), documents)
    assert realised_budget(met) == pytest.approx(aim, abs=0.02)
