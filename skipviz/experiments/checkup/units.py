"""What the unit of each site adds to hidden states, and is given, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from skipviz.families import Family
from skipviz.families.causal_lm import layer_list
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import states_given, states_made
from skipviz.families.powers import KnowsPlaces, Place
from skipviz.schema import Site

LINEAR_OF = {
    "attn": ("q_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
}
"""Linear layers of each unit that a skipped token does not need; keys and values it may."""


def places_of(family: Family, model: nn.Module) -> list[Place]:
    """Return where the unit of each site is; none where that is not known."""
    if isinstance(family, KnowsPlaces):
        return family.places(model)
    layers = list(layer_list(model) or ())
    sites = family.sites(model)
    if any(site.layer >= len(layers) for site in sites):
        return []
    return [Place(layers[site.layer], around=layers[site.layer]) for site in sites]


def rows_by_site(
    sites: Sequence[Site], places: Sequence[Place], run: Callable[[], object]
) -> dict[int, int]:
    """Return the largest number of tokens that a linear layer of each site's unit was given.

    Parameters
    ----------
    sites
        The sites.
    places
        Where the unit of each is.
    run
        Runs the model.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for number, (site, place) in enumerate(zip(sites, places, strict=False)):
        groups.setdefault((id(place.layer), site.unit), []).append(number)
    calls: dict[tuple[tuple[int, str], str], list[int]] = {}

    def count(group: tuple[int, str], name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, result: Tensor) -> None:
            calls.setdefault((group, name), []).append(result.shape[:-1].numel())

        return hook

    hooks = [
        after(module, count(group, path))
        for group, numbers in groups.items()
        for path, module in _linear(places[numbers[0]].layer, sites[numbers[0]].unit)
    ]
    with hooked(hooks):
        run()
    seen: dict[tuple[int, str], int] = {}
    for (group, name), rows in calls.items():
        numbers = groups[group]
        for call, given in enumerate(rows):
            # Visits of a module are its calls, one after the other.
            key = numbers[min(call, len(numbers) - 1)], name
            seen[key] = seen.get(key, 0) + given
    found: dict[int, int] = {}
    for (number, _), total in seen.items():
        found[number] = max(found.get(number, 0), total)
    return found


def _linear(layer: nn.Module, unit: str) -> list[tuple[str, nn.Module]]:
    """Return the linear layers of a unit; of a block whose parts have other names, all."""
    linear: dict[str, nn.Module] = {
        path: module for path, module in layer.named_modules() if isinstance(module, nn.Linear)
    }
    parts = LINEAR_OF if unit == "block" else {unit: LINEAR_OF[unit]}
    found = [
        (path, module)
        for path, module in linear.items()
        for part, names in parts.items()
        # What stands in for a skipped unit may be built of the same parts.
        if path.rpartition(".")[2] in names
        and ("self_attn" if part == "attn" else "mlp") in path.split(".")
    ]
    return found or (list(linear.items()) if unit == "block" else [])


def added_by_units(
    units: Sequence[str], places: Sequence[Place], run: Callable[[], object]
) -> dict[int, npt.NDArray[np.bool_]]:
    """Return for which tokens of a run each unit added anything, by its number, where known.

    What an MLP added is known where a layer has a norm called ``post_attention_layernorm``, which
    stands between attention and MLP.

    Parameters
    ----------
    units
        ``block``, ``attn`` or ``mlp``.
    places
        Where each is.
    run
        Runs the model.
    """
    around = {id(place.around): place.around for place in places if place.around is not None}
    seen: dict[tuple[int, str], Tensor] = {}
    with hooked([hook for module in around.values() for hook in _states(module, seen)]):
        run()
    found: dict[int, npt.NDArray[np.bool_]] = {}
    for number, (unit, place) in enumerate(zip(units, places, strict=False)):
        start, between, end = (
            seen.get((id(place.around), when)) for when in ("before", "between", "after")
        )
        if unit != "block":
            start, end = (start, between) if unit == "attn" else (between, end)
        if start is not None and end is not None and start.shape == end.shape:
            found[number] = (start != end).any(-1)[0].cpu().numpy()
    return found


def _states(layer: nn.Module, seen: dict[tuple[int, str], Tensor]) -> Iterator[Hook]:
    """Yield hooks that keep the states before, within and after a layer."""

    def keep(when: str) -> Callable[..., None]:
        def given(_: nn.Module, args: Any, kwargs: Any) -> None:
            seen[id(layer), when] = states_given(args, kwargs).detach().clone()

        return given

    def made(_: nn.Module, args: Any, result: Any) -> None:
        seen[id(layer), "after"] = states_made(result).detach().clone()

    yield before(layer, keep("before"), with_kwargs=True)
    yield after(layer, made)
    for name, module in layer.named_modules():
        if name.rpartition(".")[2] == "post_attention_layernorm":
            yield before(module, keep("between"), with_kwargs=True)
