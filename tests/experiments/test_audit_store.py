"""A store of cells belongs to one audit, and one that is damaged is never used."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.errors import StoreError
from skipviz.experiments.audit_store import (
    AUDIT_STORE_KEY,
    KEPT_CELLS,
    AuditStore,
    audit_of,
)
from skipviz.experiments.decision_audit import audit
from skipviz.families.gated.settings import Threshold
from tests import tiny
from tests.damage import damaged_bytes, many_times, odd_cells, packed

TEXT = tiny.TEXT[:26]
CELLS = [(0, 1), (3, 2), (5, 7)]
FAULTS = 300


@pytest.fixture
def store(gated: skipviz.SkipModel, tmp_path: Path) -> Path:
    """A good store of a few cells."""
    audit(gated, skipviz.trace(gated, TEXT), cells=CELLS, store=tmp_path / "cells.parquet")
    return tmp_path / "cells.parquet"


def other_text(gated: skipviz.SkipModel) -> Any:
    return gated, skipviz.trace(gated, TEXT.swapcase()), {}


def other_weights(gated: skipviz.SkipModel) -> Any:
    with torch.no_grad():
        gated.model.model.layers[5].mlp.up_proj.weight[0, 0] += 0.5
    return gated, skipviz.trace(gated, TEXT), {}


def other_configuration(gated: skipviz.SkipModel) -> Any:
    gated.model.config.rms_norm_eps = 0.25
    return gated, skipviz.trace(gated, TEXT), {}


def other_budget(gated: skipviz.SkipModel) -> Any:
    other = gated.under(Threshold(0.0), budget=0.6)
    return other, skipviz.trace(other, TEXT), {}


def other_threshold(gated: skipviz.SkipModel) -> Any:
    other = gated.under(Threshold(0.7))
    return other, skipviz.trace(other, TEXT), {}


def other_decisions(gated: skipviz.SkipModel) -> Any:
    execute = skipviz.trace(gated, TEXT).matrix("exec_count") > 0
    execute[7] = ~execute[7]
    return gated, skipviz.trace(gated, TEXT, plan=skipviz.Plan(execute)), {}


def other_horizon(gated: skipviz.SkipModel) -> Any:
    return gated, skipviz.trace(gated, TEXT), {"horizon": 2}


def other_reaction(gated: skipviz.SkipModel) -> Any:
    return gated, skipviz.trace(gated, TEXT), {"downstream": "react"}


OTHERS = [
    (other_text, r"another text\. "),
    (other_weights, r"another model\. "),
    (other_configuration, r"another model\. "),
    (other_threshold, r"another model\. "),
    (other_budget, r"another model\. |another budget \(None there, 0.6 here\)"),
    (other_decisions, r"another policy \('learned' there, 'forced' here\)"),
    (other_horizon, r"another horizon \(1 there, 2 here\)"),
    (other_reaction, r"another choice for downstream gates \('held' there, 'react' here\)"),
]


@pytest.mark.parametrize(("other", "said"), OTHERS)
def test_a_store_of_another_audit_is_refused_and_stays(
    other: Callable[..., Any], said: str, gated: skipviz.SkipModel, store: Path
) -> None:
    before = store.read_bytes()
    model, trace, options = other(gated)
    with pytest.raises(StoreError, match=said):
        audit(model, trace, cells=CELLS, store=store, **options)
    assert store.read_bytes() == before


@pytest.fixture
def kept(gated: skipviz.SkipModel, store: Path) -> AuditStore:
    trace = skipviz.trace(gated, TEXT)
    about = audit_of(gated, trace, horizon=1, downstream="held")
    return AuditStore(path=store, about=about, tokens=len(trace) - 1, sites=trace.sites.height)


def read(store: AuditStore) -> str:
    """Whether a store is refused, or gives cells that make sense."""
    try:
        found = store.read()
    except StoreError as error:
        whole = str(store.path) in str(error) and str(error).endswith(".")
        return "refused" if whole else "refused without a sentence"
    for (token, site), (loss, margin, rounded) in found.items():
        assert 0 <= token < store.tokens
        assert 0 <= site < store.sites
        assert 0 <= loss < np.inf
        assert margin is rounded is None
    return "used"


def test_damaged_bytes_are_refused_or_make_sense(kept: AuditStore) -> None:
    seen = []
    for data in damaged_bytes(kept.path.read_bytes(), count=FAULTS):
        kept.path.write_bytes(data)
        seen.append(read(kept))
    assert set(seen) == {"refused", "used"}
    assert seen.count("refused") > FAULTS / 2


def test_values_without_sense_are_refused(kept: AuditStore) -> None:
    frame, metadata = pl.read_parquet(kept.path), pl.read_parquet_metadata(kept.path)
    beside = {AUDIT_STORE_KEY: metadata[AUDIT_STORE_KEY]}
    seen = []
    for changed in odd_cells(frame, count=FAULTS):
        kept.path.write_bytes(packed(changed, beside))
        seen.append(read(kept))
    assert set(seen) == {"refused", "used"}
    assert seen.count("refused") > FAULTS / 3
    about = json.loads(beside[AUDIT_STORE_KEY])
    odd = ["[]", "no JSON", "null", json.dumps({**about, "format": 2}), "[" * 100_000]
    odd += [json.dumps({**about, name: [1]}) for name in about]
    for wrong in odd:
        kept.path.write_bytes(packed(frame, {AUDIT_STORE_KEY: wrong}))
        assert read(kept) == "refused"


def test_what_is_no_store_is_refused_and_stays(kept: AuditStore, tmp_path: Path) -> None:
    words, table, pipe = (tmp_path / name for name in ("notes.txt", "table.parquet", "pipe"))
    words.write_text("notes")
    pl.DataFrame({"a": [1]}).write_parquet(table)
    os.mkfifo(pipe)
    for path in (words, table, pipe, tmp_path, Path("/dev/zero")):
        assert read(dataclasses.replace(kept, path=path)) == "refused"
    with pytest.raises(StoreError, match="There is no folder"):
        dataclasses.replace(kept, path=tmp_path / "none" / "cells.parquet").read()
    assert words.read_text() == "notes"
    assert pl.read_parquet(table).columns == ["a"]


def test_a_small_file_of_many_cells_is_refused_before_it_is_read(kept: AuditStore) -> None:
    metadata = pl.read_parquet_metadata(kept.path)
    row = pl.DataFrame({name: [None] for name in KEPT_CELLS}, schema=KEPT_CELLS)
    many = many_times(row, 30_000_000)
    kept.path.write_bytes(packed(many, {AUDIT_STORE_KEY: metadata[AUDIT_STORE_KEY]}))
    assert kept.path.stat().st_size < 2**20
    with pytest.raises(StoreError, match="30,000,000 rows"):
        kept.read()


def test_a_loss_that_is_not_a_number_is_never_kept(
    gated: skipviz.SkipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, store = skipviz.trace(gated, TEXT), tmp_path / "cells.parquet"
    monkeypatch.setattr(
        "skipviz.experiments.flips._ByRows.losses",
        lambda self, cells, *_, **__: (
            torch.full((len(cells),), torch.nan), torch.full((len(cells), 8), torch.inf)
        ),
    )  # fmt: skip
    monkeypatch.setattr("skipviz.experiments.flips._right", lambda *_: True)
    with pytest.raises(skipviz.RecordingError, match=r"token 0 at L1\.mlp gives a loss that is"):
        audit(gated, trace, cells=CELLS, store=store)
    assert not store.exists()


def test_what_is_kept_is_what_is_found(gated: skipviz.SkipModel, store: Path) -> None:
    trace = skipviz.trace(gated, TEXT)
    found = audit(gated, trace, store=store)
    np.testing.assert_allclose(found["utility"], audit(gated, trace)["utility"], atol=1e-5)
