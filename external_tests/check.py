"""Compares what was recorded in another environment with what was read there in other ways.

Each recording must follow the schema, be read by `skipviz import`, and agree with every reading of
the same run in every decision. Each planted fault must be noticed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import skipviz
from skipviz.cli import app

SCHEMA = Path(skipviz.__file__).parent / "recording" / "trace_format.schema.json"
Matrix = npt.NDArray[Any]


def check(folder: Path) -> list[str]:
    """Check every recording of a folder; return what is wrong, and print what was compared."""
    wrong = []
    for path in sorted(folder.glob("*.reading.json")):
        name = path.name.removesuffix(".reading.json")
        told = json.loads(path.read_text("utf-8"))
        versions = " ".join(f"{package} {number}" for package, number in told["packages"].items())
        print(f"\n{name} ({versions})")
        trace = imported(folder / f"{name}.jsonl")
        ran = trace.matrix("exec_count").astype(np.int64)
        readings = {way: matrix_of(rows) for way, rows in told["readings"].items()}
        for way, reading in readings.items():
            if reading.shape != ran.shape:
                wrong.append(f"{name}: {ran.shape} was recorded and {reading.shape} read: {way}")
                continue
            known = ~np.isnan(reading)
            agreed = int((ran == reading)[known].sum())
            print(f"  {agreed:,} of {int(known.sum()):,} decisions agree: {way}")
            if agreed < known.sum() or not known.any():
                wrong.append(f"{name}: {way}")
        for fault, broken in faults(ran, folder, name):
            missed = [way for way, reading in readings.items() if same(broken, reading)]
            print(f"  fault noticed: {fault}" if not missed else f"  FAULT MISSED: {fault}")
            wrong += [f"{name}: the fault {fault!r} was not noticed ({way})" for way in missed]
        for what, value in told["seen"].items():
            print(f"  seen: {what}: {value}")
    return wrong


def imported(path: Path) -> skipviz.Trace:
    """Return a recording as the command of users makes it, once its lines follow the schema."""
    schema = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    for line in path.read_text("utf-8").splitlines():
        schema.validate(json.loads(line))
    output = path.with_suffix(".parquet")
    outcome = CliRunner().invoke(app, ["import", str(path), "-o", str(output)])
    if outcome.exit_code:
        raise RuntimeError(f"skipviz import {path.name}: {outcome.output}") from outcome.exception
    return skipviz.Trace.load(output)


def faults(ran: Matrix, folder: Path, name: str) -> Iterator[tuple[str, Matrix]]:
    """Give what faults would have recorded: some made here, some by the script of the package."""
    yield "polarity", np.where(ran > 0, 0, 1)
    for words, axis in (("one layer off", 1), ("one token off", 0)):
        broken = np.roll(ran, 1, axis=axis)
        if not np.array_equal(broken, ran):  # they all do the same: no such fault can be seen
            yield words, broken
    for path in sorted(folder.glob(f"{name}.fault-*.jsonl")):
        yield path.stem.rpartition("fault-")[2], imported(path).matrix("exec_count").astype(float)


def same(ran: Matrix, reading: Matrix) -> bool:
    """Say whether a reading has nothing against what was recorded."""
    if ran.shape != reading.shape:
        return False
    known = ~np.isnan(reading)
    return bool((ran == reading)[known].all())


def matrix_of(rows: list[list[int | None]]) -> Matrix:
    """Return a reading as numbers, NaN where it tells nothing."""
    return np.array(rows, dtype=np.float64)


if __name__ == "__main__":
    found = check(Path(sys.argv[1]))
    print("\n" + ("\n".join(found) if found else "Everything agrees, and every fault is noticed."))
    sys.exit(bool(found))
