"""A conversation that was uploaded is traced as the model's chat template writes it."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.jobs import Request, kept_result
from skipviz.errors import InputError
from skipviz.experiments.checkup.running import short_text
from skipviz.experiments.robustness.context_and_batch import batch_changes, context_changes
from skipviz.experiments.robustness.surface import surface_changes
from skipviz.text.documents import Document, read_bytes
from tests import tiny
from tests.app.pages import PATIENCE, framed, until
from tests.folders import write_gated

MESSAGES = [{"role": "user", "content": "Why? 🦊"}, {"role": "assistant", "content": "Nobody."}]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
ROWS = "\n".join(map(json.dumps, ({"messages": MESSAGES}, {"text": tiny.TEXT}))).encode()


@pytest.fixture
def folder(tmp_path: Path, dense_folder: Path) -> Path:
    """Gates, and a backbone whose tokenizer has no chat template yet."""
    return write_gated(tmp_path / "tiny-gated", backbone=dense_folder)


@pytest.fixture
def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The app with rows that were uploaded, a conversation and a text."""
    file = SimpleNamespace(name="rows.jsonl", file_id="1", getvalue=lambda: ROWS)
    monkeypatch.setattr(
        streamlit, "file_uploader", lambda *_, key, **__: [file] if key == "files" else None
    )
    shown = AppTest.from_function(framed, args=("paths_page",)).run(timeout=PATIENCE)
    shown.button_group(key="kind").set_value("Upload")
    shown.selectbox(key="model").set_value("A folder on this machine")
    shown.run(timeout=PATIENCE)
    shown.text_input(key="folder").set_value(str(folder))
    shown.run(timeout=PATIENCE)
    return shown


@pytest.mark.slow
def test_an_uploaded_conversation_goes_through_the_chat_template(
    page: AppTest, folder: Path, dense_folder: Path
) -> None:
    (dense_folder / "chat_template.jinja").write_text(TEMPLATE)
    assert any("About 25 tokens" in each.value for each in page.caption)
    page.button(key="run").click()
    page.run(timeout=PATIENCE)
    runs = page.session_state["skipviz"].runs
    until(page, lambda: not runs["paths"].under_way)
    assert not page.error
    found = kept_result(runs["paths"].job)
    loaded = skipviz.load(folder)
    wanted = [skipviz.trace(loaded, MESSAGES), skipviz.trace(loaded, tiny.TEXT)]
    ids = [token for each in wanted for token in each.tokens["token_id"]]
    assert found.tokens["token_id"].to_list() == ids
    assert found.tokens["source"].unique(maintain_order=True).to_list() == [
        "rows.jsonl:1", "rows.jsonl:2",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_model_without_a_template_says_so(page: AppTest) -> None:
    page.button(key="run").click()
    until(page, lambda: page.error)
    assert "has no chat template" in page.error[0].value.replace("\\", "")


def test_what_changes_words_refuses_conversations(gated: skipviz.SkipModel) -> None:
    documents = read_bytes(ROWS, name="rows.jsonl", limit=None)
    for change in (surface_changes, context_changes, batch_changes):
        with pytest.raises(InputError, match=r"rows\.jsonl:1 is a conversation"):
            change(gated, documents)


def test_two_conversations_of_one_name_are_two_requests() -> None:
    requests = [
        Request(model="smollm2-gated", documents=(Document("a", "", messages=tuple(messages)),))
        for messages in (MESSAGES, MESSAGES[:1])
    ]
    assert len({each.key for each in requests}) == 2
    assert [each.effort.size for each in requests] == [13, 6]


def test_a_check_up_runs_what_the_template_writes(gated: skipviz.SkipModel) -> None:
    document = Document("a", "", messages=tuple(MESSAGES))
    with pytest.raises(InputError, match="has no chat template"):
        short_text(gated, document)
    tokenizer = copy.deepcopy(gated.tokenizer)
    tokenizer.chat_template = TEMPLATE
    chatting = dataclasses.replace(gated, tokenizer=tokenizer)
    wanted = skipviz.trace(chatting, MESSAGES).tokens["token_id"].to_list()
    assert short_text(chatting, document)[0].tolist() == wanted
    with pytest.raises(InputError, match="empty or blank"):
        short_text(gated, "")
