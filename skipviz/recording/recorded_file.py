"""Reads a recording made elsewhere (docs/trace_format.md) into a trace; nothing unknown is filled.

Written by ``skipviz/recorder_kit.py`` or by anything else that follows the format.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.errors import TraceError
from skipviz.invariants import MOST_CELLS, check_values
from skipviz.schema import (
    CLASS_COLUMNS,
    MATRICES,
    RUN,
    SITES,
    TOKENS,
    site_label,
)
from skipviz.traces import NUMPY, Trace, depth_columns

RECORDING_FORMAT = 1
MOST_LINE = 64 << 20
"""Bytes of a line."""

TOKEN_KEYS = (
    "text", "source", "phase", "sequence", "id", "nll", "surprisal", "entropy", *CLASS_COLUMNS
)  # fmt: skip
NUMBER_KEYS = {"nll", "surprisal", "entropy", "class_prob"}
GATE_KEYS = {
    "ran": "exec_count", "score": "score", "threshold": "threshold", "p_execute": "p_execute"
}  # fmt: skip
"""What a gate's line calls the columns of a trace."""


@dataclass
class _Recording:
    """What has been read of a file."""

    head: dict[str, Any]
    tokens: dict[str, list[Any]] = field(default_factory=lambda: {key: [] for key in TOKEN_KEYS})
    gates: list[tuple[int, npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]] = field(
        default_factory=list
    )
    batch_began: int = 0
    ended: bool = False

    @property
    def count(self) -> int:
        return len(self.tokens["text"])


def is_recording(first_bytes: bytes) -> bool:
    """Return whether a file that begins so is a recording."""
    return b'"recording"' in first_bytes.partition(b"\n")[0]


def read_recording(lines: io.BufferedIOBase, *, name: str) -> tuple[Trace, int]:
    """Return the trace of a recording, and how many tokens were cut off at its end.

    Parameters
    ----------
    lines
        The file, open for bytes.
    name
        What it is called in errors.

    Raises
    ------
    TraceError
        If the file does not follow the format, or what it says contradicts itself; says the line
        or the token, and what is wrong.
    """
    read: _Recording | None = None
    for number, line in _objects(lines, name):
        try:
            if read is not None and read.ended:
                raise _Wrong("it stands after the end")
            _check(line, first=read is None)
            if read is None:
                read = _Recording(_head(line))
            else:
                _take(read, line)
        except _Wrong as wrong:
            raise TraceError(f"{name}, line {number}: {wrong}. See docs/trace_format.md.") from None
    if read is None:
        raise TraceError(f"{name} is empty. Give a recording, whose first line says what ran.")
    kept = read.count if read.ended else read.batch_began
    if not kept:
        raise TraceError(f"{name} has no token whose sites were all recorded.")
    found = _trace(read, kept)
    try:
        check_values(found.tokens, found.sites, found.matrices)
    except TraceError as error:
        raise TraceError(f"{name}: {error}") from None
    return found, read.count - kept


class _Wrong(Exception):
    """What is wrong with a line."""


