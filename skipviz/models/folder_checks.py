"""Checks of a model's folder before and after it is loaded: what would run must be what is there.

transformers makes up weights that a folder lacks, and leaves out those that it does not know; both
are only logged. Here each is an error with a sentence of its own, before anything is shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from skipviz.errors import ModelError

MOST_JSON = 64 << 20
"""Bytes of a configuration or an index."""
MOST_LAYERS_BUILT = 2_000
NAMED = 3
"""Tensors that an error names."""


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; numbers in it are finite.

    Raises
    ------
    ModelError
        If it is no regular file, too large, is not JSON, or holds NaN or an infinite number.
    """
    check_regular(path)
    if path.stat().st_size > MOST_JSON:
        raise ModelError(f"{path} has more than {MOST_JSON >> 20} MiB; it cannot be read.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not readable JSON ({error}). Fetch or write it anew."
        ) from error
    if not _finite(value):
        raise ModelError(f"{path} holds a number that is NaN or infinite. Write it anew.")
    return value


def check_regular(path: Path) -> None:
    """Raise ``ModelError`` unless a path is a file that can be read to its end."""
    try:
        regular = path.is_file()
    except OSError as error:  # such as a loop of links
        raise ModelError(f"{path} cannot be opened ({error.strerror}).") from error
    if regular:
        return
    if path.exists() or path.is_symlink():
        raise ModelError(f"{path} is not a regular file. Put the model's own file in its place.")
    raise ModelError(f"There is no file {path}. Fetch or save the model anew.")


def check_dense_folder(folder: Path) -> None:
    """Check a folder of a transformers model before any of it is loaded.

    Raises
    ------
    ModelError
        If weights are missing or of another kind, a shard is missing, it is an adapter, or its
        configuration describes another model than its files hold.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ModelError(
            f"{folder} holds no .safetensors file. skipviz reads weights from safetensors only; "
            "save the model with save_pretrained()."
        )
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter (LoRA), not a whole model. Merge it into its base model "
            "(merge_and_unload() of peft), and save that."
        )
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} does not hold an object. Fetch it anew.")
    for path in shards:
        check_regular(path)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        _check_shards(folder, read_json(index))
    _check_size(folder, config, sum(map(_parameters, shards)))


def check_loaded(name: str, model: Any, info: Mapping[str, Iterable[Any]]) -> None:
    """Check what transformers says of the weights that it has loaded.

    Raises
    ------
    ModelError
        If any were made up, left out, or of another shape.
    """
    kinds = {
        "mismatched_keys": "of another shape than its configuration says",
        "missing_keys": "missing",
        "unexpected_keys": f"unknown to {type(model).__name__}, which would leave them out",
    }
    for kind, what in kinds.items():
        names = sorted(str(each[0] if isinstance(each, tuple) else each) for each in info[kind])
        if names:
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            raise ModelError(
                f"Weights of {name} are {what}: {', '.join(names[:NAMED])}{more}. What would run "
                "is not the model that was saved. Save it anew with save_pretrained(), or load it "
                "with the code that it was made with and hand it to skipviz.from_parts."
            )


def check_tokenizer(name: str, tokenizer: Any, model: Any) -> None:
    """Check that a model has an embedding for every token.

    Raises
    ------
    ModelError
        If the tokenizer has more.
    """
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"The tokenizer of {name} has {len(tokenizer):,} tokens and its model embeds {rows:,}. "
            "They are not of one model; use the tokenizer that it was trained with."
        )


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


def _check_shards(folder: Path, index: Any) -> None:
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict):
        raise ModelError(f"The index of shards in {folder} has no weight_map. Fetch it anew.")
    missing = sorted({str(file) for file in files.values() if not (folder / str(file)).is_file()})
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of its files of weights: {', '.join(missing[:NAMED])}. "
            "Fetch them."
        )


def _parameters(path: Path) -> int:
    """Return how many numbers stand in a file of weights, by its header."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged or not of safetensors. Fetch it anew.") from error


def _check_size(folder: Path, config: dict[str, Any], stored: int) -> None:
    """Check that the configuration describes a model of about the parameters that are there."""
    described = [config, *(each for each in config.values() if isinstance(each, dict))]
    for part in described:
        for name in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
            layers = part.get(name, 1)
            if not isinstance(layers, int) or not 0 < layers <= MOST_LAYERS_BUILT:
                raise ModelError(
                    f"{folder / 'config.json'} says {name} is {layers!r:.40}; it must be a number "
                    f"from 1 to {MOST_LAYERS_BUILT:,}."
                )
        for name in ("hidden_size", "intermediate_size", "vocab_size", "n_embd"):
            width = part.get(name)
            if isinstance(width, int) and width > stored:
                raise ModelError(
                    f"{folder / 'config.json'} says {name} is {width:,}; the files hold {stored:,} "
                    "numbers in all. They are not of one model."
                )
