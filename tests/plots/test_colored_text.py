from __future__ import annotations

import html
from html.parser import HTMLParser

import jaxtyping
import numpy as np
import polars as pl
import pytest

import skipviz.plots
from skipviz.plots.colored_text import token_html
from skipviz.traces import Trace
from tests.synthetic import PIECES, make_trace


class Page(HTMLParser):
    """Collects the coloured pieces, and which tags there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pieces: list[str] = []
        self.classes: list[str | None] = []
        self.tips: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag == "span" and "title" in given:
            self._inside = True
            self.pieces.append("")
            self.classes.append(given.get("class"))
            self.tips.append(given["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "span"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.pieces[-1] += data


def level(class_: str | None) -> int:
    assert class_ is not None
    return int(class_.split("-")[1][1:])


def test_pieces_are_the_text_with_shared_characters_once() -> None:
    trace = make_trace(tokens=28)
    page = Page(token_html(trace))
    text = "".join(group[0] for group in PIECES * 2)
    assert "".join(page.pieces) == text.replace("\x00", "␀")
    assert len(page.pieces) == trace.tokens["span"].n_unique() == len(PIECES) * 2
    assert page.pieces[3] == " 🦊"
    assert page.tips[3].count("token") == 3, "the three tokens of one emoji"


def test_text_with_markup_stays_text() -> None:
    page = Page(token_html(make_trace()))
    assert set(page.tags) == {"div", "style", "span", "br"}
    assert " <b>bold</b>" in page.pieces
    assert " &amp;" in page.pieces


def test_names_cannot_break_out() -> None:
    evil = '"><script>x</script>'
    trace = make_trace(model=evil, policy=evil, sequences=2)
    trace = Trace(
        run=trace.run,
        sites=trace.sites,
        tokens=trace.tokens.with_columns(source=pl.lit(evil)),
        matrices=trace.matrices,
    )
    page = token_html(trace)
    assert "<script" not in page
    assert html.escape(evil) in page


def test_without_offsets_each_token_shows_its_text() -> None:
    page = Page(token_html(make_trace(tokens=6, offsets=False)))
    assert "".join(page.pieces) == "The fox <b>bold</b> 🦊🦊🦊"


def test_colours_follow_layers_used_on_the_scale_of_the_model() -> None:
    counts = np.repeat([[0], [1]], [1, 2], axis=0) * np.ones((3, 8), dtype=int)
    page = Page(token_html(make_trace(tokens=3, exec_count=counts)))
    assert [level(c) for c in page.classes] == [0, 31, 31]
    every = Page(token_html(make_trace(tokens=3, exec_count=1)))
    assert [level(c) for c in every.classes] == [31, 31, 31], "not stretched to the text"
    assert "layers used: 2<" in token_html(make_trace())


def test_ends_narrow_the_scale_and_the_legend_says_so() -> None:
    trace = make_trace(seed=2)
    page = token_html(trace, ends=(3.0, 5.0))
    assert "layers used: 3 or fewer<" in page
    assert "5 or more" in page
    # The emoji's piece takes the mean of its three tokens.
    used = trace.tokens.group_by("span", maintain_order=True).agg(pl.col("layers_used").mean())
    wanted = np.rint(np.clip((used["layers_used"].to_numpy() - 3) / 2, 0, 1) * 31)
    assert [level(c) for c in Page(page).classes] == wanted.tolist()


@pytest.mark.parametrize("colour", ["nll", "surprisal"])
def test_losses_colour_from_nothing_to_ten_nats(colour: str) -> None:
    trace = make_trace(tokens=30, sequences=2)
    page = Page(token_html(trace, colour=colour))  # type: ignore[arg-type]
    means = trace.tokens.group_by("span", maintain_order=True).agg(pl.col(colour).mean())[colour]
    for value, class_ in zip(means, page.classes, strict=True):
        if value is None:
            assert class_ is None, "no value, no colour"
        else:
            assert level(class_) == round(min(value, 10.0) / 10.0 * 31)
    assert any(value is None for value in means)


def test_missing_losses_are_a_sentence() -> None:
    page = token_html(make_trace(statistics=False), colour="nll")
    assert "Trace with statistics=True" in page
    assert Page(page).classes == [None] * len(Page(page).classes)


def test_long_texts_are_cut_and_say_so() -> None:
    trace = make_trace(tokens=30)
    cut = token_html(trace, limit=4)
    assert "first 4 of 30 tokens" in cut
    assert "limit=30" in cut
    assert len(Page(cut).tips) == 4
    assert "first" not in token_html(trace, limit=30)


def test_several_texts_are_named() -> None:
    page = token_html(make_trace(sequences=2))
    assert page.count('class="skipviz-source"') == 2
    assert "text 1" in page
    assert 'class="skipviz-source"' not in token_html(make_trace())


def test_carriage_returns_survive_html() -> None:
    assert "&#13;\n" in token_html(make_trace())


def test_a_dense_model_and_no_tokens_show() -> None:
    page = Page(token_html(make_trace(gated=())))
    assert {level(c) for c in page.classes} == {31}
    assert "The trace has no tokens" in token_html(make_trace(tokens=0))


def test_a_trace_shows_itself_in_a_notebook() -> None:
    trace = make_trace()
    assert skipviz.plots.token_html is token_html
    assert trace._repr_html_() == token_html(trace)


def test_wrong_arguments_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace()
    with pytest.raises(ValueError, match="limit=0 shows nothing"):
        token_html(trace, limit=0)
    with pytest.raises(ValueError, match="ascending order"):
        token_html(trace, ends=(5.0, 5.0))
    # Outside tests nothing checks types.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="colour='red' is not one of layers_used"):
        token_html(trace, colour="red")  # type: ignore[arg-type]
