from __future__ import annotations

from importlib.resources import files

import numpy as np
import polars as pl
import pytest
from skipviz.app.components.token_view import payload, selected_of, span_texts

import skipviz
from skipviz.plots.style import palette
from skipviz.plots.style.palette import MARGIN_ENDS, margin_end
from tests import tiny
from tests.synthetic import make_trace


def test_the_browser_gets_every_decision_and_score() -> None:
    traced = make_trace(tokens=30)
    sent = payload(traced, key="k")
    assert sent["key"] == "k"
    assert len(sent["tokens"]) == 30
    assert list(sent["sites"]["label"]) == traced.sites["label"].to_list()
    for site in range(traced.sites.height):
        assert (sent["tokens"][f"e{site}"] == traced.matrix("exec_count")[:, site]).all()
        assert (sent["tokens"][f"s{site}"] == traced.matrix("score")[:, site]).all()
    assert sent["layers"] == 6
    assert sent["fewest"] == 2


def test_a_threshold_goes_once_a_site_if_it_is_one() -> None:
    traced = make_trace(tokens=30)
    limits = traced.matrix("threshold").copy()
    limits[:, 0] = 0.25
    limits[:, 1] = np.linspace(0, 1, 30)
    varied = skipviz.Trace(
        run=traced.run,
        sites=traced.sites,
        tokens=traced.tokens,
        matrices={**traced.matrices, "threshold": limits},
    )
    sent = payload(varied, key="k")
    assert sent["sites"]["threshold"][0] == 0.25
    assert np.isnan(sent["sites"]["threshold"][1])
    assert "t0" not in sent["tokens"]
    assert sent["tokens"]["t1"].to_numpy() == pytest.approx(limits[:, 1])


def test_a_dense_model_has_tokens_and_no_sites() -> None:
    sent = payload(make_trace(gated=()), key="k")
    assert len(sent["sites"]) == 0
    assert len(sent["tokens"]) == 40
    assert margin_end(make_trace(gated=())) == MARGIN_ENDS[-1]


def test_what_is_unknown_is_not_zero() -> None:
    sent = payload(make_trace(statistics=False), key="k")
    assert sent["tokens"]["nll"].isna().all()


@pytest.mark.parametrize("text", [tiny.TEXT, "🦊🦊 a\u0301 עברית <b>&amp;\r\n\t=1+1", "x"])
def test_spans_together_spell_the_text(gated: skipviz.SkipModel, text: str) -> None:
    shown = span_texts(skipviz.trace(gated, text))
    firsts = shown.group_by("span", maintain_order=True).agg(pl.col("text").first())
    assert "".join(firsts["text"]) == text


@pytest.mark.parametrize(
    ("scale", "end"), [(1e-5, 0.001), (0.02, 0.03), (0.2, 0.3), (2.0, 3.0), (1e6, 10.0)]
)
def test_the_score_scale_is_a_step_of_the_ladder(scale: float, end: float) -> None:
    traced = make_trace()
    same = np.full_like(traced.matrix("score"), scale)
    scaled = skipviz.Trace(
        run=traced.run,
        sites=traced.sites,
        tokens=traced.tokens,
        matrices={
            **traced.matrices,
            "score": same,
            "threshold": np.zeros_like(same),
            "exec_count": np.ones_like(traced.matrix("exec_count")),
        },
    )
    assert margin_end(scaled) == end


def test_a_token_selected_in_an_earlier_text_is_not_selected_in_this() -> None:
    assert selected_of(None, "key") is None
    assert selected_of(["key", 3], "key") == 3
    assert selected_of(["other", 3], "key") is None


def test_the_browser_gets_the_colours_of_the_figures() -> None:
    sent = payload(make_trace(), key="k")["palette"]
    assert sent["units"] == palette.UNIT_COLOURS
    assert (sent["layers"], sent["margins"]) == (palette.CIVIDIS, palette.MARGINS)
    grey, share = sent["skipped"]
    assert f"rgba({', '.join(map(str, grey))}, {share})" == palette.SKIPPED
    script = (files("skipviz.app.components") / "assets" / "token_view.js").read_text("utf-8")
    for name in sent:
        assert f"palette.{name}" in script
