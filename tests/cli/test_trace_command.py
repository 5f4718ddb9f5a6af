from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import skipviz
import skipviz.corpora.held_out
import skipviz.recording.tracing
import skipviz.training.choices
import skipviz.training.finish
import skipviz.training.prepare
from tests import tiny
from tests.cli.runner import TEXTS, run, sentence


def test_csv_holds_every_decision_of_every_file(tmp_path: Path, model: Path, text: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS[1:]), encoding="utf-8")
    target, whole = tmp_path / "out.csv", tmp_path / "out.parquet"
    outcome = run("trace", text, rows, "--model", model, "--csv", target, "--parquet", whole)
    assert outcome.exit_code == 0, outcome.output
    expected = skipviz.trace(
        skipviz.load(model),
        [
            skipviz.Document(source, text)
            for source, text in zip(
                ("notes.txt", "rows.jsonl:1", "rows.jsonl:2"), TEXTS, strict=True
            )
        ],
    )
    long = expected.to_long()
    found = pl.read_csv(target, schema=long.schema).with_columns(
        pl.col("text", "source").map_elements(lambda cell: json.loads(cell), return_dtype=pl.String)
    )
    assert found.equals(long)
    assert skipviz.Trace.load(whole).to_long().equals(long)
    assert f"{len(expected):,} tokens" in outcome.stderr
    assert not list(tmp_path.glob("*.partial"))


def test_standard_input_to_standard_output(tmp_path: Path, model: Path) -> None:
    outcome = run("trace", "-", "--model", model, "--csv", "-", stdin=tiny.TEXT.encode())
    assert outcome.exit_code == 0, outcome.output
    expected = io.BytesIO()
    skipviz.trace(skipviz.load(model), skipviz.Document("<stdin>", tiny.TEXT)).write_csv(expected)
    assert outcome.stdout_bytes == expected.getvalue()


