"""The page of generating, without a browser, on tiny random models."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.components.run_button import jobs
from skipviz.app.generations import WARM_UP, Written
from skipviz.app.state import StartedRun
from skipviz.app.worker import Job
from skipviz.recording.generating import generate
from tests.app.pages import PATIENCE, framed, until, until_ended
from tests.app.test_hostile_names import HOSTILE, check
from tests.folders import write_gated

PROMPT = "The quick brown"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a token take its time, as that of a larger model does."""
    told = Written.told

    def slowly(self: Written, side: Any) -> Callable[[skipviz.StreamedToken], None]:
        take = told(self, side)

        def on_token(token: skipviz.StreamedToken) -> None:
            time.sleep(0.02 if token.phase == "decode" else 0)
            take(token)

        return on_token

    monkeypatch.setattr(Written, "told", slowly)


def begun(page: AppTest) -> Any:
    """Start a long text, and return its job once something is written."""
    page.text_area(key="generate prompt").set_value(PROMPT)
    page.number_input(key="generate tokens").set_value(230)
    page.button(key="write").click().run(timeout=PATIENCE)
    job = page.session_state["skipviz"].runs["generation"].job
    end = time.monotonic() + PATIENCE
    while (job.partial is None or not job.partial.has_begun) and time.monotonic() < end:
        time.sleep(0.005)
    return job


@pytest.fixture
def folder(tmp_path: Path, dense_folder: Path) -> Path:
    return write_gated(tmp_path / "gated", backbone=dense_folder)


@pytest.fixture
def page(folder: Path) -> AppTest:
    made = AppTest.from_function(framed, args=("generate_page",)).run(timeout=PATIENCE)
    made.selectbox(key="model").set_value("A folder on this machine").run(timeout=PATIENCE)
    made.text_input(key="folder").set_value(str(folder)).run(timeout=PATIENCE)
    made.number_input(key="generate tokens").set_value(8)
    return made


def press(page: AppTest) -> str:
    """Press the button and wait for the end of the run; return what the page says."""
    page.button(key="write").click().run(timeout=PATIENCE)
    until_ended(page)
    return " ".join(each.value for each in [*page.markdown, *page.caption])


def trace_of(page: AppTest) -> skipviz.Trace:
    run = page.session_state["skipviz"].runs["paths"]
    traced: skipviz.Trace = run.job.future.result()
    return traced


def trace_another(page: AppTest) -> StartedRun:
    """Do what tracing another text does to this page, and return its run."""
    state = page.session_state["skipviz"]
    newer = StartedRun(Job(), "newer", state.runs["generation"].request)
    state.runs["paths"] = newer
    return newer


def says_that_all_show_it(page: AppTest) -> bool:
    return any(each.value == "All other pages now show this text." for each in page.caption)


def test_a_text_is_written_and_becomes_the_one_of_all_pages(page: AppTest, folder: Path) -> None:
    page.text_area(key="generate prompt").set_value(PROMPT)
    said = press(page)
    wanted = skipviz.generate(skipviz.load(folder), PROMPT, max_new_tokens=8)
    assert "The model wrote 8 tokens and used" in said
    assert ":orange-badge[computed anyway]" in said
    assert "All other pages now show this text." in said
    traced = trace_of(page)
    assert traced.tokens.equals(wanted.trace.tokens)
    assert traced.decisions.equals(wanted.trace.decisions)
    figures = {each.label: each.value for each in page.metric}
    assert figures["Tokens written"] == "8"
    mean = wanted.trace.tokens.filter(phase="decode")["layers_used"].mean()
    assert figures["Layers used, written"] == f"{mean:.1f} of 6"
    state = page.session_state["skipviz"]
    request = state.runs["paths"].request
    assert "".join(each.text for each in request.documents) == "".join(traced.tokens["text"])
    assert request.weights == skipviz.load(folder).weights_sha256
    # A text that is traced afterwards stays the current one when this page is opened again.
    newer = trace_another(page)
    page.run(timeout=PATIENCE)
    assert state.runs["paths"] is newer
    assert not says_that_all_show_it(page)


def test_the_dense_model_writes_beside_it(page: AppTest, folder: Path, dense_folder: Path) -> None:
    page.text_area(key="generate prompt").set_value(PROMPT)
    page.checkbox(key="generate dense").set_value(True)
    page.slider(key="generate temperature").set_value(0.9)
    page.number_input(key="generate seed").set_value(4)
    page.segmented_control(key="generate runtime").set_value("gathered")
    said = press(page)
    own, dense = (
        skipviz.generate(each, PROMPT, max_new_tokens=8, temperature=0.9, seed=4)
        for each in (skipviz.load(folder, runtime="gathered"), skipviz.load(dense_folder))
    )
    found = skipviz.compare_generations(own, dense)
    assert found.token is not None
    assert f"The texts part at written token {found.token + 1}" in said  # a colon is escaped
    table = page.dataframe[0].value
    assert table["tokens written"].tolist() == [len(own.written), len(dense.written)]
    assert trace_of(page).run["runtime"].item() == "gathered"


