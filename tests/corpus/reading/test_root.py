from __future__ import annotations

from pathlib import Path

import pytest

import skipviz
from skipviz.corpus.reading.root import CORPORA, corpus_root, datasets_in, open_below
from tests.corpus.asked import made_parts, write_corpus


def test_datasets_below_a_folder_are_found_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "b", root / "more" / "a", outside):
        write_corpus(folder, made_parts(1))
    (root / "link").symlink_to(outside)
    monkeypatch.setenv(CORPORA, str(root))
    assert corpus_root() == root
    assert datasets_in(root) == ["b", "more/a"]
    assert len(open_below(root, "more/a")) == 120
    for name in ("../outside", str(outside), "link", "b/../../outside", "file:///etc", "a\0b"):
        with pytest.raises(skipviz.InputError, match="is not in the folder that SKIPVIZ_CORPORA"):
            open_below(root, name)


def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CORPORA, str(tmp_path / "none"))
    with pytest.raises(skipviz.InputError, match="which is not a folder"):
        corpus_root()
    monkeypatch.delenv(CORPORA)
    assert corpus_root() is None
