"""Flips that an audit has run, kept in a file so that a stopped audit goes on.

The file says what it is of: text, model, decisions and options. Another audit is refused, for its
cells would be served as this one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skipviz.atomic import write_table
from skipviz.errors import InputError, StoreError
from skipviz.invariants import has_columns, within
from skipviz.models import SkipModel
from skipviz.models.hashes import memory_sha256
from skipviz.parquet import check_regular_file, one_kind_of_error, read_parquet_file
from skipviz.traces import Trace

AUDIT_STORE_FORMAT = 1
AUDIT_STORE_KEY = "skipviz.audit"
ADVICE = "Name another file, or delete it to begin anew."
LARGEST_LOSS = 1e9

Kept = tuple[float, float | None, bool | None]
"""The loss of a flip, how near a later gate came to its threshold, and whether rounding decides."""
KEPT_CELLS: dict[str, Any] = {
    "token": pl.Int64,
    "site": pl.Int64,
    "flipped_nll": pl.Float64,
    "later_margin": pl.Float64,
    "by_rounding": pl.Boolean,
}
"""What a store holds of a cell."""
IN_WORDS = {
    "text": "text",
    "model": "model",
    "policy": "policy",
    "budget": "budget",
    "limit": "limit of the guarded policy",
    "decisions": "decisions",
    "horizon": "horizon",
    "downstream": "choice for downstream gates",
}
"""What an audit is of, and what an error calls it; hashes are not shown."""
HASHED = ("text", "model", "decisions")


def audit_of(
    model: SkipModel, trace: Trace, *, horizon: int | None, downstream: str
) -> dict[str, Any]:
    """Return everything that decides what an audit finds, by the names of ``IN_WORDS``.

    Parameters
    ----------
    model
        The model, whose every number is hashed: a file's hash would not know of a change in memory.
    trace
        Its trace.
    horizon, downstream
        As of ``audit``.
    """
    run = trace.run.row(0, named=True)
    ids = np.array(trace.tokens["token_id"].to_list(), dtype=np.int64)
    executed = trace.matrix("exec_count") > 0
    return {
        "text": _sha256(ids.tobytes()),
        "model": memory_sha256(model),
        "policy": run["policy"],
        "budget": run["budget"],
        "limit": run["limit"],
        "decisions": _sha256(repr(executed.shape).encode(), np.packbits(executed).tobytes()),
        "horizon": horizon,
        "downstream": downstream,
    }


@dataclass(frozen=True, kw_only=True)
class AuditStore:
    """The file of an audit's cells.

    Attributes
    ----------
    path
        The file.
    about
        What the audit is of, from ``audit_of``.
    tokens, sites
        How many there are to flip.
    """

    path: Path
    about: Mapping[str, Any]
    tokens: int
    sites: int

    def read(self) -> dict[tuple[int, int], Kept]:
        """Return the cells that are in the file; none where there is no file.

        Raises
        ------
        StoreError
            If the file is of another audit, or is damaged, or there is no folder for it.
        """
        if not self.path.parent.is_dir():
            raise StoreError(
                f"There is no folder {self.path.parent} for {self.path.name}; make it."
            )
        if not self.path.exists():
            return {}
        with one_kind_of_error(str(self.path), "cells of an audit", ADVICE):
            cells = self.tokens * self.sites
            found, beside = read_parquet_file(self.path, most_rows=cells, most_values=cells)
            self._check_about(beside)
            self._check_cells(found)
            keys = found.select("token", "site").rows()
            rows = found.select("flipped_nll", "later_margin", "by_rounding").rows()
            return dict(zip(keys, rows, strict=True))

    def write(self, known: Mapping[tuple[int, int], Kept]) -> None:
        """Write all cells that are known."""
        rows = [(*cell, *kept) for cell, kept in known.items()]
        frame = pl.DataFrame(rows, schema=KEPT_CELLS, orient="row")
        about = {"format": AUDIT_STORE_FORMAT, **self.about}
        check_regular_file(self.path)
        write_table(frame, self.path, metadata={AUDIT_STORE_KEY: json.dumps(about)})

    def _check_about(self, beside: Mapping[str, str]) -> None:
        if AUDIT_STORE_KEY not in beside:
            raise InputError("It does not say what it is of, as those of older versions.")
        about = json.loads(beside[AUDIT_STORE_KEY])
        if not isinstance(about, dict) or about.get("format") != AUDIT_STORE_FORMAT:
            raise InputError("It is of another format.")
        for name, words in IN_WORDS.items():
            there, here = about.get(name), self.about[name]
            if there == here and type(there) is type(here) and name in about:
                continue
            both = "" if name in HASHED else f" ({there!r:.80} there, {here!r:.80} here)"
            raise StoreError(
                f"{self.path} holds cells of an audit with another {words}{both}. {ADVICE}"
            )

    def _check_cells(self, found: pl.DataFrame) -> None:
        has_columns("cells", found, KEPT_CELLS)
        within(found, "cells", "token", 0, self.tokens - 1)
        within(found, "cells", "site", 0, self.sites - 1)
        within(found, "cells", "flipped_nll", -1e-3, LARGEST_LOSS)
        within(found, "cells", "later_margin", 0, LARGEST_LOSS)
        if found.select("token", "site", "flipped_nll").null_count().sum_horizontal().item():
            raise InputError("A cell has no token, site or loss.")
        if found.select("token", "site").is_duplicated().any():
            raise InputError("A cell stands there twice.")
        noted = found["later_margin"].is_not_null()
        held = self.about["downstream"] == "held"
        if (noted != found["by_rounding"].is_not_null()).any() or (held and noted.any()):
            raise InputError("later_margin and by_rounding do not go together.")


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
