from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.gates.agreement import beside_flips, worth_of_cells
from skipviz.analysis.gates.word_shares import shares_by_word
from skipviz.plots.attribution import (
    attribution_html,
    correlation_figure,
    depth_bars,
    depth_map,
    share_end,
    share_scatter,
)
from skipviz.traces import Trace
from tests.synthetic import make_trace, say


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=12)


@pytest.fixture
def cells(trace: Trace) -> pl.DataFrame:
    executed = trace.matrix("exec_count")[:10] > 0
    loss = np.random.default_rng(0).standard_normal(executed.shape)
    token, site = np.indices(executed.shape).reshape(2, -1)
    shares = {"from_skipped": loss * executed, "to_all": loss * ~executed}
    table = {"token": token, "site": site} | {name: v.ravel() for name, v in shares.items()}
    return worth_of_cells(trace, pl.DataFrame(table))


class Reader(HTMLParser):
    """Collects the tags and, for each span with a title, its style, title and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.spans: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        if "title" in found:
            self.spans.append([str(found["style"]), str(found["title"]), ""])

    def handle_data(self, data: str) -> None:
        if self.spans:
            self.spans[-1][2] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_text_is_coloured_by_its_shares_and_is_never_markup() -> None:
    words = ["Hi", " <script>", "alert", "</script>", " &amp;", " end"]
    trace = say(make_trace(tokens=6), words)
    table = pl.DataFrame({"token": range(5), "attribution": [3.0, -3.0, 0.0, 0.5, -0.5]})
    page = attribution_html(trace, shares_by_word(trace, table, words=False), target=4, what="<b>")
    reader = read(page)
    assert reader.tags == {"div", "span"}
    assert "".join(text for _, _, text in reader.spans[:5]) == "".join(words[:5])
    styles = [style for style, _, _ in reader.spans]
    assert "rgb(84,39,136)" in styles[0]  # the violet end
    assert "rgb(179,88,6)" in styles[1]  # the orange end
    assert "rgb(247,247,247)" in styles[2]
    assert "background" not in styles[5]
    assert ["outline" in style for style in styles] == [False] * 4 + [True, False]
    assert reader.spans[0][1] == "token 0: +3.0000 nats"
    assert "raised by 3 nats or more" in page


def test_a_scale_ends_at_the_first_step_that_holds_nearly_all() -> None:
    assert share_end(pl.Series([0.02, -0.2, None])) == 0.3
    assert share_end(pl.Series([1.0] * 99 + [50.0])) == 1.0  # one outlier does not bleach the rest
    assert share_end(pl.Series([], dtype=pl.Float64)) == 0.1
    assert share_end(pl.Series([5000.0])) == 100.0


def test_the_depth_figures_have_every_cell_in_its_place(trace: Trace, cells: pl.DataFrame) -> None:
    attention, mlp = depth_map(trace, cells, what="the text").data
    row = cells.filter(token=7, label="L2.mlp").row(0, named=True)
    assert mlp.z[list(mlp.y).index(2)][7] == pytest.approx(row["share"])
    assert np.array(attention.z).shape == (4, 10)  # nothing after the target
    bars = depth_bars(trace, cells)
    drawn = sum(sum(bar.y) for bar in bars.data)
    assert drawn == pytest.approx(cells["share"].sum())
    ran = cells.filter("executed", layer=3, unit="attn")["share"].sum()
    first = bars.data[0]
    assert first.y[list(first.x).index(3)] == pytest.approx(ran)


def test_the_scatter_holds_shares_against_utilities(trace: Trace, cells: pl.DataFrame) -> None:
    flips = cells.select("token", "site", utility=pl.col("share") * 2).head(30)
    compared = beside_flips(cells, flips)
    _, ran, skipped = share_scatter(trace, compared).data
    assert len(ran.x) + len(skipped.x) == 30
    np.testing.assert_allclose(np.array(ran.x), 2 * np.array(ran.y))
    assert len(ran.x) == compared["executed"].sum()


def test_coefficients_are_filled_where_they_are_sure(trace: Trace) -> None:
    rows = [
        {
            "scope": scope, "layer": layer, "label": label, "method": method,
            "controlled": controlled, "r": r, "low": r - 0.1, "high": r + 0.2, "p": q, "q": q,
            "r_detrended": r,
        }
        for method in ("pearson", "spearman")
        for controlled in (False, True)
        for scope, layer, label, r, q in (
            ("all", None, None, 0.3, 0.01),
            ("site", 1, "L1.attn", 0.5, 0.01),
            ("site", 2, "L2.attn", -0.2, 0.4),
            ("site", 1, "L1.mlp", 0.1, 0.04),
        )
    ]  # fmt: skip
    figure = correlation_figure(trace, pl.DataFrame(rows), method="spearman", value="utility")
    attention, mlp = figure.data[:2]
    assert list(attention.y) == [0.5, -0.2]
    assert list(attention.marker.symbol) == ["circle", "circle-open"]
    assert list(mlp.marker.symbol) == ["square"]
    assert list(attention.error_y.array) == pytest.approx([0.2, 0.2])
    assert len(figure.data) == 4
