"""Which names, classes and forwards make a model look as if it skipped."""

from __future__ import annotations

from types import MethodType
from typing import Any

import pytest
from torch import nn

from skipviz.families.unknown import is_named_like_a_gate, signs_of_skipping, unknown_model
from tests import tiny


@pytest.mark.parametrize(
    "name",
    [
        "router", "routers", "attn_router", "Router", "gate", "exit_gate", "early_exits",
        "highway", "halting", "skip_head", "skipper", "mor_router", "depth_scorer", "gate_mlp",
    ],
)  # fmt: skip
def test_names_of_gates(name: str) -> None:
    assert is_named_like_a_gate(name)


@pytest.mark.parametrize(
    "name",
    [
        "gate_proj", "gate_up_proj", "up_proj", "down_proj", "gate_proj_fused",
        "shared_expert_gate", "mlp", "self_attn", "aggregate", "routing", "norm", "",
    ],
)  # fmt: skip
def test_names_of_other_parts(name: str) -> None:
    assert not is_named_like_a_gate(name)


def test_a_stock_model_has_no_signs() -> None:
    assert signs_of_skipping(tiny.backbone(seed=0)) == []
    # A mixture of experts gives itself a gate, in code of its own.
    assert signs_of_skipping(tiny.of_kind("Qwen3Moe")) == []


def test_modules_alike_in_several_layers_are_one_sign() -> None:
    model: Any = tiny.backbone(seed=0)
    for layer in model.model.layers[2:]:
        layer.exit_gate = nn.Linear(32, 1)
    assert signs_of_skipping(model) == [
        "model.layers.{layer}.exit_gate (named like a gate)",
    ]


class Halver(nn.Module):
    """A class that neither torch nor transformers has."""


def test_code_of_its_own_and_replaced_forwards_are_signs() -> None:
    model: Any = tiny.backbone(seed=0)
    model.model.layers[1].mlp.act_fn = Halver()
    layer = model.model.layers[3]
    layer.forward = MethodType(type(layer).forward, layer)
    sharded = model.model.layers[4].mlp
    sharded.forward, sharded._hf_hook = MethodType(type(sharded).forward, sharded), object()
    assert signs_of_skipping(model) == [
        "model.layers.{layer}.mlp.act_fn (a Halver, of code of its own)",
        "model.layers.{layer} (its forward was replaced)",
    ]
    assert signs_of_skipping(Halver()) == ["the model itself (a Halver, of code of its own)"]


def test_the_first_signs_are_named_and_the_others_counted() -> None:
    names = [f"part_{number}" for number in range(8)]
    assert "it has part_0, part_1, part_2, part_3, part_4, part_5 and 2 more. Describe" in (
        unknown_model(Halver(), names)
    )
    assert "it has part_0, part_1, part_2, part_3, part_4, part_5. Describe" in (
        unknown_model(Halver(), names[:6])
    )
