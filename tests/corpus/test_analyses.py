"""Further tables have a row per token, whatever becomes of a document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import skipviz
from skipviz.corpus import analyses
from skipviz.errors import RecordingError
from tests.corpus.asked import made_parts


def test_a_document_that_cannot_be_looked_at_has_nulls(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (traced,) = made_parts(1)
    document = traced.tokens["sequence"].to_numpy() + 7
    left = iter(range(4))

    def fails(_: Any, own: skipviz.Trace, __: Any) -> dict[str, pa.Array] | None:
        number = next(left)
        if number == 1:
            raise RecordingError("a loss is NaN")
        ones = {name: pa.array(np.ones(len(own))).cast(kind) for name, kind in kinds.items()}
        return None if number == 2 else ones

    kinds = analyses.LENS_COLUMNS
    made = replace(analyses.FURTHER_TABLES["lens"], of=fails)
    monkeypatch.setattr(analyses, "FURTHER_TABLES", {"lens": made})
    table = analyses.analysis_table("lens", gated, traced, document)
    assert table["document"].to_pylist() == document.tolist()
    known = [each is not None for each in table["settled"].to_pylist()]
    assert known == [each in (7, 10) for each in document]
    assert "lens of document 8: a loss is NaN" in caplog.text