def _objects(lines: io.BufferedIOBase, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and object of each line; a last line that was cut off is left out."""
    number = 0
    while line := lines.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise TraceError(f"{name}, line {number}: it is longer than {MOST_LINE >> 20} MiB.")
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_no_constant, parse_float=_number)
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n"):
                return
            raise TraceError(f"{name}, line {number}: it is not JSON ({error}).") from None
        if not isinstance(value, dict):
            raise TraceError(f"{name}, line {number}: it is not a JSON object.")
        yield number, value


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number in JSON")


@cache
def _validators() -> dict[str, Any]:
    """Return what checks a line, by its kind."""
    from jsonschema import Draft202012Validator

    schema = json.loads(Path(__file__).with_name("trace_format.schema.json").read_text("utf-8"))
    return {
        kind: Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": schema["$defs"]})
        for kind in schema["$defs"]
        if kind != "site"
    }


def _check(line: dict[str, Any], *, first: bool) -> None:
    """Check a line by the schema."""
    from jsonschema.exceptions import best_match

    kind = line.get("kind")
    allowed = ["recording"] if first else ["tokens", "gate", "end"]
    if kind not in allowed:
        raise _Wrong(f"kind is {kind!r} and must be {' or '.join(allowed)}")
    if (error := best_match(_validators()[kind].iter_errors(line))) is not None:
        raise _Wrong(f"at {error.json_path.removeprefix('$.')}: {error.message:.200}")
    if kind in ("recording", "tokens"):
        try:
            json.dumps(line, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Wrong("it has half a character, a lone surrogate; write whole ones") from None


def _head(line: dict[str, Any]) -> dict[str, Any]:
    """Check of the first line what a schema cannot say."""
    layers, seen = line.get("layers"), set()
    for site in line["sites"]:
        place = site_label(site["layer"], site["unit"], site.get("visit", 0))
        if place in seen:
            raise _Wrong(f"the site {place} stands there twice; give each its visit")
        seen.add(place)
        if layers is not None and site["layer"] >= layers:
            raise _Wrong(f"the site {place} is beyond the model's {layers} layers")
    return line


def _take(read: _Recording, line: dict[str, Any]) -> None:
    """Take a line of tokens, of a gate, or the end."""
    match line["kind"]:
        case "tokens":
            _take_tokens(read, line)
        case "gate":
            read.gates.append(_gate(read, line))
        case _:
            read.ended = True


def _number(written: str) -> float | int:
    """Return a number that has a point: some languages write whole ones so, as ``3.0``."""
    found = float(written)
    return int(found) if abs(found) < 2**53 and found.is_integer() else found


def _take_tokens(read: _Recording, line: dict[str, Any]) -> None:
    count = len(line["text"])
    for key in TOKEN_KEYS:
        if len(line.get(key, line["text"])) != count:
            raise _Wrong(f"{key} has {len(line[key])} entries and text {count}")
    for key in NUMBER_KEYS & line.keys():
        _floats(line[key], key)
    if (read.count + count) * max(len(read.head["sites"]), 1) > MOST_CELLS:
        raise _Wrong(f"there are more than {MOST_CELLS:,} pairs of token and site")
    read.batch_began = read.count
    for key, column in read.tokens.items():
        column += line.get(key, [None] * count)


def _gate(
    read: _Recording, line: dict[str, Any]
) -> tuple[int, npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]:
    """Return the site of a gate's line, the tokens, and the values by column."""
    site, token = line["site"], line["token"]
    if site >= len(read.head["sites"]):
        raise _Wrong(f"site {site} is not one of the {len(read.head['sites'])} sites")
    values = {into: _numbers(line[key], key) for key, into in GATE_KEYS.items() if key in line}
    count = len(token) if isinstance(token, list) else len(values["exec_count"])
    last = max(token, default=-1) if isinstance(token, list) else token + count - 1
    if count and last >= read.count:
        raise _Wrong(f"it names token {last}, and the lines before have {read.count}")
    tokens = np.array(token if isinstance(token, list) else range(token, token + count), np.int64)
    for key, into in GATE_KEYS.items():
        if into in values and len(values[into]) != count:
            raise _Wrong(f"{key} has {len(values[into])} values for {count} tokens")
    chance = values.get("p_execute", np.zeros(0))
    if ((chance < 0) | (chance > 1)).any():
        raise _Wrong("p_execute must be from 0 to 1")
    return site, tokens, values


def _numbers(value: Any, key: str) -> npt.NDArray[Any]:
    """Return a list of numbers, or what was packed; NaN where a token was not asked."""
    if isinstance(value, list):
        return _floats(value, key)
    ((kind, packed),) = value.items()
    try:
        raw = base64.b64decode(packed, validate=True)
        found = np.frombuffer(raw, np.dtype(kind).newbyteorder("<")).astype(np.float64)
    except ValueError as error:
        raise _Wrong(f"{key} cannot be unpacked ({error})") from None
    return _floats(found, key)


def _floats(values: Any, key: str) -> npt.NDArray[np.float64]:
    """Return numbers, NaN for null; a trace keeps them in single precision."""
    try:
        found = np.array(values, dtype=np.float64)
        finite = not (np.abs(found) > np.finfo(np.float32).max).any()
    except OverflowError:
        finite = False
    if not finite:
        raise _Wrong(f"{key} has values that are not finite, or too large")
    return found


def _trace(read: _Recording, kept: int) -> Trace:
    """Assemble the trace of the first tokens of a recording, in order of their sequences."""
    sites = _sites(read.head["sites"])
    matrices: dict[str, npt.NDArray[Any]] = {
        name: np.full(
            (read.count, sites.height), np.nan if NUMPY[name] is np.float32 else 0, NUMPY[name]
        )
        for name in MATRICES
    }
    for site, tokens, values in read.gates:
        ran = matrices["exec_count"][tokens, site].astype(np.int64) + values["exec_count"].astype(
            int
        )
        if (ran > 255).any():
            raise TraceError(f"A unit at site {site} ran more than 255 times for a token.")
        matrices["exec_count"][tokens, site] = ran
        for name in values.keys() - {"exec_count"}:
            known = ~np.isnan(values[name])
            matrices[name][tokens[known], site] = values[name][known]
    sequence = np.array([number or 0 for number in read.tokens["sequence"][:kept]], dtype=np.int64)
    order = np.argsort(sequence, kind="stable")
    return Trace(
        run=_run(read.head),
        sites=sites,
        tokens=_tokens(read, order, sequence, matrices["exec_count"], sites),
        matrices={name: matrix[order] for name, matrix in matrices.items()},
    )


def _run(head: dict[str, Any]) -> pl.DataFrame:
    row: dict[str, Any] = dict.fromkeys(RUN)
    row |= {key: value for key, value in head.items() if key in RUN}
    recorded = head.get("recorded_with") or {}
    row |= {f"{name}_version": recorded.get(name) for name in ("torch", "transformers")}
    return pl.DataFrame([row], schema=RUN)


def _sites(sites: list[dict[str, Any]]) -> pl.DataFrame:
    rows = [
        dict.fromkeys(SITES)
        | {"site": index, "label": site_label(site["layer"], site["unit"], site.get("visit", 0))}
        | {"visit": 0}
        | site
        for index, site in enumerate(sites)
    ]
    return pl.DataFrame(rows, schema=SITES)


def _tokens(
    read: _Recording,
    order: npt.NDArray[np.int64],
    sequence: npt.NDArray[np.int64],
    exec_count: npt.NDArray[Any],
    sites: pl.DataFrame,
) -> pl.DataFrame:
    told = {key: [column[place] for place in order] for key, column in read.tokens.items()}
    number = np.unique(sequence[order], return_inverse=True)[1]
    first = np.searchsorted(number, number)
    lengths = np.array([len(text) for text in told["text"]], dtype=np.int64)
    end = np.cumsum(lengths)
    start = end - lengths
    layers = read.head.get("layers")
    used, depth = depth_columns(sites, exec_count[order], layers=layers)
    return pl.DataFrame(
        dict.fromkeys(TOKENS)
        | {
            "token": np.arange(len(order)),
            "source": [
                told["source"][place] or f"text {number[place]}" for place in range(len(order))
            ],
            "sequence": number,
            "position": np.arange(len(order)) - first,
            "token_id": told["id"],
            "text": told["text"],
            "char_start": start - start[first],
            "char_end": end - start[first],
            "span": np.arange(len(order)),
            "phase": told["phase"],
            **{name: told[name] for name in ("nll", "surprisal", "entropy", *CLASS_COLUMNS)},
            "layers_used": used,
            "exit_depth": depth,
        },
        schema=TOKENS,
    )


def open_recording(path: Path) -> tuple[Trace, int]:
    """Return the trace of a recording's file, and how many tokens were cut off at its end."""
    if path.exists() and not path.is_file():
        raise TraceError(f"{path} is a folder, a pipe or a device, not a file. Name a recording.")
    try:
        with path.open("rb") as lines:
            return read_recording(lines, name=path.name)
    except OSError as error:
        raise TraceError(f"{path} cannot be read ({error.strerror}).") from error
