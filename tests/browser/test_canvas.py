"""The canvas in a real browser, with planted numbers, so that no model has to be run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from skipviz.plots.style.palette import CIVIDIS, RAMPS, interpolate, shares_along
from tests.browser.canvas_app import TRACES, planted
from tests.browser.conftest import Screenshot, Serve

LEFT, TOP, ROW = 46, 4, 52 / 6
"""Where the map begins, and how high each of six layers is, in pixels."""
PATIENCE = 60_000
"""Milliseconds; a busy machine takes its time to serve a first page."""
TRACE = TRACES["one"]


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    """The address of the canvas alone."""
    root = str(Path(__file__).parents[2])
    with serve(Path(__file__).parent / "canvas_app.py", {"PYTHONPATH": root}) as address:
        yield address


def opened(page: Page, url: str, query: str = "") -> Page:
    page.goto(f"{url}/{query}")
    expect(page.locator(".tokens span").first).to_be_visible(timeout=PATIENCE)
    return page


def token(page: Page, number: int) -> Locator:
    return page.locator(f".tokens #token-{number}")


def expect_told(page: Page, words: str) -> None:
    """Wait until Python has been told what is selected."""
    said = re.compile(f"^{re.escape(words)}")
    expect(page.get_by_test_id("stText")).to_have_text(said, timeout=PATIENCE)


def show(page: Page, name: str) -> None:
    """Show another text, and wait until it is there."""
    page.get_by_test_id("stRadio").get_by_text(name).click()
    expect(page).to_have_url(re.compile(f"trace=hash-{name}"), timeout=PATIENCE)


def colour(page: Page, number: int) -> list[int]:
    shown = token(page, number).evaluate("span => getComputedStyle(span).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", shown)[:3]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_lens_paints_in_the_colours_of_the_palette(page: Page, url: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    opened(page, url)
    page.get_by_label("scale to this text").uncheck()
    used = TRACE.tokens["layers_used"].to_numpy().astype(float)
    expected = interpolate(CIVIDIS, shares_along(used, (2.0, 6.0)))
    for number in (0, 3, 7):
        np.testing.assert_allclose(colour(page, number), expected[number], atol=1)
    token(page, 7).click()
    page.get_by_test_id("stCheckbox").locator("label").first.click()
    choice = page.get_by_label("Colour the text by")
    expect(choice.locator("option").last).to_have_text("planted", timeout=PATIENCE)
    expect(token(page, 7)).to_have_class(re.compile("selected"))  # a new lens leaves it selected
    choice.select_option("planted")
    values = np.nan_to_num(planted().values).astype(float)
    expected = interpolate(RAMPS["change"][theme], shares_along(values, (-4.0, 4.0)))
    for number in (0, 21, 58):
        np.testing.assert_allclose(colour(page, number), expected[number], atol=1)
    expect(token(page, 59)).to_have_class(re.compile("unknown"))
    expect(page.locator(".legend")).to_contain_text("unknown: 1")
    page.get_by_label("scale to this text").check()
    expect(page.locator(".legend")).to_contain_text("or more")


@pytest.mark.parametrize("name", ["one", "few"])
def test_the_names_of_panels_of_few_layers_are_there_whole(
    page: Page, url: str, name: str, screenshot: Screenshot
) -> None:
    opened(page, url)
    if name != "one":
        show(page, name)
    screenshot(page, f"canvas-{name}-layers")
    ink = page.locator("canvas.map").evaluate(INK)
    assert not ink[0], "a name ends at the edge of the map"
    panels = TRACES[name].sites["unit"].n_unique()
    for place in range(1, panels + 1):
        below = TOP + place * 52 + (place - 1) * 12
        assert any(ink[below - 52 : below]), "a panel has no name"
        assert not all(ink[below : below + 12]), "a name goes on into the next panel"


INK = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, 26, canvas.height - 20);
  const row = (y) => data.subarray(y * 104, y * 104 + 104);
  return Array.from({ length: canvas.height - 20 }, (_, y) => row(y).some((each) => each));
}"""
"""Whether there is anything in each row of pixels beside the panels, above the names of tokens."""


