"""What tests ask of a dataset: read by tools that know nothing of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl


def tokens(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "tokens" / "*.parquet", glob=True)


def documents(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "documents.parquet")


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def is_whole(folder: Path) -> None:
    """Check that each file is listed with its checksum, and each token of each document there."""
    about = manifest(folder)
    there = contents(folder)
    assert {each["path"]: each["sha256"] for each in about["files"]} == {
        path: digest
        for path, digest in there.items()
        if not path.startswith("done/") and not path.endswith(".json")
    }
    found = documents(folder)
    assert found["document"].to_list() == list(range(about["documents"]))
    counted = tokens(folder).group_by("document").len().sort("document")
    expected = found.filter(pl.col("tokens") > 0).select("document", len="tokens")
    assert counted.rows() == expected.rows()
    assert about["tokens"] == counted["len"].sum()
    assert not tokens(folder).select("document", "position").is_duplicated().any()
