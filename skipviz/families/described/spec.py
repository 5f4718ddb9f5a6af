"""What is to be said of gates, so that skipviz can read them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from torch import nn

from skipviz.errors import InputError
from skipviz.families.described.checks import Activation, DescribedRule, check_fields
from skipviz.schema import KeyValue, Scope, SkipPath, Unit

SIMILAR_SHOWN = 8
"""Modules that an error names."""


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """A description of gates: where they are, what they emit, and when a unit runs.

    Attributes
    ----------
    module
        Name of the modules that score, with ``{layer}`` for the number:
        ``model.layers.{layer}.router``.
    unit
        What is skipped: ``block``, ``attn`` or ``mlp``.
    layers
        Layers that have such a gate; None: wherever the module is found.
    read
        What holds the scores: ``output`` or ``input`` of the module, with a path into it
        (``output.1``, ``output.logits``); or ``:name``, an attribute of the module, or
        ``NAME OF MODULE:name``, one of another module after it has run.
    pick
        Which of several numbers per token is the score; ``"difference"`` is the second less the
        first. None: there is one.
    activation
        What the model applies to the score before it compares it: ``sigmoid``, ``tanh``, or, with
        ``argmax``, ``softmax``. The score itself is kept as it is.
    rule
        How a score becomes a decision: above a threshold (``gt``), at least one (``ge``), the
        largest of several classes (``argmax``), the ``k`` largest of the tokens (``topk``), above a
        quantile of them (``quantile``), or at random (``sample``, which needs ``mask``).
    threshold
        What the activated score is compared with, a number or a path as in ``read``; of ``gt`` and
        ``ge``. Where tokens are ranked, a trace has the middle between the lowest score that
        ran and the highest that did not.
    k
        For ``topk`` how many tokens run: a whole number, or a number with a decimal point for a
        share of the text's, or a path to either; for ``quantile`` the share of tokens that skip.
    strict
        For ``topk``: only scores above the k-th largest run, so that k - 1 do; all that are equal
        to it where k is 1.
    executes
        Which scores execute: ``high`` or ``low``; for ``argmax`` the number of the class.
    scope
        For whom one decision is taken: ``token``, ``sequence`` or ``batch``.
    mask
        A path, as in ``read``, to the decisions as the model made them, where there is one: 0 or 1,
        or how often the unit ran.
    mask_executes
        Which value of the mask executes, 1 or 0.
    skip_path, kv, computed_anyway
        What replaces a skipped unit, what later tokens see of a skipped one, and whether it is
        computed all the same; None: unknown.
    name
        What the family is called.

    Raises
    ------
    InputError
        If a field does not fit; the message names it and what would.

    Examples
    --------
    >>> skipviz.GateSpec(module="model.layers.{layer}.router", activation="sigmoid", threshold=0.5)
    GateSpec('model.layers.{layer}.router', block, gt)
    """

    module: str
    unit: Unit = "block"
    layers: Sequence[int] | None = None
    read: str = "output"
    pick: int | Literal["difference"] | None = None
    activation: Activation | None = None
    rule: DescribedRule = "gt"
    threshold: float | str = 0.0
    k: int | float | str | None = None
    strict: bool = False
    executes: Literal["high", "low"] | int = "high"
    scope: Scope = "token"
    mask: str | None = None
    mask_executes: Literal[0, 1] = 1
    skip_path: SkipPath | None = None
    kv: KeyValue | None = None
    computed_anyway: bool | None = None
    name: str = "described"

    def __repr__(self) -> str:
        return f"GateSpec({self.module!r}, {self.unit}, {self.rule})"

    def __post_init__(self) -> None:
        if isinstance(self.layers, list | range):
            object.__setattr__(self, "layers", tuple(self.layers))
        check_fields(self)

    @property
    def polarity(self) -> Literal[1, -1]:
        """+1 where a high score executes, -1 where it skips."""
        return -1 if self.executes == "low" else 1

    @property
    def forcible(self) -> bool:
        """Whether replacing what the gate emits decides: not where tokens are ranked."""
        return self.rule not in ("topk", "quantile") and self.read.startswith("output")

    def modules(self, model: nn.Module) -> dict[int, nn.Module]:
        """Return the gates of a model by layer.

        Raises
        ------
        InputError
            If there are none, or one of ``layers`` has none; names modules that look alike.
        """
        return matching(model, self.module, field="module", layers=self.layers)


def matching(
    model: nn.Module, pattern: str, *, field: str, layers: Sequence[int] | None = None
) -> dict[int, nn.Module]:
    """Return the modules that a pattern names, by layer.

    Parameters
    ----------
    model
        Where to look.
    pattern
        A name with ``{layer}`` in it.
    field
        Where the pattern stands, for an error.
    layers
        Layers wanted; None: those that have one.

    Raises
    ------
    InputError
        If there are none, or one of ``layers`` has none.
    """
    named = dict(model.named_modules())
    form = _form(pattern)
    found = {int(hit[1]): named[hit[0]] for name in named if (hit := form.fullmatch(name))}
    wanted = sorted(found) if layers is None else list(layers)
    missing = [layer for layer in wanted if layer not in found]
    if missing or not found:
        which = "" if not missing else f" of layer {missing[0]}"
        raise InputError(
            f"GateSpec.{field}={pattern!r} names no module{which} of this {type(model).__name__}. "
            f"There are {', '.join(similar(pattern, named)) or 'none'}."
        )
    return {layer: found[layer] for layer in wanted}


def has(model: nn.Module, pattern: str) -> bool:
    """Return whether a pattern names a module of a model."""
    form = _form(pattern)
    return any(form.fullmatch(name) for name, _ in model.named_modules())


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{layer\}", r"(\d+)"))


def similar(pattern: str, names: Mapping[str, Any]) -> list[str]:
    """Return names of modules like a pattern, numbers written as ``{layer}``, the nearest first."""
    forms = {re.sub(r"(?<=\.)\d+(?=\.|$)", "{layer}", name, count=1) for name in names if name}
    return difflib.get_close_matches(pattern, sorted(forms), n=SIMILAR_SHOWN, cutoff=0.0)


def read_gate_specs(path: Path) -> tuple[GateSpec, ...]:
    """Read descriptions from a YAML file: one, or a list of them.

    Raises
    ------
    InputError
        If the file cannot be read, or a field is unknown or does not fit.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is no file; give one that describes gates in YAML.")
        if path.stat().st_size > 1 << 20:
            raise InputError(f"{path} is larger than 1 MiB; a description of gates is short.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as YAML ({error!s:.300}).") from error
    return gate_specs_in(text, name=str(path))