def test_numbers_of_a_users_own_keep_their_digits(page: Page, url: str) -> None:
    opened(page, url)
    page.get_by_test_id("stCheckbox").locator("label").first.click()
    choice = page.get_by_label("Colour the text by")
    expect(choice.locator("option", has_text="day (own)")).to_be_attached(timeout=PATIENCE)
    choice.select_option("day-own")
    token(page, 7).click()
    panel = page.get_by_role("region", name="Selected token", exact=True)
    expect(panel).to_contain_text("day (own)20,260,102.75")
    page.get_by_label("scale to this text").uncheck()
    expect(page.locator(".legend")).to_contain_text("20,260,101")
    expect(page.locator(".legend")).to_contain_text("20,260,115.5")
    page.get_by_label("scale to this text").check()
    expect(page.locator(".legend")).to_contain_text("20,260,101.73 or less")
    expect(page.locator(".legend")).to_contain_text("20,260,114.77 or more")
    expect(page.locator(".legend")).to_contain_text("unknown: 1")


def test_the_panel_says_what_the_trace_says(page: Page, url: str) -> None:
    opened(page, url)
    number, site = 10, 5
    box = page.locator("canvas.map").bounding_box()
    assert box is not None
    cell = min(14, (box["width"] - LEFT - 4) / len(TRACE))
    layer = TRACE.sites["layer"][site]
    below = (TRACE.run["layers"].item() - layer - 0.5) * ROW
    mlp = TRACE.run["layers"].item() * ROW + 12
    page.locator("canvas.map").click(
        position={"x": LEFT + (number + 0.5) * cell, "y": TOP + mlp + below}
    )
    expect_told(page, f"token {number} site {site}")
    panel = page.get_by_role("region", name="Selected token", exact=True)
    row = TRACE.tokens.row(number, named=True)
    expect(panel).to_contain_text(f"Layers used{row['layers_used']:g} of 6")
    expect(panel).to_contain_text(f"Loss on next{row['nll']:.2f} nats")
    expect(panel).to_contain_text(f"Surprisal{row['surprisal']:.2f} nats")
    ran = "ran" if TRACE.matrix("exec_count")[number, site] else "skipped"
    expect(panel.locator(".cell-words")).to_contain_text(f"{TRACE.sites['label'][site]}: {ran}.")
    panel.locator("summary").click()
    expect(panel.locator(".sites tr")).to_have_count(1 + TRACE.sites.height)  # written when opened
    rows = panel.locator(".sites tr").all_inner_texts()[1:]
    assert len(rows) == TRACE.sites.height
    for place, line in enumerate(rows):
        label, decision, score, threshold = line.split("\t")
        assert label == TRACE.sites["label"][place]
        assert decision == ("ran" if TRACE.matrix("exec_count")[number, place] else "skipped")
        assert float(score) == pytest.approx(TRACE.matrix("score")[number, place], abs=0.01)
        assert float(threshold) == pytest.approx(TRACE.matrix("threshold")[number, place], abs=0.01)
    shares = [float(each.split("%")[0]) for each in panel.locator(".share").all_inner_texts()]
    assert shares == pytest.approx([100 * share for share in row["top_probs"]], abs=0.06)


