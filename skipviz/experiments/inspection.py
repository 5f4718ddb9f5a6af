"""Looks for modules that may be gates, and proposes how to describe them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skipviz.errors import ModelError
from skipviz.experiments.checkup.running import short_text
from skipviz.experiments.checkup.subject import Subject
from skipviz.experiments.checkup.units import added_by_units
from skipviz.families.causal_lm import layer_list
from skipviz.families.dense import Dense
from skipviz.families.described.reading import read_gate
from skipviz.families.described.spec import GateSpec, to_fields
from skipviz.families.hooks import after, hooked
from skipviz.families.powers import Place
from skipviz.families.unknown import is_named_like_a_gate
from skipviz.models import from_parts
from skipviz.models.loading import parts_of
from skipviz.schema import Unit
from skipviz.text.arguments import checked

MOST_NUMBERS = 3
"""Numbers per token that a gate may emit: a score, or skip and run, or skip, run and repeat."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Modules that may be gates, and how they would be described.

    Attributes
    ----------
    spec
        The description; ``skipviz.from_parts(..., family=spec)`` reads the gates by it.
    layers
        How many layers have such a module.
    emits
        Shape and range of what it emits.
    named
        Whether its name is that of a gate.
    agreement
        For which share of tokens and layers the unit added something to the hidden states just
        where the description says that it ran; None: no unit ever adds exactly nothing, as where
        an adapter stands in, so nothing can be said.

    Examples
    --------
    >>> skipviz.inspect(routed, tokenizer)[0]
    Proposal(GateSpec('model.layers.{layer}.router', block, gt), 6 layers, agreement 100%)
    """

    spec: GateSpec
    layers: int
    emits: str
    named: bool
    agreement: float | None

    def __repr__(self) -> str:
        agreed = "unknown" if self.agreement is None else f"{self.agreement:.0%}"
        return f"Proposal({self.spec}, {self.layers} layers, agreement {agreed})"


@checked
def inspect(model: Any, tokenizer: Any, *, text: str | None = None) -> list[Proposal]:
    """Look for modules that may be gates, and propose a description of each kind.

    Every way of reading what a module emits is tried on a short text, and that kept under which
    units add nothing to the hidden states just where they are said to be skipped.

    Parameters
    ----------
    model, tokenizer
        A transformers causal LM and its tokenizer.
    text
        What is run, at most 128 tokens; None: a short text of prose and code.

    Returns
    -------
    list of Proposal
        The most likely first: names of gates before others, then by agreement. Empty if no module
        of a layer emits one to three numbers per token.

    Raises
    ------
    ModelError
        If the model does not run the text.

    Examples
    --------
    >>> proposals = skipviz.inspect(routed, tokenizer)
    >>> mine = skipviz.from_parts(routed, tokenizer, family=proposals[0].spec)
    >>> mine.family.name
    'described'
    """
    handle = from_parts(model, tokenizer, family=Dense())
    ids = short_text(handle, text)
    subject = Subject(model=handle, ids=ids)
    try:
        emitted = _emitted(subject)
        added = _added(subject)
    except Exception as error:  # whatever the model's own code raises
        raise ModelError(
            f"The model does not run a text of {ids.shape[1]} tokens ({type(error).__name__}: "
            f"{error!s:.200})."
        ) from error
    found = [
        _proposal(pattern, values, added, tokens=ids.shape[1])
        for pattern, values in emitted.items()
    ]
    return sorted(found, key=lambda each: (not each.named, -(each.agreement or 0.0), -each.layers))


def proposed_gates(name: str, *, text: str | None = None, trust: bool = False) -> str:
    """Load a model that skipviz may not know, and return a description of its gates in YAML.

    Parameters
    ----------
    name
        A folder or a hub name.
    text
        As of ``inspect``.
    trust
        Whether Python code that comes with it may run.

    Raises
    ------
    ModelError
        If it cannot be loaded or run, or has no module that may be a gate.
    """
    model, tokenizer, *_ = parts_of(name, trust=trust)
    proposals = inspect(model, tokenizer, text=text)
    if not proposals:
        raise ModelError(
            f"{name} has no gates that could be found: no module of a layer emits one to three "
            "numbers per token."
        )
    return proposals_yaml(proposals)


def proposals_yaml(proposals: Sequence[Proposal]) -> str:
    """Return proposals as YAML, each with what was seen; all but the first are comments."""
    import yaml

    lines = []
    for place, each in enumerate(proposals):
        agreed = "unknown" if each.agreement is None else f"{each.agreement:.0%}"
        lines.append(f"# {each.layers} layers, emits {each.emits}, agreement {agreed}")
        described = yaml.safe_dump(to_fields(each.spec), sort_keys=False).splitlines()
        lines += [f"# {line}" if place else line for line in described]
    return "\n".join(lines)


def _emitted(subject: Subject) -> dict[str, dict[int, Tensor]]:
    """Return what modules with few outputs emitted, by pattern and layer."""
    found: dict[str, dict[int, Tensor]] = {}
    rows, tokens = subject.ids.shape

    def keep(pattern: str, layer: int) -> Any:
        def hook(_: nn.Module, args: Any, result: Any) -> None:
            for path, value in _tensors(result):
                per_token = value.shape[:2] == (rows, tokens)
                few = value.ndim == 2 or (value.ndim == 3 and 1 <= value.shape[2] <= MOST_NUMBERS)
                if value.is_floating_point() and per_token and few:
                    found.setdefault(f"{pattern} {path}", {})[layer] = value.detach().clone()

        return hook

    hooks = []
    for name, module in subject.model.model.named_modules():
        numbers = re.findall(r"(?<=\.)(\d+)(?=\.|$)", name)
        if len(numbers) == 1:
            pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{layer}", name)
            hooks.append(after(module, keep(pattern, int(numbers[0]))))
    with hooked(hooks):
        subject.run(subject.ids)
    return found


def _tensors(result: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in what a module returned, with the paths to them."""
    if isinstance(result, Tensor):
        yield "output", result
    elif isinstance(result, dict):
        yield from ((f"output.{key}", v) for key, v in result.items() if isinstance(v, Tensor))
    elif isinstance(result, tuple | list):
        pairs = enumerate(result)
        yield from ((f"output.{place}", v) for place, v in pairs if isinstance(v, Tensor))


