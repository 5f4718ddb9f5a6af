from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import skipviz
from skipviz.analysis.flops import realised_budget, token_flops
from skipviz.errors import InputError
from skipviz.evaluation.own_text import Fitted, fit_to_text, fitted_on
from skipviz.models import at_threshold
from tests import tiny
from tests.folders import write_gated


def test_a_threshold_is_set_on_one_part_and_looked_at_on_the_other(
    tmp_path: Path, dense_folder: Path
) -> None:
    model = skipviz.load(write_gated(tmp_path / "gated", backbone=dense_folder))
    documents = [skipviz.Document("mine", tiny.TEXT * 3)]
    shares: list[float] = []
    found = fit_to_text(model, documents, budget=0.7, tolerance=0.02, progress=shares.append)
    seen = skipviz.trace(at_threshold(model, found.threshold), documents)
    rows = token_flops(seen).rows(named=True)
    mine = fitted_on(seen)
    for counted, realised, tokens in (
        (mine, found.realised, found.tokens),
        (~mine, found.held_out, found.held_out_tokens),
    ):
        those = [row for row, counts in zip(rows, counted, strict=True) if counts]
        spent = sum(r["attention"] + r["mlp"] + r["adapters"] + r["gates"] for r in those)
        assert realised == pytest.approx(
            spent / sum(r["dense_attention"] + r["dense_mlp"] for r in those)
        )
        assert tokens == len(those)
    assert found.realised == pytest.approx(0.7, abs=0.02)
    assert found.before == pytest.approx(
        realised_budget(skipviz.trace(skipviz.at_budget(model, 0.6), documents), counted=~mine)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_parts_are_of_every_text_or_whole_ones(gated: skipviz.SkipModel) -> None:
    few = skipviz.trace(gated, [tiny.TEXT, tiny.TEXT[5:]], statistics=False)
    part, sequence = fitted_on(few), few.tokens["sequence"].to_numpy()
    for each in (0, 1):
        assert 0.4 < part[sequence == each].mean() < 0.6
        assert np.count_nonzero(np.diff(part[sequence == each])) == 7
    many = skipviz.trace(gated, [tiny.TEXT[n:] for n in range(9)], statistics=False)
    part, sequence = fitted_on(many), many.tokens["sequence"].to_numpy()
    assert part.tolist() == (sequence % 2 == 0).tolist()


def test_what_the_held_out_part_comes_to_is_said() -> None:
    found = Fitted(
        budget=0.8, threshold=0.1, before=0.92, realised=0.8, held_out=0.81,
        tokens=500, held_out_tokens=490,
    )  # fmt: skip
    assert "0.810 on the 490 tokens held out, where the one before came to 0.920" in str(found)
    assert "differ" not in str(found)
    off = Fitted(**{**vars(found), "held_out": 0.83})
    assert "The parts of the text differ" in str(off)


def test_too_short_a_text_is_a_sentence(tmp_path: Path, dense_folder: Path) -> None:
    model = skipviz.load(write_gated(tmp_path / "gated", backbone=dense_folder))
    with pytest.raises(InputError, match="too few to set a threshold on"):
        fit_to_text(model, [skipviz.Document("mine", "A fox.")], budget=0.7)