def test_search_range_and_pins(
    page: Page, url: str, elsewhere: Page, screenshot: Screenshot
) -> None:
    opened(page, url)
    page.get_by_label("Search the text").fill("FOX <b")  # over the border of two tokens
    expect(page.locator(".hit-count")).to_have_text("5 hits")
    page.get_by_label("Search the text").press("Enter")
    page.get_by_label("Search the text").press("Enter")
    expect(page.locator(".hit-count")).to_have_text("2 of 5")
    expect_told(page, "token 15")
    page.get_by_label("Search the text").press("Shift+Enter")
    expect_told(page, "token 1 ")
    first, last = token(page, 2).bounding_box(), token(page, 7).bounding_box()
    assert first is not None
    assert last is not None
    page.mouse.move(first["x"] + 4, first["y"] + 8)
    page.mouse.down()
    page.mouse.move(last["x"] + 4, last["y"] + 8, steps=3)
    page.mouse.up()
    expect(page.get_by_role("button", name="Take back the range")).to_contain_text("Tokens 2 to 7")
    expect_told(page, "token 1 site None range (2, 7)")
    for number in (1, 8, 10, 16):
        token(page, number).click(modifiers=["Shift"])
    chips = page.locator(".chip")
    expect(chips).to_have_count(5)
    token(page, 20).click(modifiers=["Shift"])  # the oldest goes
    expect(page.locator(".numbers .badge")).to_have_text(["1", "2", "3", "4"])
    screenshot(page, "canvas-pins")
    assert page.url.endswith("?trace=hash-one&token=1&range=2-7&pins=8.10.16.20")
    page.reload()
    expect(chips).to_have_count(5)
    expect_told(page, "token 1 site None range (2, 7)")
    elsewhere.goto(page.url)
    expect_told(elsewhere, "token 1 site None range (2, 7)")
    expect(elsewhere.locator(".numbers .badge")).to_have_text(["1", "2", "3", "4"])
    page.get_by_role("button", name="Unpin token 10").click()
    page.get_by_role("button", name="Clear the range").click()  # elsewhere on the page
    expect(chips).to_have_count(3)
    expect_told(page, "token 1 site None range None")
    page.locator(".tokens").press("Shift+ArrowRight")
    expect_told(page, "token 1 site None range (1, 2)")
    page.get_by_role("button", name="Take back the range").click()
    expect_told(page, "token 1 site None range None")  # and never of the pins
    for _ in range(2):
        page.locator(".tokens").press("Escape")
    expect_told(page, "token None site None")
    expect(chips).to_have_count(0)
    assert page.url.endswith("?trace=hash-one")


@pytest.mark.parametrize(
    ("query", "pins"),
    [("range=7-2&pins=8.x", 1), ("range=2-60&pins=-1", 0), ("range=2-&pins=1.1.99999999999", 1)],
)
def test_an_address_with_what_the_text_has_not_chooses_nothing(
    page: Page, url: str, query: str, pins: int
) -> None:
    opened(page, url, f"?trace=hash-one&{query}")
    expect_told(page, "token None site None range None")
    expect(page.locator(".chip")).to_have_count(pins)
    expect(page).not_to_have_url(re.compile("range="))


def test_going_back_takes_back_a_range_and_pins(page: Page, url: str) -> None:
    opened(page, url)
    token(page, 3).click()
    expect_told(page, "token 3")
    token(page, 7).click()
    expect_told(page, "token 7")
    token(page, 10).click(modifiers=["Shift"])
    page.locator(".tokens").press("Shift+ArrowRight")
    expect_told(page, "token 7 site None range (7, 8)")
    page.go_back()
    expect_told(page, "token 3 site None range None")
    expect(page.locator(".chip")).to_have_count(0)
    page.go_forward()
    expect_told(page, "token 7 site None range (7, 8)")
    expect(page.locator(".chip")).to_have_count(2)


def test_what_was_asked_for_is_shown_and_the_address_names_it(page: Page, url: str) -> None:
    opened(page, url)
    choice, found = page.get_by_label("Colour the text by"), page.get_by_text("A lens just found")
    choice.select_option("entropy")
    expect(page).to_have_url(re.compile("lens=entropy"))
    found.click()
    expect(choice).to_have_value("just-found", timeout=PATIENCE)
    expect(page).to_have_url(re.compile("lens=just-found"))  # it names what is shown
    page.goto(f"{url}/?lens=entropy")
    expect(choice).to_have_value("entropy", timeout=PATIENCE)


