"""What every script here shares: a text, token ids without a tokenizer, and the file of a reading.

Stands alone: the environments have torch and the package that is recorded, and not skipviz.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

TEXTS = [
    "The quick brown fox jumps over the lazy dog, twice.",
    "2 + 2 = 4, and 4 + 4 = 8.",
]
VOCABULARY = 96
"""Printable ASCII; the last is the end of a text."""
END = 95
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
"""Of every random Llama here, but for its layers."""


def encode(text: str) -> list[int]:
    """Return one id per character."""
    return [ord(letter) - 32 for letter in text]


def decode(ids: Sequence[int]) -> list[str]:
    """Return the text of each id."""
    return [chr(number + 32) if number < END else "|" for number in ids]


def write_reading(
    recording: Path,
    *,
    packages: Sequence[str],
    readings: dict[str, Any],
    seen: dict[str, Any] | None = None,
) -> None:
    """Write beside a recording what was read of the same run in other ways.

    Parameters
    ----------
    recording
        The file that the recorder wrote.
    packages
        Whose versions are noted.
    readings
        By the name of the way: times run of each token at each site, None where the way tells
        nothing, in the order of the trace: by sequence, then by position.
    seen
        What else was seen of the package.
    """
    values = {
        "packages": {name: version(name) for name in [*packages, "transformers", "torch"]},
        "readings": {name: _plain(matrix) for name, matrix in readings.items()},
        "seen": seen or {},
    }
    recording.with_suffix(".reading.json").write_text(json.dumps(values, indent=1), "utf-8")


def _plain(matrix: Any) -> Any:
    """Return tensors as lists, truth as numbers."""
    rows = matrix.tolist() if hasattr(matrix, "tolist") else matrix
    return [[None if value is None else int(value) for value in row] for row in rows]
