"""Gates and adapters as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from skipviz.errors import ModelError
from skipviz.families.gated.modules import gate_parameters
from skipviz.families.weights import read_parameters, write_parameters


def write_gates(model: Any, path: Path, *, adapters: bool = True) -> None:
    """Write the gates of a model, and its adapters if asked."""
    parameters = gate_parameters(model)
    write_parameters({n: p for n, p in parameters.items() if adapters or not is_adapter(n)}, path)


def read_gates(model: Any, path: Path, *, adapters: Path | None = None) -> None:
    """Read gates and adapters into a model that has them.

    Parameters
    ----------
    model
        A model with gated units.
    path
        A safetensors file.
    adapters
        The file to take the adapters from; the same if there is none.

    Raises
    ------
    ModelError
        If the file holds other gates, or gates of another shape.
    """
    shared = {} if adapters is None else load_file(adapters)
    also = {name: value for name, value in shared.items() if is_adapter(name)}
    read_parameters(gate_parameters(model), path, also=also)


def read_adapters(model: Any, path: Path) -> None:
    """Read the adapters of another model's gates into a model, and nothing else.

    Parameters
    ----------
    model
        A model with gated units.
    path
        A safetensors file of gates on the same units, each with its adapter.

    Raises
    ------
    ModelError
        If an adapter is missing or of another shape.
    """
    tensors = load_file(path)
    parameters = {n: value for n, value in gate_parameters(model).items() if is_adapter(n)}
    for name, parameter in parameters.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise ModelError(
                f"{path} has no adapter {name} of shape {tuple(parameter.shape)}; start from gates "
                "on the same layers, learned on the same backbone."
            )
        with torch.no_grad():
            parameter.copy_(tensors[name])


def without_sites(
    parameters: Mapping[str, nn.Parameter], idle: set[int]
) -> dict[str, nn.Parameter]:
    """Return the parameters but for those of some sites, numbered in running order."""
    sites = list(dict.fromkeys(_site(name) for name in parameters))
    gone = {site for number, site in enumerate(sites) if number in idle}
    return {name: value for name, value in parameters.items() if _site(name) not in gone}


def is_adapter(parameter: str) -> bool:
    """Say whether a stored parameter is an adapter's."""
    return ".adapter." in parameter


def _site(parameter: str) -> str:
    layer, unit, _ = parameter.split(".", 2)
    return f"{layer}.{unit}"