def test_a_decision_answers_what_its_flip_would_do(
    page: Page, url: str, screenshot: Screenshot
) -> None:
    sizes: list[int] = []
    page.on("websocket", lambda socket: socket.on(
        "framereceived", lambda frame: sizes.append(len(frame))))  # fmt: skip
    opened(page, url)
    token(page, 10).click()
    page.locator(".tokens").press("]")
    expect_told(page, "token 10 site 0")
    whole = max(sizes)  # the canvas with its trace
    sizes.clear()
    page.get_by_role("button", name="What would a flip do?").click()
    flip = page.locator(".panel .flip")
    expect(flip).to_contain_text("Skipping it would raise the loss.", timeout=PATIENCE)
    expect(page.locator(".map-head")).to_contain_text("shaded: can depend on the flip")
    expect(page.locator(".map-head")).to_contain_text("diamond: changes with it")
    screenshot(page, "canvas-flip")
    page.locator(".tokens").press("]")  # another decision, of which nothing is known
    expect(page.get_by_role("button", name="What would a flip do?")).to_be_visible()
    expect(page.locator(".map-head")).not_to_contain_text("shaded")
    page.locator(".tokens").press("[")
    expect(flip).to_contain_text("Skipping it would raise the loss.")
    page.get_by_test_id("stCheckbox").locator("label").first.click()
    expect(page.get_by_label("Colour the text by").locator("option").last).to_have_text("planted")
    assert sum(sizes) < whole / 2, "the trace is not sent again"


def test_going_back_undoes_a_selection(page: Page, url: str) -> None:
    opened(page, url, "?trace=hash-one&other=a%20b")
    token(page, 3).click()
    expect_told(page, "token 3")
    # Keys in a row are one place in the history.
    page.locator(".tokens").evaluate(
        "text => { for (let i = 0; i < 4; i++) text.dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true })); }"
    )
    expect_told(page, "token 9")
    # What others keep in the address stays as it is written.
    assert page.url.endswith("?other=a%20b&trace=hash-one&token=9")
    page.go_back()
    expect_told(page, "token 3")
    expect(token(page, 3)).to_have_class(re.compile("selected"))
    page.go_back()
    expect_told(page, "token None")
    page.go_forward()
    expect_told(page, "token 3")
    page.locator(".tokens").press("]")
    expect_told(page, "token 3 site 0")
    page.get_by_label("Colour the text by").select_option("entropy")
    page.reload()
    expect_told(page, "token 3 site 0")
    expect(page.get_by_label("Colour the text by")).to_have_value("entropy")


def test_an_address_of_another_text_selects_nothing(page: Page, url: str) -> None:
    opened(page, url, "?trace=hash-two&token=3&site=L1.mlp")
    expect_told(page, "token None site None")
    expect(page).to_have_url(re.compile(r"\?trace=hash-one$"))
    show(page, "two")
    token(page, 7).click()
    expect_told(page, "token 7")
    show(page, "one")
    expect_told(page, "token None")
    expect(page.locator(".tokens span.selected")).to_have_count(0)
    show(page, "two")  # as it was left
    expect_told(page, "token 7")
    expect(page.locator(".tokens span.selected")).to_have_id("token-7")


def test_what_a_page_asks_for_is_selected_once(page: Page, url: str) -> None:
    """Also where somebody selects another token before Python has been told."""
    opened(page, url)
    page.locator(".tokens").evaluate(
        """tokens => {
            const find = (number) => tokens.querySelector("#token-" + number);
            new MutationObserver((_, watch) => {
                if (!find(30).classList.contains("selected")) return;
                watch.disconnect();
                find(12).click();
            }).observe(find(30), { attributeFilter: ["class"] });
        }"""
    )
    page.get_by_role("button", name="Ask for token 30").click()
    expect(page.get_by_test_id("stText")).to_have_text(
        "token 12 site None range None", timeout=PATIENCE
    )
    show(page, "two")
    token(page, 7).click()
    expect_told(page, "token 7")
    show(page, "one")
    expect(page.locator(".tokens span.selected")).to_have_id("token-12")
    expect_told(page, "token 12")
    page.get_by_role("button", name="Ask for token 30").click()
    expect_told(page, "token 30")
    expect(page.locator(".tokens span.selected")).to_have_id("token-30")


def test_keys_are_explained_and_the_canvas_can_be_put_away(page: Page, url: str) -> None:
    opened(page, url)
    page.locator(".tokens").press("?")
    expect(page.get_by_role("dialog", name="Keys and help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Most skipped").click()
    least = int(TRACE.tokens["layers_used"].arg_min() or 0)
    expect_told(page, f"token {least}")
    page.get_by_role("button", name="Hide text and map").click()
    expect(page.locator(".tokens")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("button", name="Show text and map")).to_be_visible()
    expect(page.locator(".tokens")).to_be_hidden()