def test_both_models_have_run_before_either_is_timed(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, bool]] = []

    def noted(model: skipviz.SkipModel, ids: list[int], **options: Any) -> skipviz.Generation:
        assert len(ids) <= WARM_UP[0] or "on_token" in options
        runs.append((model.policy, "on_token" in options))
        return generate(model, ids, **options)

    monkeypatch.setattr("skipviz.app.generations.generate", noted)
    page.text_area(key="generate prompt").set_value(PROMPT * 8)
    page.checkbox(key="generate dense").set_value(True)
    said = press(page)
    assert runs == [("dense", False), ("learned", False), ("learned", True), ("dense", True)]
    assert "too few to compare their speeds" in said  # eight tokens


@pytest.mark.usefixtures("slow")
def test_a_stopped_text_is_kept(page: AppTest) -> None:
    job = begun(page)
    page.run(timeout=PATIENCE)
    page.button(key="stop generation").click()
    until_ended(page)
    assert any("it was stopped" in each.value for each in page.markdown)
    traced = trace_of(page)
    assert 0 < traced.tokens.filter(phase="decode").height < 229
    assert not job.stop.is_set()


@pytest.mark.usefixtures("slow")
def test_a_text_traced_meanwhile_stays_until_it_is_asked_for(page: AppTest) -> None:
    begun(page)
    newer = trace_another(page)
    page.run(timeout=PATIENCE)
    state = page.session_state["skipviz"]
    before = state.documents
    page.button(key="stop generation").click()
    until(page, lambda: any("it was stopped" in each.value for each in page.markdown))
    assert state.runs["paths"] is newer
    assert state.documents == before
    assert not says_that_all_show_it(page)
    page.button(key="make current").click().run(timeout=PATIENCE)
    assert says_that_all_show_it(page)
    assert trace_of(page).tokens.filter(phase="decode").height > 0


def test_a_text_stays_where_no_dense_model_is_known(page: AppTest, dense_folder: Path) -> None:
    page.text_input(key="folder").set_value(str(dense_folder)).run(timeout=PATIENCE)
    page.text_area(key="generate prompt").set_value(PROMPT)
    page.checkbox(key="generate dense").set_value(True)
    assert "The model wrote" in press(page)
    assert "The dense model wrote nothing" in page.warning[0].value
    assert "Which dense model is under" in page.warning[0].value
    assert says_that_all_show_it(page)


def test_a_chat_goes_on(page: AppTest, folder: Path, dense_folder: Path) -> None:
    (dense_folder / "chat_template.jinja").write_text(TEMPLATE)
    page.pills(key="generate kind").set_value("Chat").run(timeout=PATIENCE)
    page.text_area(key="generate message").set_value("Why?<|im_end|>")
    press(page)
    traced = trace_of(page)
    start = "<|im_start|>user\nWhy?<|im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert "".join(traced.tokens["text"]).startswith(start)
    assert sum(traced.tokens["token_id"] == 2) == 1  # what was typed is text
    chat = page.session_state["skipviz"].chat
    assert [each["role"] for each in chat] == ["user", "assistant"]
    assert page.text_area(key="generate message").value == ""
    page.text_area(key="generate message").set_value("And then?")
    press(page)
    chat = page.session_state["skipviz"].chat
    assert [each["role"] for each in chat] == ["user", "assistant", "user", "assistant"]
    page.button(key="new chat").click().run(timeout=PATIENCE)
    assert page.session_state["skipviz"].chat == ()


def test_what_cannot_be_written_is_said(
    page: AppTest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    press(page)
    assert "The text is empty or blank" in page.error[0].value
    page.pills(key="generate kind").set_value("Chat").run(timeout=PATIENCE)
    page.text_area(key="generate message").set_value("Why?")
    press(page)
    assert "has no chat template" in page.error[0].value
    page.pills(key="generate kind").set_value("Text").run(timeout=PATIENCE)
    page.text_area(key="generate prompt").set_value("word " * 300)
    press(page)
    assert "sees at most 256 at once" in page.error[0].value
    monkeypatch.setenv("SKIPVIZ_TOKENS", "12")
    page.run(timeout=PATIENCE)
    page.text_area(key="generate prompt").set_value(PROMPT)
    press(page)
    assert "this page runs at most 12 at a time" in page.error[0].value


def test_hostile_texts_are_text(page: AppTest) -> None:
    page.text_area(key="generate prompt").set_value(HOSTILE)
    press(page)
    check(page)


@pytest.mark.usefixtures("slow")
def test_a_run_whose_page_is_closed_stops(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begun(page)
    began = time.monotonic()
    monkeypatch.setattr(jobs()._worker, "_present", lambda _: False)
    job.future.exception(timeout=PATIENCE)
    assert job.stop.is_set()
    assert time.monotonic() - began < 2
    written = len(job.partial.tokens["own"])
    time.sleep(0.3)
    assert len(job.partial.tokens["own"]) == written < 230
