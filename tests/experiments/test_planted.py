"""The audit of a model whose utilities are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.analysis.gates.quality import controls, judged, quality
from tests import planted

LENGTH = 65


def audited(scores: planted.Floats, gain: planted.Floats) -> tuple[skipviz.Trace, pl.DataFrame]:
    model = skipviz.from_parts(planted.model(gain, scores), planted.tokenizer())
    trace = skipviz.trace(model, planted.text(LENGTH))
    cells = judged(trace, skipviz.audit(model, trace))
    return trace, cells.filter(unit="mlp")


@pytest.mark.parametrize("seed", range(3))
def test_the_utilities_are_those_planted(seed: int) -> None:
    gain = planted.gains(seed)
    scores = np.random.default_rng(seed + 100).standard_normal(gain.shape)
    trace, cells = audited(scores, gain)
    tokens = trace.tokens["token_id"].to_numpy()[:-1]
    executed = trace.matrix("exec_count")[:-1, 1::2] > 0
    np.testing.assert_array_equal(executed, scores.T[tokens] > 0)
    wanted = planted.utilities(gain, executed, tokens)
    found = cells["utility"].to_numpy().reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert np.array_equal(found > 0, gain.T[tokens] > 0)


def test_attention_that_does_nothing_is_worth_nothing() -> None:
    gain = planted.gains(0)
    model = skipviz.from_parts(planted.model(gain, gain), planted.tokenizer())
    cells = judged(trace := skipviz.trace(model, planted.text(20)), skipviz.audit(model, trace))
    assert cells.filter(unit="attn")["utility"].abs().max() < 1e-6


def test_right_gates_are_found_right_and_random_ones_random() -> None:
    gain = planted.gains(0)
    right = quality(audited(gain, gain)[1])
    assert right.auroc >= 0.99
    assert right.right == 1
    assert right.regret == 0
    random = np.random.default_rng(1).standard_normal(gain.shape)
    cells = audited(random, gain)[1]
    # 256 cells of their own draws: the standard error of the area at chance.
    error = np.sqrt((256 + 1) / (12 * 128 * 128))
    assert quality(cells).auroc == pytest.approx(0.5, abs=2 * error)
    shuffled = controls(audited(gain, gain)[1], seed=0)["shuffled"]
    assert shuffled.auroc == pytest.approx(0.5, abs=3 * error)


def test_a_sign_turned_round_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gain = planted.gains(0)
    assert quality(audited(-gain, gain)[1]).auroc <= 0.01
