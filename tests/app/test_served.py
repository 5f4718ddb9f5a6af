"""A page runs what is here and what it may show, and notices files that were replaced."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from skipviz import models
from skipviz.app import served
from skipviz.app.jobs import Jobs, Request
from skipviz.app.served import (
    check_known,
    check_token_count,
    folders_offered,
    identity,
    load_served,
    most_tokens,
)
from skipviz.cli.app_command import _flags
from skipviz.errors import InputError, ModelError
from skipviz.text.documents import Document
from tests import tiny


def serve_to(monkeypatch: pytest.MonkeyPatch, address: str, root: Path | None = None) -> None:
    monkeypatch.setattr(served.st, "get_option", lambda name: address)
    monkeypatch.delenv("SKIPVIZ_FOLDERS", raising=False)
    if root is not None:
        monkeypatch.setenv("SKIPVIZ_FOLDERS", str(root))


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-360M", "some-hub-name", "", "../x"])
def test_nothing_is_downloaded_for_a_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_to(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match="There is no model"):
        load_served(name)


def test_a_page_of_ones_own_opens_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_to(monkeypatch, "127.0.0.1")
    assert folders_offered()
    check_known(str(tmp_path))
    check_known("smollm2-gated")


def test_a_page_for_others_opens_none_and_tells_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_to(monkeypatch, "0.0.0.0")
    assert not folders_offered()
    check_known("smollm2-gated")
    said = []
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ModelError) as caught:
            check_known(str(folder))
        said.append(str(caught.value).replace(str(folder), "X"))
    assert said[0] == said[1]


def test_a_root_cannot_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, outside = tmp_path / "models", tmp_path / "secret"
    (root / "mine").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    serve_to(monkeypatch, "0.0.0.0", root)
    assert folders_offered()
    check_known(str(root / "mine"))
    for name in (
        outside,
        root / "link",
        root / ".." / "secret",
        root / "absent",
        root / "loop",
        "mine",
    ):
        with pytest.raises(ModelError):
            check_known(str(name))


def test_files_put_in_place_of_others_are_another_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"first")
    before = identity(str(tmp_path))
    other = tmp_path.parent / "other"
    other.write_bytes(b"other")
    os.utime(other, (0, 0))  # older than what it replaces
    other.replace(file)
    assert identity(str(tmp_path)) != before
    (tmp_path / "thresholds.json").write_text("{}")
    after = identity(str(tmp_path))
    (tmp_path / "thresholds.json").write_text('{"a": 1}')
    assert identity(str(tmp_path)) == after


def test_only_this_machines_names_get_a_connection() -> None:
    text = (Path(served.__file__).parent / "assets" / "config.toml").read_text()
    flags = _flags(tomllib.loads(text))
    assert "--server.allowedHosts=127.0.0.1" in flags
    assert "--server.allowedHosts=localhost" in flags


def test_a_page_of_ones_own_runs_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_to(monkeypatch, "127.0.0.1")
    monkeypatch.delenv("SKIPVIZ_TOKENS", raising=False)
    assert most_tokens() is None
    check_token_count(10**9)
    monkeypatch.setenv("SKIPVIZ_TOKENS", "10")
    with pytest.raises(InputError, match="has 11 tokens, and this page runs at most 10"):
        check_token_count(11)


def test_a_page_for_others_runs_so_many_tokens(
    tmp_path: Path, dense_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_to(monkeypatch, "0.0.0.0", dense_folder.parent)
    monkeypatch.delenv("SKIPVIZ_TOKENS", raising=False)
    assert most_tokens() == 20_000
    monkeypatch.setenv("SKIPVIZ_TOKENS", "30")
    jobs = Jobs()

    def traced(text: str) -> int:
        request = Request(model=str(dense_folder), documents=(Document("a", text),))
        return len(jobs.submit(request).future.result(timeout=60))

    assert traced("The fox.") <= 30
    with pytest.raises(InputError, match="and this page runs at most 30 at a time"):
        traced(tiny.TEXT * 2)
    long = Request(model=str(dense_folder), documents=(Document("a", tiny.TEXT * 2),))
    job = jobs.experiment(long, "nothing", lambda model, progress, stop: model)
    with pytest.raises(InputError, match="at most 30"):
        job.future.result(timeout=60)
    jobs.close()


@pytest.mark.parametrize("given", ["0", "-3", "many", "1e4", "٣"])
def test_a_limit_that_is_no_number_is_said(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_to(monkeypatch, "0.0.0.0")
    monkeypatch.setenv("SKIPVIZ_TOKENS", given)
    with pytest.raises(InputError, match="must be a whole number of tokens"):
        check_token_count(1)
