"""Names and texts are shown as they are on every page, whatever is written in them."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import streamlit
from google.protobuf.message import Message
from markdown_it import MarkdownIt
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import how_far
from skipviz.app.worker import Job
from tests import tiny
from tests.folders import write_gated
from tests.synthetic import make_trace

HOSTILE = (
    "![x](http://e/x.png) **bold** $x^2$ :red[a] :smile: <script>alert(1)</script> =1+1 \x1b[31m"
)
MARKS = (
    "![x](", "**bold**", "$x^2$", ":red[a]", ":smile:", "<script>", "http://e",
)  # fmt: skip
"""What Markdown would take for a picture, bold letters, a formula, a colour, an icon or HTML."""
PATIENCE = 120
TEXT_ONLY = (
    "text", "code", "arrow_data_frame", "json", "plotly_chart", "iframe", "bidi_component",
    "text_input", "text_area", "component_instance",
)  # fmt: skip
"""Elements whose content is never Markdown; of inputs, the labels are ours."""
NOT_SHOWN = frozenset({
    "id", "element_id", "key", "value", "default", "options", "raw_values", "string_value", "url",
    "form_id", "group_id", "user_key", "deferred_file_id", "fragment_id", "choices", "set_value",
})  # fmt: skip
"""Fields that hold what is not shown, or lists that are shown as text."""


def page_under_test() -> None:
    """The script: the page that the session names."""
    import importlib

    import streamlit as st

    from skipviz.app.frame.frame import draw_in_frame

    name = st.session_state["page under test"]
    draw_in_frame(importlib.import_module(f"skipviz.app.views.{name}_page").page, lambda _: None)


PAGES = (
    "paths", "what_if", "generate", "audit", "attribution", "clusters", "layers", "robustness",
    "policies", "cost", "checkup", "compare",
)  # fmt: skip


def strings(message: Message) -> Iterator[tuple[str, str]]:
    """Yield every string in a message that may be shown, with the name of its field."""
    for field, value in message.ListFields():
        if field.name in NOT_SHOWN or field.name in TEXT_ONLY:
            continue
        several = value if field.is_repeated and not hasattr(value, "items") else [value]
        for each in several:
            if isinstance(each, Message):
                yield from strings(each)
            elif isinstance(each, str):
                yield field.name, each


def shown(node: Any) -> Iterator[tuple[str, str]]:
    """Yield every string of a page that may be taken for Markdown."""
    proto = getattr(node, "proto", None)
    kind = getattr(node, "type", "")
    if isinstance(proto, Message) and kind not in TEXT_ONLY:
        for field, value in strings(proto):
            yield f"{kind}.{field}", value
    for child in getattr(node, "children", {}).values():
        yield from shown(child)


def of_the_page(page: AppTest) -> list[tuple[str, str]]:
    assert not page.exception, page.exception[0].message
    return list(shown(page._tree))


def check(page: AppTest) -> str:
    """Check that nothing on the page is more than text; return all of it."""
    found = of_the_page(page)
    for place, value in found:
        marks = ("<script>",) if place.startswith("html.") else MARKS
        wrong = [mark for mark in marks if mark in value]
        assert not wrong, f"{place}: {value:.400}"
    return "\n".join(value for _, value in found)


def press(page: AppTest, key: str) -> AppTest:
    page.button(key=key).click()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        page.run(timeout=PATIENCE)
        check(page)
        if not any(button.label == "Stop" for button in page.button):
            return page
        time.sleep(0.2)
    raise TimeoutError("The run did not end.")


def upload(name: str, data: bytes, id_: str) -> UploadedFile:
    return UploadedFile(UploadedFileRec(id_, name, "application/octet-stream", data), FileURLs())


def saved(trace: skipviz.Trace) -> bytes:
    buffer = io.BytesIO()
    trace.save(buffer)
    return buffer.getvalue()


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each file uploader holds, by its key."""
    held: dict[str, Any] = {}
    monkeypatch.setattr(
        streamlit,
        "file_uploader",
        lambda *_, key, accept_multiple_files=False, **__: held.get(
            key, [] if accept_multiple_files else None
        ),
    )
    return held


@pytest.fixture
def hostile() -> skipviz.Trace:
    """A trace whose every name is hostile, of a model that is not here."""
    trace = make_trace(tokens=120, sequences=1, model=HOSTILE, policy=HOSTILE)
    run = trace.run.with_columns(
        pl.lit(HOSTILE).alias(name)
        for name in ("family", "runtime", "dtype", "device", "skipviz_version")
    )
    return dataclasses.replace(
        trace, run=run, tokens=trace.tokens.with_columns(source=pl.lit(HOSTILE))
    )


def opened(trace: skipviz.Trace, uploads: dict[str, Any]) -> AppTest:
    """The app with a trace that was uploaded."""
    uploads["stored"] = upload(f"{HOSTILE}.parquet", saved(trace), "1")
    page = AppTest.from_function(page_under_test)
    page.session_state["page under test"] = "paths"
    page.run(timeout=PATIENCE)
    page.button_group(key="kind").set_value("Trace")
    page.run(timeout=PATIENCE)
    check(page)
    page.button(key="show").click()
    page.run(timeout=PATIENCE)
    return page


