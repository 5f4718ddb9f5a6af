"""What each unit of a model adds to hidden states, and is given, seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from skipviz.families.causal_lm import layer_list
from skipviz.families.hooks import after, before, hooked
from skipviz.families.llama import states_given, states_made

LINEAR_OF = {
    "attn": ("q_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
}
"""Linear layers of each unit that a skipped token does not need; keys and values it may."""


def rows_by_unit(model: nn.Module, run: Callable[[], object]) -> dict[tuple[int, str], int]:
    """Return the largest number of tokens that a linear layer of each unit was given in a run."""
    seen: dict[tuple[int, str, str], int] = {}

    def count(layer: int, unit: str, name: str) -> Any:
        def hook(_: nn.Module, args: Any, result: Tensor) -> None:
            rows = result.shape[:-1].numel()
            seen[layer, unit, name] = seen.get((layer, unit, name), 0) + rows

        return hook

    hooks = []
    for number, layer in enumerate(layer_list(model) or ()):
        for path, module in layer.named_modules():
            for unit, names in LINEAR_OF.items():
                # What stands in for a skipped unit may be built of the same parts.
                inside = ("self_attn" if unit == "attn" else "mlp") in path.split(".")
                if path.rpartition(".")[2] in names and inside and isinstance(module, nn.Linear):
                    hooks.append(after(module, count(number, unit, path)))
    with hooked(hooks):
        run()
    found: dict[tuple[int, str], int] = {}
    for (number, unit, _), rows in seen.items():
        found[number, unit] = max(found.get((number, unit), 0), rows)
    return found


def added_by_units(
    model: nn.Module, run: Callable[[], object]
) -> dict[tuple[int, str], npt.NDArray[np.bool_]]:
    """Return for which tokens of a run each unit added anything, by layer and unit.

    What an MLP added is known where a layer has a norm called ``post_attention_layernorm``, which
    stands between attention and MLP.
    """
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(layer: int, when: str) -> Callable[..., None]:
        def given(_: nn.Module, args: Any, kwargs: Any) -> None:
            seen[layer, when] = states_given(args, kwargs).detach().clone()

        def made(_: nn.Module, args: Any, result: Any) -> None:
            seen[layer, when] = states_made(result).detach().clone()

        return made if when == "after" else given

    hooks = []
    for number, layer in enumerate(layer_list(model) or ()):
        hooks.append(before(layer, keep(number, "before"), with_kwargs=True))
        hooks.append(after(layer, keep(number, "after")))
        for name, module in layer.named_modules():
            if name.rpartition(".")[2] == "post_attention_layernorm":
                hooks.append(before(module, keep(number, "between"), with_kwargs=True))
    with hooked(hooks):
        run()
    found: dict[tuple[int, str], npt.NDArray[np.bool_]] = {}
    for number in {number for number, _ in seen}:
        start, between, end = (seen.get((number, when)) for when in ("before", "between", "after"))
        if start is None or end is None or start.shape != end.shape:
            continue
        found[number, "block"] = _differ(start, end)
        if between is not None and between.shape == start.shape:
            found[number, "attn"] = _differ(start, between)
            found[number, "mlp"] = _differ(between, end)
    return found


def _differ(first: Tensor, second: Tensor) -> npt.NDArray[np.bool_]:
    differs: npt.NDArray[np.bool_] = (first != second).any(-1)[0].cpu().numpy()
    return differs