def _added(subject: Subject) -> dict[tuple[int, str], npt.NDArray[np.bool_]]:
    """Return for which tokens each unit of each layer added anything, where that is known."""
    keys = [
        (number, unit, layer)
        for number, layer in enumerate(layer_list(subject.model.model) or ())
        for unit in get_args(Unit)
    ]
    found = added_by_units(
        [unit for _, unit, _ in keys],
        [Place(layer, around=layer) for _, _, layer in keys],
        lambda: subject.run(subject.ids),
    )
    return {keys[number][:2]: ran for number, ran in found.items()}


def _proposal(
    pattern: str,
    values: dict[int, Tensor],
    added: dict[tuple[int, str], npt.NDArray[np.bool_]],
    *,
    tokens: int,
) -> Proposal:
    module, _, read = pattern.rpartition(" ")
    every = torch.cat([value.flatten() for value in values.values()]).float()
    first = next(iter(values.values()))
    numbers = first.shape[2] if first.ndim == 3 else 1
    inside = bool(((every >= 0) & (every <= 1)).all())
    agreements = {
        spec: _agreement(spec, values, added, tokens=tokens)
        for spec in _ways(module, read, numbers, inside=inside)
    }
    best = max(agreements, key=lambda spec: agreements[spec])
    known = any(not ran.all() for ran in added.values())
    return Proposal(
        spec=best,
        layers=len(values),
        emits=f"{list(first.shape)}, {every.min():.3g} to {every.max():.3g}",
        named=is_named_like_a_gate(module.rpartition(".")[2]),
        agreement=agreements[best] if known else None,
    )


def _ways(module: str, read: str, numbers: int, *, inside: bool) -> Iterator[GateSpec]:
    """Yield every way in which such numbers may decide."""
    units = ("block", "attn", "mlp")
    named = module.rpartition(".")[2].lower()
    likely = "attn" if "att" in named else "mlp" if "mlp" in named or "ffn" in named else "block"
    for unit in (likely, *(each for each in units if each != likely)):
        base: dict[str, Any] = {"module": module, "unit": unit, "read": read}
        if numbers == 1:
            limit = {"threshold": 0.5} if inside else {"activation": "sigmoid", "threshold": 0.5}
            for executes in ("high", "low"):
                yield GateSpec(**base, **limit, executes=executes)
        else:
            for number in range(numbers):
                yield GateSpec(**base, rule="argmax", executes=number)


def _agreement(
    spec: GateSpec,
    values: dict[int, Tensor],
    added: dict[tuple[int, str], npt.NDArray[np.bool_]],
    *,
    tokens: int,
) -> float:
    """Return for which share of tokens a unit added something just where it is said to run.

    0 where nothing is known of such a unit.
    """
    agreed: list[npt.NDArray[np.bool_]] = []
    for layer, value in values.items():
        if (layer, spec.unit) in added:
            given = read_gate(spec, value, shape=(1, tokens), threshold=spec.threshold)
            agreed.append(given.ran[0].cpu().numpy() == added[layer, spec.unit])
    return float(np.concatenate(agreed).mean()) if agreed else 0.0