def literally(words: str) -> str:
    """What Markdown makes of words, as text."""
    blocks = MarkdownIt("commonmark").parse(words)
    parts = [part for block in blocks for part in block.children or []]
    return "".join(part.content for part in parts).replace("\u2060", "")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_the_names_in_a_trace_are_text(
    name: str, hostile: skipviz.Trace, uploads: dict[str, Any]
) -> None:
    page = opened(hostile, uploads)
    page.session_state["page under test"] = name
    page.run(timeout=PATIENCE)
    words = check(page)
    if name in ("paths", "audit", "attribution", "checkup"):
        assert "![x](http://e/x.png) **bold** $x^2$ :red[a]" in literally(words)
    for key in [button.key for button in page.button if str(button.key).startswith("try ")]:
        press(page, key)  # the model is not here: a sentence names it


@pytest.mark.slow
@pytest.mark.long
def test_files_and_folders_that_are_uploaded_or_named_are_text(uploads: dict[str, Any]) -> None:
    uploads["stored"] = upload(f"{HOSTILE}.parquet", saved(make_trace(tokens=0)), "2")
    page = AppTest.from_function(page_under_test)
    page.session_state["page under test"] = "paths"
    page.run(timeout=PATIENCE)
    page.button_group(key="kind").set_value("Trace")
    assert "contains a trace of 0 tokens" in check(page.run(timeout=PATIENCE))
    uploads["files"] = [upload(f"{HOSTILE}.txt", b"\x89PNG\r\n\x1a\n", "3")]
    page.button_group(key="kind").set_value("Upload")
    words = check(page.run(timeout=PATIENCE))
    assert f"{HOSTILE}.txt is not text" in literally(words).replace("�", "")
    uploads["files"] = [upload(f"{HOSTILE}.txt", HOSTILE.encode(), "4")]
    page.selectbox(key="model").set_value("A folder on this machine")
    page.run(timeout=PATIENCE)
    page.text_input(key="folder").set_value(f"/{HOSTILE}")
    check(page.run(timeout=PATIENCE))
    assert "is not" in literally(check(press(page, "run"))) or page.error


@pytest.mark.slow
@pytest.mark.long
def test_a_folder_and_its_thresholds_are_text(
    tmp_path: Path, dense_folder: Path, uploads: dict[str, Any]
) -> None:
    place = tmp_path / HOSTILE.replace("/", "")
    write_gated(place, backbone=dense_folder)
    (place / "thresholds.json").write_text(f'{{"weights": {HOSTILE!r}}}')
    page = AppTest.from_function(page_under_test)
    page.session_state["page under test"] = "paths"
    page.run(timeout=PATIENCE)
    page.selectbox(key="model").set_value("A folder on this machine")
    page.run(timeout=PATIENCE)
    page.text_input(key="folder").set_value(str(place))
    page.text_area(key="pasted").set_value(f"{HOSTILE} {tiny.TEXT}")
    page.run(timeout=PATIENCE)
    press(page, "run")
    assert "does not hold thresholds" in literally(check(page))
    (place / "thresholds.json").unlink()
    press(page, "run")
    words = check(page)
    assert "**bold** $x^2$ :red[a]" in literally(words)
    press_everything(page)
    uploads["files"] = [
        upload(f"{HOSTILE}{n}.txt", f"{HOSTILE} {tiny.TEXT}".encode(), str(n)) for n in (5, 6)
    ]
    page.session_state["page under test"] = "paths"
    page.run(timeout=PATIENCE)
    page.button_group(key="kind").set_value("Upload")
    page.run(timeout=PATIENCE)
    press(page, "run")
    assert "and 1 more" in check(page)
    press_everything(page)


def press_everything(page: AppTest) -> None:
    """Look at every page, and press every button that starts a run."""
    for name in PAGES:
        page.session_state["page under test"] = name
        page.run(timeout=PATIENCE)
        check(page)
        for key in [button.key for button in page.button if str(button.key).startswith("try ")]:
            press(page, key)


@pytest.mark.slow
@pytest.mark.long
def test_a_file_of_clusters_is_text(hostile: skipviz.Trace, uploads: dict[str, Any]) -> None:
    clusters = skipviz.cluster(hostile, clusters=2)
    clusters = dataclasses.replace(clusters, run=clusters.run.with_columns(model=pl.lit(HOSTILE)))
    made, damaged = io.BytesIO(), f"{HOSTILE}.parquet"
    clusters.save(made)
    page = opened(hostile, uploads)
    page.session_state["page under test"] = "clusters"
    page.run(timeout=PATIENCE)
    page.button_group(key="clusters_from").set_value("From a file")
    for content in (made.getvalue(), made.getvalue()[:-50]):
        uploads["clusters_file"] = upload(damaged, content, "7")
        page.run(timeout=PATIENCE)
        press(page, "try assign")
    assert "cannot be read as clusters" in literally(check(page))


@pytest.mark.parametrize("mark", MARKS)
def test_what_is_not_escaped_is_seen(mark: str) -> None:
    page = AppTest.from_string(f"import streamlit as st\nst.caption({HOSTILE!r})").run()
    assert any(mark in value for _, value in of_the_page(page))
    with pytest.raises(AssertionError, match=re.escape("**bold**")):
        check(page)


def test_a_stage_of_a_run_is_escaped_once() -> None:
    job: Job[None] = Job()
    job.begin(f"Loading {HOSTILE}")
    assert literally(plain(how_far(job, before=0))) == re.sub(r"\s+", " ", f"Loading {HOSTILE}")
