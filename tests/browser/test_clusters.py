from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Locator, Page, expect
from sklearn.metrics import adjusted_rand_score

import skipviz
from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.clustering import cluster
from skipviz.readings.clusters import reading
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.counted_runs import runs
from tests.browser.long_texts import TOKENS, long_texts
from tests.browser.resting import saved, saved_rows
from tests.browser.tracing import (
    expect_sample,
    expect_text,
    expect_titles,
    expect_upload,
    side_bar_upload,
)

RUN_SECONDS = 600_000
CLUSTERED = ".st-key-cluster_text .tokens"
"""The text of this page, which the canvas above shows too."""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files, about 5,000 tokens in all."""
    return long_texts(tmp_path_factory.mktemp("texts"))


def trace_files(page: Page, url: str, paths: list[Path]) -> None:
    page.goto(url)
    expect(page.get_by_role("button", name="Trace the text")).to_be_visible(timeout=RUN_SECONDS)
    page.get_by_test_id("stButtonGroup").get_by_text("Upload").click()
    side_bar_upload(page).set_input_files(paths)
    expect_upload(page)
    page.get_by_role("button", name="Trace the text").click()
    if len(paths) == 1:
        expect_text(page, paths[0].read_text("utf-8"))
    else:
        expect_titles(page, [path.name for path in paths])


def lit(page: Page) -> set[int]:
    """The tokens of the text that are not faint."""
    spans = page.locator(f"{CLUSTERED} span:not(.faint)")
    return {int(token) for token in spans.evaluate_all("s => s.map(e => e.dataset.token)")}


def of_cluster(clusters: Clusters, trace: skipviz.Trace, number: int) -> set[int]:
    """The first tokens of each group that share characters, of a cluster by any of them."""
    table = trace.tokens.select("token", "span").with_columns(clusters.tokens["cluster"])
    first = table.with_columns(pl.col("token").first().over("span"))
    return set(first.filter(cluster=number)["token"])


def map_of(page: Page) -> Locator:
    return page.get_by_test_id("stPlotlyChart").first


def points_area(page: Page) -> tuple[float, float, float, float]:
    """Where the map's points are: x, y, width and height, once it is drawn and in view.

    A selection draws the map anew, some time after the page has answered: what was its area is
    then no longer on the page, so it is looked for until it is found twice in the same place.
    """
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_visible()
    map_of(page).scroll_into_view_if_needed()
    area = map_of(page).locator(".nsewdrag").first
    before = None
    for _ in range(60):
        box = area.bounding_box()
        if box is not None and box == before:
            return box["x"], box["y"], box["width"], box["height"]
        before = box
        page.wait_for_timeout(500)
    raise AssertionError("the map does not come to rest")


@pytest.mark.long
def test_clusters_of_five_thousand_tokens(
    page: Page, counted_url: str, texts: list[Path], screenshot: Screenshot, page_log: PageLog
) -> None:
    """What is shown is the engine's; map and text light each other up; no model runs again."""
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{counted_url}/clusters")
    expect_sample(page)
    trace_files(page, counted_url, texts)
    trace = skipviz.Trace.load(saved(page, "Trace", exact=True))
    assert len(trace) == pytest.approx(TOKENS, rel=0.2)
    page.get_by_role("link", name="Clusters").click()
    page.get_by_role("button", name="Find clusters").click()
    expect(page.get_by_text("What the tokens have in common")).to_be_visible(timeout=RUN_SECONDS)
    before = runs(page)
    assert before > 0

    wanted = cluster(trace)
    shown = Clusters.load(saved(page, "The clusters, to assign other texts to"))
    assert shown.count == wanted.count
    assert shown.tokens.equals(wanted.tokens)
    expect(page.get_by_text(reading(wanted))).to_be_visible()
    rows = saved_rows(page, "Clusters of tokens")
    assert [int(row["cluster"]) for row in rows] == wanted.tokens["cluster"].to_list()
    assert [json.loads(row["text"]) for row in rows] == trace.tokens["text"].to_list()
    expect(page.locator(f"{CLUSTERED} h4")).to_have_text([path.name for path in texts])
    screenshot(page, "clusters-long")

    # A cluster lights up in the text.
    page.get_by_role("radio", name="cluster 1", exact=True).click()
    some = of_cluster(wanted, trace, 1)
    expect(page.locator(f"{CLUSTERED} span:not(.faint)")).to_have_count(len(some))
    assert lit(page) == some
    page.get_by_role("radio", name="all tokens").click()
    expect(page.locator(f"{CLUSTERED} span.faint")).to_have_count(0)

    # What a box on the map holds lights up in the text, and in nothing else.
    x, y, width, height = points_area(page)
    page.mouse.move(x + 0.02 * width, y + 0.02 * height)
    page.mouse.down()
    page.mouse.move(x + 0.3 * width, y + 0.6 * height, steps=4)
    page.mouse.move(x + 0.4 * width, y + 0.98 * height, steps=4)
    page.mouse.up()
    said = page.get_by_text(re.compile("tokens are highlighted in the text"))
    expect(said).to_be_visible(timeout=RUN_SECONDS)
    boxed = lit(page)
    assert 0 < len(boxed) < trace.tokens["span"].n_unique()
    count = int(said.inner_text().split(" of ")[0].replace(",", ""))
    assert len(boxed) <= count

    # A token of the text is ringed on the map.
    page.locator(f"{CLUSTERED} span").nth(5).click()
    row = wanted.tokens.row(5, named=True)
    expect(page.get_by_text(re.compile(f"^Token 5, .*: cluster {row['cluster']}"))).to_be_visible()
    expect(map_of(page).get_by_text("selected token")).to_be_visible()
    assert lit(page) == boxed, "the box still holds"
    screenshot(page, "clusters-long-selected")
    page.get_by_role("button", name="Clear the selection").click()
    expect(page.locator(f"{CLUSTERED} span.faint")).to_have_count(0)

    page.get_by_role("link", name="Layers").click()
    page.get_by_role("link", name="Clusters").click()
    expect(page.get_by_text("What the tokens have in common")).to_be_visible()
    assert runs(page) == before, "looking at clusters runs no model"


