"""Reads a table of published patterns: a row per token, with the layers that ran for it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.errors import InputError, TraceError
from skipviz.invariants import MOST_CELLS, MOST_LAYERS
from skipviz.parquet import check_regular_file
from skipviz.recording.recorded_file import RECORDING_FORMAT, read_recording
from skipviz.traces import Trace

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BETWEEN = re.compile(r"[\s,;|\[\](){}'\"]*")
"""What may stand between numbers: not that of ``0-3``, ``0:3`` or ``0 to 3``, which are ranges."""


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
        The column of the layers that ran: numbers in a list, or in a text with no letters between.
        A layer that stands there twice ran twice.
    sequence
        The column that says which text a token is of; None: all are of one.
    first_layer
        The number of the first layer.

    Raises
    ------
    TraceError
        If the table lacks a column, or a row does not say which layers ran.
    InputError
        If there are no such numbers of layers.
    """
    if not 1 <= layers <= MOST_LAYERS:
        raise InputError(f"layers={layers} must be from 1 to {MOST_LAYERS:,}.")
    rows = _rows(path)
    for column in (text, used, *([sequence] if sequence else [])):
        if column not in rows.columns:
            raise TraceError(
                f"{path.name} has no column {column!r}; it has {', '.join(rows.columns):.500}."
            )
        if f"{column}_duplicated_0" in rows.columns:  # so polars calls the second
            raise TraceError(
                f"{path.name} has two columns {column!r}. Give each a name of its own."
            )
    if not rows.height:
        raise TraceError(f"{path.name} has no rows. Give one per token.")
    for column in (text, *([sequence] if sequence else [])):
        if rows[column].dtype.is_nested():
            raise TraceError(
                f"{path.name}: {column!r} has lists or objects; give one text per row."
            )
    if rows.height * layers > MOST_CELLS:
        raise TraceError(
            f"{path.name} has {rows.height:,} rows of {layers:,} layers, more than {MOST_CELLS:,} "
            "pairs of token and layer. Take a part of it."
        )
    ran = [[0] * rows.height for _ in range(layers)]
    listed = [
        _layers(value, row=row, column=used, name=path.name) for row, value in enumerate(rows[used])
    ]
    if layers > 2 and all(len(each) == layers and set(each) <= {0, 1} for each in listed):
        raise TraceError(
            f"{path.name}: {used!r} has a 0 or a 1 for each of the {layers} layers. Write the "
            "numbers of those that ran, as in [0, 1, 5]."
        )
    for row, found in enumerate(listed):
        for layer in found:
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
        check_regular_file(path)
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema=False).fill_null("")
        return pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, InputError, pl.exceptions.PolarsError) as error:
        said = str(error).strip().partition("\n")[0]
        raise TraceError(f"{path.name} is not a table in CSV or JSON lines: {said}") from error


def _layers(value: Any, *, row: int, column: str, name: str) -> list[int]:
    """Return the numbers of the layers of a cell."""
    found: list[Any] = [None]
    if isinstance(value, pl.Series):
        value = found = value.to_list()
    elif isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        between = _NUMBER.split(value)
        apart = all(between[1:-1]) and all(map(_BETWEEN.fullmatch, between))
        found = [float(each) for each in _NUMBER.findall(value)] if apart else found
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
