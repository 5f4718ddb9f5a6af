from __future__ import annotations

import json
from collections.abc import Callable
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


def _other_format(folder: Path) -> None:
    about = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps(about | {"format": 99}))


def _unfinished(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    for path in folder.glob("done/*"):
        path.write_bytes(b"PAR1")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no corpus": lambda folder: (folder / "corpus.json").unlink(),
    "no JSON": lambda folder: (folder / "corpus.json").write_text("{"),
    "a folder for a file": lambda folder: (
        (folder / "corpus.json").unlink(),
        (folder / "corpus.json").mkdir(),
    ),
    "another format": _other_format,
    "a part is missing": lambda folder: next(folder.glob("tokens/*")).unlink(),
    "a part is cut": lambda folder: next(folder.glob("tokens/*")).write_bytes(b"PAR1"),
    "documents are cut": lambda folder: (folder / "documents.parquet").write_bytes(b"PAR1"),
    "documents are missing": lambda folder: (folder / "documents.parquet").unlink(),
    "parts that are done are cut": _unfinished,
}


def _asked(root: Path) -> None:
    corpus = open_below(root, "mine")
    repr(corpus)
    corpus.trace(0)


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_error_does_not_tell_a_visitor_where_the_dataset_lies(
    tmp_path: Path, damage: str
) -> None:
    write_corpus(tmp_path / "root" / "mine", made_parts(1))
    DAMAGE[damage](tmp_path / "root" / "mine")
    with pytest.raises(skipviz.SkipvizError) as said:
        _asked(tmp_path / "root")
    assert "mine" in str(said.value)
    assert str(tmp_path) not in str(said.value)


def test_a_part_that_goes_while_it_is_asked_does_not_tell_either(tmp_path: Path) -> None:
    write_corpus(tmp_path / "mine", made_parts(1))
    corpus = open_below(tmp_path, "mine")
    for path in (tmp_path / "mine" / "tokens").iterdir():
        path.unlink()
    with pytest.raises(skipviz.StoreError, match=r"\(os error 2\)\)\. Run skipviz corpus verify"):
        corpus.trace(0)


def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CORPORA, str(tmp_path / "none"))
    with pytest.raises(skipviz.InputError, match="is not a folder") as said:
        corpus_root()
    assert str(tmp_path) not in str(said.value)
    monkeypatch.delenv(CORPORA)
    assert corpus_root() is None
