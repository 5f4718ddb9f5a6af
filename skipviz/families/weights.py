"""Trained weights as a file: written in bfloat16, read into a model that has the places for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skipviz.atomic import atomic_write
from skipviz.errors import ModelError

Parameters = Mapping[str, nn.Parameter]


def write_parameters(parameters: Parameters, path: Path) -> None:
    """Write parameters by name, in bfloat16; the file is there whole or not at all."""
    tensors = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in parameters.items()
    }
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors))


def read_parameters(parameters: Parameters, path: Path, *, also: Mapping[str, Tensor]) -> None:
    """Read a file into parameters, which it must hold exactly.

    Parameters
    ----------
    parameters
        Where each tensor goes, by name.
    path
        A safetensors file.
    also
        Tensors that take the place of the file's, or that it lacks.

    Raises
    ------
    ModelError
        If names or shapes differ.
    """
    tensors = load_file(path) | dict(also)
    if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in parameters.items()}:
        raise ModelError(
            f"{path} holds other weights than the configuration beside it says; train the model "
            "again."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def weights_identity(*weights: Tensor) -> tuple[tuple[int, int], ...]:
    """Return what changes when weights are written to or exchanged."""
    return tuple((0 if each.is_inference() else each._version, each.data_ptr()) for each in weights)