def test_a_text_goes_to_clusters_of_a_file(
    page: Page, url: str, tmp_path: Path, screenshot: Screenshot
) -> None:
    page.emulate_media(color_scheme="dark")
    sample = (files("skipviz.app") / "samples" / "prose.txt").read_text("utf-8")
    text = tmp_path / "<b>short & sweet.txt"
    text.write_text(sample, encoding="utf-8")
    trace_files(page, url, [text])
    trace = skipviz.Trace.load(saved(page, "Trace", exact=True))
    made = cluster(trace, clusters=3)
    made.save(tmp_path / "made.parquet")
    trace.save(tmp_path / "trace.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no table")

    page.get_by_role("link", name="Clusters").click()
    page.get_by_text("From a file", exact=True).click()
    chooser = page.get_by_test_id("stMain").get_by_test_id("stFileUploaderDropzoneInput")
    for name, sentence in (
        ("broken.parquet", "broken.parquet cannot be read as clusters"),
        (
            "trace.parquet",
            "trace.parquet cannot be read as clusters: It is a Parquet file of another kind",
        ),
    ):
        chooser.set_input_files(tmp_path / name)
        # The sentence on the file before goes once the page knows of this one.
        expect(page.get_by_text("cannot be read as clusters")).to_have_count(0)
        page.get_by_role("button", name="Assign this text").click()
        expect(page.get_by_text(sentence)).to_be_visible(timeout=RUN_SECONDS)
    chooser.set_input_files(tmp_path / "made.parquet")
    expect(page.get_by_text("cannot be read as clusters")).to_have_count(0)
    page.get_by_role("button", name="Assign this text").click()
    expect(page.get_by_text("were assigned to the nearest of 3 clusters")).to_be_visible(
        timeout=RUN_SECONDS
    )
    rows = saved_rows(page, "Clusters of tokens")
    labels = [int(row["cluster"]) for row in rows]
    assert adjusted_rand_score(labels, made.tokens["cluster"]) == 1
    assert labels == made.tokens["cluster"].to_list()
    # A click on a token counts, also a second one after another was selected on the canvas.
    for text, number in ((CLUSTERED, 5), (".st-key-workbench .tokens", 9), (CLUSTERED, 5)):
        expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached()
        page.locator(f"{text} #token-{number}").click()
        expect(page.get_by_text(re.compile(f"^Token {number}, .*: cluster"))).to_be_visible()
        selected = page.locator(".st-key-workbench .tokens span.selected")
        expect(selected).to_have_id(f"token-{number}")
    screenshot(page, "clusters-file-dark")
    page.set_viewport_size({"width": 420, "height": 900})
    expect(page.get_by_text("What the tokens have in common")).to_be_visible()
    screenshot(page, "clusters-dark-narrow")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