def gate_specs_in(text: str, *, name: str) -> tuple[GateSpec, ...]:
    """Return the descriptions that a text in YAML gives.

    Parameters
    ----------
    text
        One description, or a list of them.
    name
        What the text is called in errors.

    Raises
    ------
    InputError
        If it is no YAML, or a field is unknown or does not fit.
    """
    import yaml

    try:
        found = yaml.safe_load(text)
    # Dates that do not exist, for one, are a ValueError of the parser.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{name} cannot be read as YAML ({error!s:.300}).") from error
    described = found if isinstance(found, list) else [found]
    if not described:
        raise InputError(f"{name} describes no gates.")
    return tuple(gate_spec(each) for each in described)


def gate_spec(described: Any) -> GateSpec:
    """Return the description that a mapping, as read from YAML, gives.

    Raises
    ------
    InputError
        If it is no mapping, or a field is unknown, missing or does not fit.
    """
    known = [field.name for field in fields(GateSpec)]
    if not isinstance(described, dict):
        raise InputError(f"A description of gates has fields such as module: and unit:; this is a "
                         f"{type(described).__name__}.")  # fmt: skip
    for name in described:
        if name not in known:
            said = str(name)[:60] if isinstance(name, str) else f"a {type(name).__name__}"
            near = difflib.get_close_matches(said, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}."
            raise InputError(f"GateSpec has no field {said!r}{meant}")
    if "module" not in described:
        raise InputError("GateSpec.module is missing: the name of the gates, with {layer} in it.")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(GateSpec)}
    given = defaults | described
    if isinstance(given["layers"], list):  # as YAML has it
        given["layers"] = tuple(given["layers"])
    check_fields(SimpleNamespace(**given))
    if type(given["threshold"]) is int:
        given["threshold"] = float(given["threshold"])
    return GateSpec(**given)


def to_fields(spec: GateSpec) -> dict[str, Any]:
    """Return the fields of a description that differ from the defaults, for YAML."""
    given = {field.name: getattr(spec, field.name) for field in fields(spec)}
    plain = {
        name: list(value) if isinstance(value, tuple) else value for name, value in given.items()
    }
    return {
        field.name: plain[field.name]
        for field in fields(spec)
        if given[field.name] != field.default
    }
