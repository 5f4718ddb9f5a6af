"""Checks that the fields of a ``GateSpec`` can be meant; errors name the field."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

from skipviz.errors import InputError
from skipviz.schema import KeyValue, SkipPath, Unit

DescribedRule = Literal["gt", "ge", "argmax", "topk", "quantile", "sample"]
Activation = Literal["sigmoid", "tanh", "softmax"]
MOST_LISTED, LONGEST, LARGEST = 10_000, 200, 10**9
"""Of a list, of the letters of a text, and of numbers."""
PATH = re.compile(r"(output|input)(\.|$)|.*:.")


def check_fields(spec: Any) -> None:
    """Check every field of a description, and that they go together.

    Raises
    ------
    InputError
        Names the field, its value, and what it may be.
    """
    for field, value in vars(spec).items():
        _check_size(field, value)
    _one_of("unit", spec.unit, get_args(Unit))
    _one_of("rule", spec.rule, get_args(DescribedRule))
    _one_of("scope", spec.scope, ("token", "sequence", "batch"))
    _one_of("activation", spec.activation, (None, *get_args(Activation)))
    _one_of("skip_path", spec.skip_path, (None, *get_args(SkipPath)))
    _one_of("kv", spec.kv, (None, *get_args(KeyValue)))
    _one_of("mask_executes", spec.mask_executes, (0, 1))
    _one_of("strict", spec.strict, (False, True))
    _one_of("computed_anyway", spec.computed_anyway, (None, False, True))
    _check_places(spec)
    _check_scores(spec)
    _check_rule(spec)


def _check_size(field: str, value: Any) -> None:
    """Check that a value is plain and small: a few letters of YAML may unfold to anything."""
    several = value if isinstance(value, list | tuple) else [value]
    if len(several) > MOST_LISTED:
        raise InputError(f"GateSpec.{field} lists {len(several):,}; {MOST_LISTED:,} are the most.")
    for each in several:
        if isinstance(each, str) and len(each) > LONGEST:
            raise InputError(
                f"GateSpec.{field} has {len(each):,} characters; {LONGEST} are the most."
            )
        if isinstance(each, int | float) and abs(each) > LARGEST:
            raise InputError(f"GateSpec.{field} is a number beyond {LARGEST:,}.")
        if not (each is None or isinstance(each, int | float | str)):
            raise InputError(f"GateSpec.{field} has no {type(each).__name__} in it; see its docs.")
    if field == "name" and not (isinstance(value, str) and value.strip()):
        raise InputError(f"GateSpec.name={value!r:.60} must be a word.")


def _one_of(field: str, value: Any, allowed: Sequence[Any]) -> None:
    if not any(value is each or (type(value) is type(each) and value == each) for each in allowed):
        words = ", ".join("null" if each is None else str(each) for each in allowed)
        raise InputError(f"GateSpec.{field}={value!r} is not one of {words}.")


def _check_places(spec: Any) -> None:
    """Check names of modules and paths."""
    if not isinstance(spec.module, str) or spec.module.count("{layer}") != 1:
        raise InputError(
            f"GateSpec.module={spec.module!r} must have {{layer}} in it once, as in "
            "'model.layers.{layer}.router'."
        )
    layers = spec.layers
    if layers is not None and not (
        isinstance(layers, tuple)
        and layers
        and all(type(layer) is int and layer >= 0 for layer in layers)
    ):
        raise InputError(f"GateSpec.layers={layers!r} must be a list of layers, from 0.")
    if not isinstance(spec.read, str) or not PATH.match(spec.read):
        raise InputError(
            f"GateSpec.read={spec.read!r} must begin with output or input, or be a path such as "
            "':scores' or 'model.layers.{layer}:scores'."
        )
    if spec.mask is not None and not (isinstance(spec.mask, str) and PATH.match(spec.mask)):
        raise InputError(
            f"GateSpec.mask={spec.mask!r} must be a path to the decisions, such as 'output.1' or "
            "':mask'."
        )


def _check_scores(spec: Any) -> None:
    """Check how a score is picked and compared."""
    pick = spec.pick
    if not (pick is None or pick == "difference" or type(pick) is int):
        raise InputError(f"GateSpec.pick={pick!r} must be a number, 'difference' or null.")
    threshold = spec.threshold
    if isinstance(threshold, str):
        if not PATH.match(threshold):
            raise InputError(f"GateSpec.threshold={threshold!r} must be a number or a path.")
    elif isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise InputError(f"GateSpec.threshold={threshold!r} must be a number or a path.")
    elif not math.isfinite(threshold):
        raise InputError(f"GateSpec.threshold={threshold!r} must be finite.")
    elif spec.activation == "sigmoid" and spec.rule in ("gt", "ge") and not 0 < threshold < 1:
        raise InputError(
            f"GateSpec.threshold={threshold!r} is compared with a sigmoid, so it must lie between "
            "0 and 1."
        )
    elif spec.activation == "tanh" and spec.rule in ("gt", "ge") and not -1 < threshold < 1:
        raise InputError(
            f"GateSpec.threshold={threshold!r} is compared with a tanh, so it must lie between -1 "
            "and 1."
        )


def _check_rule(spec: Any) -> None:
    """Check that the fields of a rule go together."""
    rule, executes = spec.rule, spec.executes
    if rule == "argmax":
        if type(executes) is not int or executes < 0:
            raise InputError(
                f"GateSpec.executes={executes!r} must be the number of the class that executes, "
                "from 0, under the rule argmax."
            )
        if spec.pick is not None:
            raise InputError("GateSpec.pick has no meaning under the rule argmax; leave it out.")
        if spec.activation not in (None, "softmax"):
            raise InputError(
                f"GateSpec.activation={spec.activation!r} has no meaning under argmax."
            )
        return
    if executes not in ("high", "low"):
        raise InputError(f"GateSpec.executes={executes!r} must be high or low.")
    if spec.activation == "softmax":
        raise InputError("GateSpec.activation: softmax belongs to the rule argmax.")
    if rule == "sample" and spec.mask is None:
        raise InputError(
            "GateSpec.mask is missing: what is drawn can only be read where the model keeps it."
        )
    if rule in ("topk", "quantile"):
        _check_share(spec)


def _check_share(spec: Any) -> None:
    k, number = spec.k, isinstance(spec.k, int | float) and not isinstance(spec.k, bool)
    count = number and k > 0 and (type(k) is int or k <= 1)
    if spec.rule == "topk" and not (count or (isinstance(k, str) and PATH.match(k))):
        raise InputError(
            f"GateSpec.k={k!r} must be a whole number of tokens, a share of them with a decimal "
            "point, at most 1.0, or a path to either."
        )
    if spec.rule == "quantile" and not (number and 0 < k < 1):
        raise InputError(f"GateSpec.k={k!r} must be the share of tokens that skip, 0 to 1.")
