"""What learnt, as a file: written in bfloat16, read into a model that has the places for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from skipviz.atomic import written
from skipviz.errors import ModelError
from skipviz.families.exits.modules import EarlyExits, exit_parameters
from skipviz.families.gated.modules import gate_parameters

Rates = Mapping[str, Sequence[float]]


def write_gates(model: Any, path: Path, *, rates: Rates, adapters: bool = True) -> None:
    """Write the gates of a model, and its adapters if asked; ``rates`` as for ``read_gates``."""
    tensors = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in _stored(model, rates).items()
        if adapters or not _is_adapter(name)
    }
    with written(path) as partial:
        save_file(tensors, partial)


def read_gates(model: Any, path: Path, *, rates: Rates, adapters: Path | None = None) -> None:
    """Read gates and adapters into a model.

    Parameters
    ----------
    model
        A model with gated units.
    path
        A safetensors file.
    rates
        Rates of every site for each budget, where they are fixed: adapters that none of them ever
        uses are not in the file. Empty for gates that were learned.
    adapters
        The file to take the adapters from; the same if there is none.

    Raises
    ------
    ModelError
        If the file holds other gates, or gates of another shape.
    """
    tensors = load_file(path)
    if adapters is not None:
        shared = load_file(adapters)
        tensors |= {name: value for name, value in shared.items() if _is_adapter(name)}
    parameters = _stored(model, rates)
    if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in parameters.items()}:
        raise ModelError(
            f"{path} holds other gates than the configuration beside it says; train the model "
            "again."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


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
    parameters = {n: value for n, value in gate_parameters(model).items() if _is_adapter(n)}
    for name, parameter in parameters.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise ModelError(
                f"{path} has no adapter {name} of shape {tuple(parameter.shape)}; start from gates "
                "on the same layers, learned on the same backbone."
            )
        with torch.no_grad():
            parameter.copy_(tensors[name])


def _stored(model: Any, rates: Rates) -> dict[str, nn.Parameter]:
    """Return the parameters that some token uses; sites are in the order of ``rates``."""
    if isinstance(getattr(model, "exits", None), EarlyExits):
        return exit_parameters(model)
    parameters = gate_parameters(model)
    if not rates:
        return parameters
    sites = list(dict.fromkeys(_site(name) for name in parameters))
    idle = {
        site
        for number, site in enumerate(sites)
        if all(each[number] == 1 for each in rates.values())
    }
    return {name: value for name, value in parameters.items() if _site(name) not in idle}


def _is_adapter(parameter: str) -> bool:
    return ".adapter." in parameter


def _site(parameter: str) -> str:
    layer, unit, _ = parameter.split(".", 2)
    return f"{layer}.{unit}"
