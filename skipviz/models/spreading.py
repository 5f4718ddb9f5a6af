"""A model over several devices, by accelerate: what does not fit on cards waits in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skipviz.errors import InputError, ModelError
from skipviz.models.progress_bars import no_bars

AUTO = "auto"
"""The device of a model that is spread over all that there are."""
OFFLOADED = ("cpu", "disk")
"""Where weights of a spread model wait, unless all of it is there."""


def spread_over_cards(model: nn.Module) -> None:
    """Put a model that is in memory on the cards of this machine; what does not fit stays there.

    Raises
    ------
    ModelError
        If a module cannot be placed.
    """
    if not torch.accelerator.is_available():
        return
    devices = card_map(model)
    if len(set(devices.values())) == 1:
        model.to(next(iter(devices.values())))
    else:
        spread(model, devices)


def card_map(
    model: nn.Module, most: Mapping[int | str, int] | None = None
) -> dict[str, int | str | torch.device]:
    """Return which module goes where: on the cards as far as they go, the rest in memory.

    Parameters
    ----------
    model
        The model, in memory.
    most
        Bytes that each card may hold; None: what is free on each.
    """
    from accelerate import infer_auto_device_map  # type: ignore[import-untyped]
    from accelerate.utils import get_max_memory  # type: ignore[import-untyped]

    found = dict(get_max_memory() if most is None else most)
    # All of it is in memory already, whatever is free there beside it.
    found["cpu"] = 2 * sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    with no_bars():
        devices: dict[str, int | str | torch.device] = infer_auto_device_map(
            model, max_memory=found, no_split_module_classes=_whole(model)
        )
    return devices


def spread(
    model: nn.Module,
    devices: Mapping[str, int | str | torch.device],
    *,
    folder: Path | None = None,
) -> None:
    """Put the modules of a model on devices, and bring each layer to its own when it runs.

    Parameters
    ----------
    model
        The model, in memory.
    devices
        Device of each module, by its name: a card, ``cpu`` or ``disk``.
    folder
        Where weights on ``disk`` are.

    Raises
    ------
    ModelError
        If a module cannot be placed.
    """
    from accelerate import dispatch_model

    try:
        with no_bars():
            # What is decided in a layer reads weights of its parts, so a layer comes as a whole.
            dispatch_model(
                model, device_map=dict(devices), main_device=_main(devices), offload_dir=folder,
                preload_module_classes=_whole(model),
            )  # fmt: skip
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(
            f"The model cannot be spread over devices ({error!s:.300}). Load it on one, such as "
            "device='cpu'."
        ) from error


def main_device(model: Any) -> torch.device:
    """Return where a spread model takes its input; where the weights are, of any other."""
    devices = _spread_over(model)
    if not devices:
        device: torch.device = next(model.parameters()).device
        return device
    main = _main(devices)
    if not isinstance(main, int):
        return torch.device(str(main))
    kind = torch.accelerator.current_accelerator()
    return torch.device("cpu" if kind is None else kind.type, main)


def check_not_spread(model: Any, what: str) -> None:
    """Check that the weights of a model are all where they can be read.

    Raises
    ------
    InputError
        Says what needs that.
    """
    if _spread_over(model):
        raise InputError(
            f"{what} needs all weights on one device, and this model is spread over several. Load "
            "it on one, such as device='cpu'."
        )


def _spread_over(model: Any) -> Mapping[str, int | str | torch.device]:
    """Return the device of each module; none where one device holds them all."""
    devices: Mapping[str, int | str | torch.device] = getattr(model, "hf_device_map", None) or {}
    named = {str(each) for each in devices.values()}
    return devices if len(named) > 1 or "disk" in named else {}


def _main(devices: Mapping[str, int | str | torch.device]) -> int | str | torch.device:
    cards = [each for each in devices.values() if str(each) not in OFFLOADED]
    return cards[0] if cards else "cpu"


def _whole(model: nn.Module) -> list[str]:
    """Return the classes of modules that stay together: the layers."""
    return sorted(getattr(model, "_no_split_modules", None) or ())
