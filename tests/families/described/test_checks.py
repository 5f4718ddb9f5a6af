"""What the fields of a description may be: the last values that fit, and the first that do not."""

from __future__ import annotations

from typing import Any

import pytest

import skipviz
from skipviz.families.described.spec import gate_spec, to_fields

MODULE = "model.layers.{layer}.router"


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": [0]},
        {"threshold": 0},
        {"threshold": -0.5, "activation": "tanh"},
        {"threshold": ":limit", "activation": "sigmoid"},
        {"threshold": 0.01, "activation": "sigmoid"},
        {"threshold": 0.99, "activation": "sigmoid", "rule": "ge"},
        {"rule": "topk", "k": 1},
        {"rule": "topk", "k": 12},
        {"rule": "topk", "k": 1.0},
        {"rule": "topk", "k": ":capacity"},
        {"rule": "quantile", "k": 0.5},
        {"rule": "argmax", "executes": 0},
        {"rule": "argmax", "executes": 1, "activation": "softmax"},
        {"rule": "sample", "mask": "output.1"},
        {"rule": "sample", "mask": "model.layers.{layer}:mask", "executes": "low"},
        {"read": "input"},
        {"read": "input.0"},
        {"read": ":scores"},
        {"pick": "difference"},
        {"pick": -1},
        {"scope": "batch", "unit": "mlp", "kv": "absent", "skip_path": "zero"},
        {"computed_anyway": False, "mask": ":mask", "mask_executes": 0, "strict": True},
    ],
)
def test_fields_that_fit_are_kept(fields: dict[str, Any]) -> None:
    made = gate_spec({"module": MODULE, **fields})
    for name, value in fields.items():
        assert getattr(made, name) == (tuple(value) if isinstance(value, list) else value)
    assert gate_spec(to_fields(made)) == made


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"module": "a.{layer}.b.{layer}"}, "module"),
        ({"module": 3}, "module"),
        ({"layers": []}, "layers"),
        ({"layers": [True]}, "layers"),
        ({"layers": [1.0]}, "layers"),
        ({"layers": [-1]}, "layers"),
        ({"threshold": "limit"}, "threshold"),
        ({"threshold": None}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
        ({"threshold": 0.0, "activation": "sigmoid"}, "threshold"),
        ({"threshold": 1.0, "activation": "sigmoid", "rule": "ge"}, "threshold"),
        ({"rule": "topk", "k": 0}, "k"),
        ({"rule": "topk", "k": -0.5}, "k"),
        ({"rule": "topk", "k": True}, "k"),
        ({"rule": "topk", "k": "capacity"}, "k"),
        ({"rule": "quantile", "k": 0.0}, "k"),
        ({"rule": "quantile", "k": 1.0}, "k"),
        ({"rule": "quantile", "k": ":share"}, "k"),
        ({"rule": "argmax", "executes": -1}, "executes"),
        ({"rule": "argmax", "executes": True}, "executes"),
        ({"rule": "argmax", "executes": 0, "pick": 1}, "pick"),
        ({"rule": "argmax", "executes": 0, "activation": "sigmoid"}, "activation"),
        ({"executes": "up"}, "executes"),
        ({"activation": "relu"}, "activation"),
        ({"pick": True}, "pick"),
        ({"pick": 1.0}, "pick"),
        ({"read": "outputs"}, "read"),
        ({"read": ":"}, "read"),
        ({"read": None}, "read"),
        ({"mask": 3}, "mask"),
        ({"scope": "window"}, "scope"),
        ({"kv": "kept"}, "kv"),
        ({"skip_path": "jump"}, "skip_path"),
        ({"mask_executes": 2}, "mask_executes"),
        ({"mask_executes": True}, "mask_executes"),
        ({"strict": 1}, "strict"),
        ({"computed_anyway": 0}, "computed_anyway"),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(skipviz.InputError, match=rf"^GateSpec\.{field}\b"):
        gate_spec({"module": MODULE, **fields})
