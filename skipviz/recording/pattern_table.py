"""Reads a table of published patterns: a row per token, with the layers that ran for it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.errors import TraceError
from skipviz.recording.recorded_file import RECORDING_FORMAT, read_recording
from skipviz.traces import Trace

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_table(
    path: Path,
    *,
    layers: int,
    text: str = "text",
    used: str = "layers",
    sequence: str | None = None,
    first_layer: int = 0,
) -> Trace:
    """Return the trace of a table in CSV or JSON lines; what it does not have is unknown.

    Parameters
    ----------
    path
        The table, one row per token in reading order.
    layers
        How many layers the model has.
    text
        The column of the tokens' texts.
    used
        The column of the layers that ran: numbers in a list, or in a text with anything between. A
        layer that stands there twice ran twice.
    sequence
        The column that says which text a token is of; None: all are of one.
    first_layer
        The number of the first layer.

    Raises
    ------
    TraceError
        If the table lacks a column, or a row does not say which layers ran.
    """
    rows = _rows(path)
    for column in (text, used, *([sequence] if sequence else [])):
        if column not in rows.columns:
            raise TraceError(
                f"{path.name} has no column {column!r}; it has {', '.join(rows.columns):.500}."
            )
    if not rows.height:
        raise TraceError(f"{path.name} has no rows. Give one per token.")
    ran = [[0] * rows.height for _ in range(layers)]
    for row, value in enumerate(rows[used]):
        for layer in _layers(value, row=row, column=used, name=path.name):
            if not 0 <= layer - first_layer < layers:
                raise TraceError(
                    f"{path.name}, row {row + 1}: layer {layer} is not from {first_layer} to "
                    f"{first_layer + layers - 1}."
                )
            ran[layer - first_layer][row] += 1
    lines: list[dict[str, Any]] = [
        {
            "kind": "recording",
            "format": RECORDING_FORMAT,
            "layers": layers,
            "sites": [{"layer": layer, "unit": "block"} for layer in range(layers)],
        },
        {
            "kind": "tokens",
            "text": [value or "" for value in rows[text].cast(pl.String)],
            **({"sequence": _numbered(rows[sequence])} if sequence else {}),
        },
        *(
            {"kind": "gate", "site": layer, "token": 0, "ran": ran[layer]}
            for layer in range(layers)
        ),
        {"kind": "end"},
    ]
    written = "".join(json.dumps(line) + "\n" for line in lines)
    return read_recording(io.BytesIO(written.encode()), name=path.name)[0]


def _rows(path: Path) -> pl.DataFrame:
    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema=False)
        return pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TraceError(f"{path.name} is not a table in CSV or JSON lines: {error}") from error


def _layers(value: Any, *, row: int, column: str, name: str) -> list[int]:
    """Return the numbers of the layers of a cell."""
    found: list[Any] = [None]
    if isinstance(value, pl.Series):
        found = value.to_list()
    elif value is None:
        found = []
    elif isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        found = [float(each) for each in _NUMBER.findall(value)]
    if not all(type(each) in (int, float) and each % 1 == 0 for each in found):
        raise TraceError(
            f"{name}, row {row + 1}: {column!r} is {value!r:.60} and must be the numbers of the "
            "layers that ran, as in [0, 1, 5]. How many ran does not say which."
        )
    return [int(each) for each in found]


def _numbered(values: pl.Series) -> list[int]:
    """Return which text each row is of, from 0, in the order in which texts begin."""
    names = {value: number for number, value in enumerate(values.unique(maintain_order=True))}
    return [names[value] for value in values]
