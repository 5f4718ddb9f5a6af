"""The datasets under one folder, which a page may open; nothing outside it can be."""

from __future__ import annotations

import os
from pathlib import Path

from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import CORPUS_FILE
from skipviz.corpus.reading.dataset import CorpusDataset, opened_folder
from skipviz.errors import InputError

CORPORA = "SKIPVIZ_CORPORA"
"""The environment variable that names the folder."""
MOST_DATASETS = 1000
_DEPTH = 3
"""Folders below the root that are looked in."""


def corpus_root() -> Path | None:
    """Return the folder that ``SKIPVIZ_CORPORA`` names; None where it names none.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    named = os.environ.get(CORPORA, "")
    if not named:
        return None
    root = Path(named)
    if not root.is_dir():
        # The page shows this to whoever visits it, who is not to learn where things lie.
        raise InputError(f"What {CORPORA} names is not a folder; have it name one.")
    return root


def datasets_in(root: Path) -> list[str]:
    """Return the datasets below a folder, by their paths relative to it, sorted.

    Links are not followed, so what lies elsewhere is not found.
    """
    found: list[str] = []
    for where, folders, files in os.walk(root):
        folders.sort()
        own = Path(where).relative_to(root)
        if CORPUS_FILE in files:
            found.append(own.as_posix())
            folders.clear()
        if len(own.parts) >= _DEPTH:
            folders.clear()
        if len(found) >= MOST_DATASETS:
            break
    return sorted(found)


def open_below(root: Path, name: str) -> CorpusDataset:
    """Open a dataset by its path relative to a folder.

    Parameters
    ----------
    root
        The folder.
    name
        As ``datasets_in`` has it.

    Raises
    ------
    InputError
        If it lies elsewhere, by ``..``, as an absolute path or behind a link.
    StoreError
        As of ``open_corpus``.
    """
    wanted = Path("/") if "://" in name or "\0" in name else (root / name).resolve()
    if not wanted.is_relative_to(root.resolve()):
        raise InputError(f"{name!r:.200} is not in the folder that {CORPORA} names.")
    return opened_folder(DatasetFolder(wanted, called=name))
