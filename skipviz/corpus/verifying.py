"""Whether a dataset is as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import MANIFEST_FILE, check_format
from skipviz.errors import StoreError
from skipviz.parquet import one_kind_of_error


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What became of the files of a dataset.

    Attributes
    ----------
    files
        How many the manifest lists.
    damaged
        What is wrong with those that differ from it, by their paths.
    """

    files: int
    damaged: Mapping[str, str]


def damaged_files(where: str | Path) -> Verified:
    """Compare every file of a finished dataset with the checksum in its manifest.

    Parameters
    ----------
    where
        The dataset.

    Raises
    ------
    StoreError
        If it has no manifest, one of another format or damaged, or a file cannot be read.
    """
    folder = DatasetFolder(where)
    about = folder.read_json(MANIFEST_FILE)
    if about is None:
        raise StoreError(
            f"{where} has no {MANIFEST_FILE}: it is no dataset, or its run has not ended. Run the "
            "same command again to end it."
        )
    check_format(about, folder.named(MANIFEST_FILE))
    damaged = {}
    with one_kind_of_error(str(where), "a corpus", "Look at its manifest and its disk."):
        for each in about["files"]:
            if not folder.exists(each["path"]):
                damaged[each["path"]] = "it is missing"
                continue
            with folder.open(each["path"]) as file:
                digest = hashlib.file_digest(file, "sha256")
            if digest.hexdigest() != each["sha256"]:
                damaged[each["path"]] = "its checksum is another"
        return Verified(files=len(about["files"]), damaged=damaged)
