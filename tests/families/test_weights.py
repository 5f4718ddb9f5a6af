"""Trained weights as files: what is written is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import skipviz
from skipviz.families.gated.modules import gate_parameters
from skipviz.families.gated.weights import (
    is_adapter,
    read_adapters,
    read_gates,
    without_sites,
    write_gates,
)
from skipviz.families.weights import read_parameters
from tests import tiny


def rounded(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().to(torch.bfloat16).float() for n, p in gate_parameters(model).items()}


def now(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in gate_parameters(model).items()}


def test_gates_are_read_as_they_were_written(tmp_path: Path) -> None:
    source, target = tiny.gated(seed=1), tiny.gated(seed=2)
    write_gates(source, tmp_path / "all")
    assert {each.dtype for each in load_file(tmp_path / "all").values()} == {torch.bfloat16}
    read_gates(target, tmp_path / "all")
    torch.testing.assert_close(now(target), rounded(source), rtol=0, atol=0)


def test_adapters_of_another_file_take_the_place_of_its_own(tmp_path: Path) -> None:
    gates, shared, target = tiny.gated(seed=1), tiny.gated(seed=2), tiny.gated(seed=3)
    write_gates(gates, tmp_path / "gates", adapters=False)
    assert not any(is_adapter(name) for name in load_file(tmp_path / "gates"))
    write_gates(shared, tmp_path / "shared")
    read_gates(target, tmp_path / "gates", adapters=tmp_path / "shared")
    mine, others = rounded(gates), rounded(shared)
    wanted = {name: (others if is_adapter(name) else mine)[name] for name in mine}
    torch.testing.assert_close(now(target), wanted, rtol=0, atol=0)
    before = now(gates)
    kept = {name: value.clone() for name, value in before.items() if not is_adapter(name)}
    read_adapters(gates, tmp_path / "shared")
    wanted = {name: others[name] if is_adapter(name) else kept[name] for name in before}
    torch.testing.assert_close(now(gates), wanted, rtol=0, atol=0)


def test_other_names_and_shapes_are_refused(tmp_path: Path) -> None:
    model = tiny.gated(seed=1)
    before = {name: value.clone() for name, value in now(model).items()}
    whole = {name: value.clone() for name, value in before.items()}
    name = next(iter(whole))
    for changed in (
        {each: value for each, value in whole.items() if each != name},
        {**whole, "one.more": torch.zeros(1)},
        {**whole, name: torch.zeros(1, 1)},
    ):
        save_file(changed, tmp_path / "changed")
        with pytest.raises(skipviz.ModelError, match="holds other weights than the configuration"):
            read_parameters(gate_parameters(model), tmp_path / "changed", also={})
    torch.testing.assert_close(now(model), before, rtol=0, atol=0)
    adapter = next(each for each in whole if is_adapter(each))
    for changed in (
        {each: value for each, value in whole.items() if each != adapter},
        {**whole, adapter: torch.zeros(1, 1)},
    ):
        save_file(changed, tmp_path / "changed")
        with pytest.raises(skipviz.ModelError, match=f"has no adapter {adapter} of shape"):
            read_adapters(model, tmp_path / "changed")


def test_sites_are_left_out_by_their_place_in_running_order() -> None:
    parameters = gate_parameters(tiny.gated(seed=1))
    left = without_sites(parameters, {0, 3})
    gone = {name.rsplit(".", 3)[0] for name in parameters.keys() - left.keys()}
    assert {name.partition(".")[0] for name in gone} == {"1", "2"}
    assert {name.split(".")[1] for name in gone if name.startswith("1")} == {"attn"}
    assert {name.split(".")[1] for name in gone if name.startswith("2")} == {"mlp"}
    assert without_sites(parameters, set()) == dict(parameters)
