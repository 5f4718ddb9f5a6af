"""What each unit of a model adds to the hidden states of its tokens, seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from skipviz.experiments.checkup.subject import Subject
from skipviz.families.causal_lm import layer_list
from skipviz.families.hooks import after, before, hooked
from skipviz.families.llama import states_given, states_made


def added_by_units(subject: Subject) -> dict[tuple[int, str], npt.NDArray[np.bool_]]:
    """Return for which tokens each unit added anything to the hidden states, by layer and unit.

    What an MLP added is known where a layer has a norm called ``post_attention_layernorm``, which
    stands between attention and MLP.
    """
    model: Any = subject.model.model
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
        subject.run(subject.ids)
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
