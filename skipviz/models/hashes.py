"""What tells one model from another: its weights, and all else that decides what it computes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from skipviz.home import sha256_of
from skipviz.models.spreading import check_not_spread

if TYPE_CHECKING:
    from skipviz.models.handle import SkipModel

SETUP_FILES = (
    "config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "*.py",
)  # fmt: skip
"""Files beside the weights that decide what a text becomes and what is computed."""
SAYS_NOTHING = frozenset({
    "transformers_version", "_name_or_path", "_model_name_or_path", "dtype", "torch_dtype",
})  # fmt: skip
"""Fields of a configuration that decide nothing; the precision is chosen in loading."""

SAMPLED = 512
"""Numbers of each parameter that a glance takes in."""


def weights_sha256(folder: Path) -> str:
    """Hash the files: what they say is the same whatever type they are loaded in."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()


def setup_sha256(folder: Path) -> str:
    """Hash configuration, tokenizer and code of a folder."""
    digest = hashlib.sha256()
    found = {path for pattern in SETUP_FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(found):
        own = _config_sha256(path) if path.name == "config.json" else sha256_of(path)
        digest.update(f"{path.name} {own}\n".encode())
    return digest.hexdigest()


def memory_sha256(model: SkipModel) -> str:
    """Hash all that a model in memory computes with: numbers, thresholds too, and configuration.

    A file's hash would not know of a change in memory.

    Raises
    ------
    InputError
        If the model is spread over several devices.
    """
    check_not_spread(model.model, "A fingerprint of a model in memory")
    config = json.dumps(model.model.config.to_dict(), sort_keys=True, default=str)
    digest = hashlib.sha256(f"{type(model.model).__qualname__}\n{config}".encode())
    for named in (model.model.named_parameters(), model.model.named_buffers()):
        for name, tensor in named:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sampled_sha256(model: SkipModel) -> str:
    """Hash some numbers of each parameter and buffer, spread over it: what a glance can tell.

    It takes milliseconds where ``memory_sha256`` takes seconds. A change that leaves some numbers
    of a large matrix as they are, such as that of a single row, may be missed.
    """
    found: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in (*model.model.parameters(), *model.model.buffers()):
        flat = tensor.detach().reshape(-1)
        # An odd step, so that it goes through all columns of a matrix.
        some = flat[:: max(1, len(flat) // SAMPLED) | 1]
        found.setdefault((tensor.dtype, tensor.device), []).append(some)
    digest = hashlib.sha256()
    for several in found.values():
        digest.update(torch.cat(several).cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def run_setup_sha256(model: SkipModel) -> str | None:
    """Hash what decides beside the weights in a run of a model; None where it is not known."""
    if not model.setup_sha256:
        return None
    setting = "" if model.setting is None else model.setting.key
    return hashlib.sha256(f"{model.setup_sha256}\n{setting}".encode()).hexdigest()


def _config_sha256(path: Path) -> str:
    fields = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(fields, dict):
        fields = {name: value for name, value in fields.items() if name not in SAYS_NOTHING}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