def test_budget_chooses_the_threshold(tmp_path: Path, model: Path, text: Path) -> None:
    target = tmp_path / "out.csv"
    assert run("trace", text, "--model", model, "--csv", target, "--budget", "0.6").exit_code == 0
    assert pl.read_csv(target)["threshold"].unique().to_list() == [0.5]
    assert "there are 0.8, 0.6" in sentence(run("trace", text, "--model", model, "--budget", "0.7"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b" \n", "blank"), (b"\x89PNG\r\n\x1a\n\x00\x00", "PNG image")],
)
def test_bad_input_gets_a_sentence(tmp_path: Path, model: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    words = sentence(run("trace", path, "--model", model))
    assert "bad.txt" in words
    assert said in words


def test_missing_files_and_models_get_a_sentence(tmp_path: Path, model: Path, text: Path) -> None:
    assert "nowhere.txt does not exist" in sentence(run("trace", "nowhere.txt", "--model", model))
    assert "There is no folder" in sentence(run("trace", text, "--model", tmp_path / "none"))
    assert "dtype='float8' is not one of" in sentence(
        run("trace", text, "--model", model, "--dtype", "float8")
    )


def test_an_unwritable_target_is_said_before_the_run(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(skipviz, "load", load)
    target = tmp_path / "missing" / "out.csv"
    assert "There is no folder" in sentence(run("trace", text, "--csv", target))
    assert "is a folder" in sentence(run("trace", text, "--csv", tmp_path))


def test_brackets_in_a_message_are_kept(
    text: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise skipviz.InputError("shape [tokens, sites] and [/red]")

    monkeypatch.setattr(skipviz, "trace", fail)
    assert sentence(run("trace", text, "--model", model)).endswith(
        "shape [tokens, sites] and [/red]"
    )


def test_interruption_is_a_sentence_and_leaves_the_old_file(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")

    def interrupted(path: Path, _: object) -> None:
        os.write(os.open(path, os.O_WRONLY | os.O_CREAT), b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    outcome = run("trace", text, "--model", model, "--csv", target)
    assert outcome.exit_code == 130
    assert "Stopped." in outcome.stderr
    assert target.read_text() == "before"
    assert not list(tmp_path.glob("*.partial"))


TEMPLATE = (
    "{% if messages[0]['role'] != 'user' %}{{ raise_exception('the user begins') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
MESSAGES = [{"role": "user", "content": "Why? 🦊"}, {"role": "assistant", "content": "Nobody."}]


@pytest.fixture
def chatting(model: Path, tiny_model_folder: Path) -> Path:
    """A model whose tokenizer writes conversations."""
    (tiny_model_folder / "chat_template.jinja").write_text(TEMPLATE)
    return model


def test_rows_of_messages_are_conversations(tmp_path: Path, chatting: Path) -> None:
    rows, target = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    lines = [{"messages": MESSAGES, "id": 7}, {"text": tiny.TEXT}, {"messages": MESSAGES[:1]}]
    rows.write_text("\n".join(json.dumps(line) for line in lines))
    outcome = run("trace", rows, "--model", chatting, "--parquet", target)
    assert outcome.exit_code == 0, outcome.output
    found = skipviz.Trace.load(target).tokens
    loaded = skipviz.load(chatting)
    wanted = [skipviz.trace(loaded, each) for each in (MESSAGES, tiny.TEXT, MESSAGES[:1])]
    assert found["source"].unique(maintain_order=True).to_list() == [
        "rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3",
    ]  # fmt: skip
    ids = [each for trace in wanted for each in trace.tokens["token_id"]]
    assert found["token_id"].to_list() == ids
    assert loaded.tokenizer.decode(ids[:1]) == "<|im_start|>"  # obeyed, not spelt out
    losses = np.concatenate([trace.tokens["nll"].to_numpy() for trace in wanted])
    np.testing.assert_allclose(found["nll"].to_numpy(), losses, atol=1e-5)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": []}, 'line 1: the field "messages" is an empty list'),
        ({"messages": "hi"}, 'the field "messages" is a string'),
        ({"messages": [1]}, "message 1 is another (a number)"),
        ({"messages": [{"role": "user"}]}, 'message 1 is another (its fields are "role")'),
        ({"messages": [{**MESSAGES[0], "tool_calls": []}]}, '"tool_calls")'),
        ({"messages": [{"role": "user", "content": 3}]}, '"content" of message 1 is a number'),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a character"),
        ({"messages": MESSAGES[1:]}, "cannot write these messages (the user begins)"),
    ],
)
def test_rows_that_are_no_conversations_are_refused(
    tmp_path: Path, chatting: Path, row: Any, said: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert said in sentence(run("trace", tmp_path / "rows.jsonl", "--model", chatting))


def test_only_a_trace_takes_conversations(tmp_path: Path, chatting: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": MESSAGES}))
    said = sentence(run("evaluate", chatting, "--text", tmp_path / "rows.jsonl"))
    assert 'the object has no field "text"' in said


def test_a_model_without_a_chat_template_says_so(tmp_path: Path, model: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": MESSAGES}))
    said = sentence(run("trace", tmp_path / "rows.jsonl", "--model", model))
    assert "has no chat template" in said


@pytest.mark.parametrize(
    ("option", "begins"), [("--bos", True), ("--no-bos", False), (None, False)]
)
def test_a_text_begins_with_the_token_asked_for(
    tmp_path: Path, model: Path, text: Path, option: str | None, begins: bool
) -> None:
    target = tmp_path / "out.parquet"
    options = [] if option is None else [option]
    outcome = run("trace", text, "--model", model, "--parquet", target, *options)
    assert outcome.exit_code == 0, outcome.output
    found = skipviz.Trace.load(target).tokens
    assert (found["token_id"][0] == tiny.tokenizer().bos_token_id) == begins
    assert f"{found.height:,} tokens" in outcome.stderr
