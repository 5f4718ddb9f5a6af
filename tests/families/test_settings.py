"""What each family writes beside its weights is read again as it was, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import skipviz
from skipviz.budgets import Budgets
from skipviz.families.exits.modules import ExitConfig, exit_parameters, install_exits
from skipviz.families.exits.settings import ExitSettings, write_exits
from skipviz.families.fixed_rates.modules import install_rates
from skipviz.families.fixed_rates.settings import FixedSettings, policy_of, write_adapters
from skipviz.families.gated.modules import gate_parameters
from skipviz.families.gated.settings import GatedSettings
from skipviz.families.gated.weights import read_adapters, write_gates
from skipviz.families.settings import threshold_settings
from skipviz.folders import CONFIG, WEIGHTS
from skipviz.home import sha256_of
from skipviz.models import read_settings
from tests import tiny
from tests.folders import write_gated

SHAPE = dataclasses.replace(tiny.GATES, gate_hidden=0)
EXITS = ExitConfig(exits=(1, 3), adapter_rank=2, head_rank=8)


def about(folder: Path, backbone: Path) -> dict[str, str]:
    return {
        "backbone": str(backbone),
        "backbone_sha256": skipviz.load(backbone).weights_sha256,
        "gates_sha256": sha256_of(folder / WEIGHTS),
    }


@pytest.fixture
def gated_folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_gated(tmp_path / "tiny-gated", backbone=tiny_model_folder)


@pytest.fixture
def fixed_folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    folder = tmp_path / "fixed"
    folder.mkdir()
    model = tiny.backbone(seed=0)
    install_rates(model, SHAPE, seed=0)
    torch.manual_seed(1)
    for parameter in gate_parameters(model).values():
        torch.nn.init.normal_(parameter, std=0.1)
    half, most = [0.0, 1.0] * 4, [1.0] * 7 + [0.0]
    write_adapters(model, folder / WEIGHTS, {"0.5": half, "0.9": most})
    FixedSettings(
        **about(folder, tiny_model_folder),
        budget=0.9,
        policy=policy_of({"0.5": half, "0.9": most}),
        gates=SHAPE,
        rates=Budgets({0.5: tuple(half), 0.9: tuple(most)}),
    ).write(folder)
    return folder


@pytest.fixture
def exit_folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    folder = tmp_path / "exits"
    folder.mkdir()
    model = tiny.backbone(seed=0)
    install_exits(model, EXITS)
    torch.manual_seed(2)
    for parameter in exit_parameters(model).values():
        torch.nn.init.normal_(parameter, std=0.1)
    write_exits(model, folder / WEIGHTS)
    ExitSettings(
        **about(folder, tiny_model_folder),
        budget=0.8,
        policy="entropy",
        exits=EXITS,
        thresholds={"confidence": Budgets({0.7: 0.5}), "entropy": Budgets({0.8: 4.0, 0.6: 6.0})},
    ).write(folder)
    return folder


@pytest.mark.parametrize("kind", ["gated_folder", "fixed_folder", "exit_folder"])
def test_what_is_written_is_read(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    settings = read_settings(folder)
    before = (folder / CONFIG).read_text(encoding="utf-8")
    settings.write(folder)
    assert (folder / CONFIG).read_text(encoding="utf-8") == before
    assert read_settings(folder) == settings
    assert json.loads(json.dumps(settings.to_json())) == json.loads(before)
    model = skipviz.load(folder)
    assert (model.budget, model.policy) == (settings.budget, settings.policy)
    assert model.setting is not None
    assert model.setting.key == settings.at(settings.budget, name="x").key
    assert settings.backbone in settings.description()


def test_fixed_rates_keep_the_adapters_that_some_budget_uses(fixed_folder: Path) -> None:
    settings = read_settings(fixed_folder)
    assert isinstance(settings, FixedSettings)
    assert settings.policy == "static"
    assert "Units dropped: 4 for budget 0.5, 1 for budget 0.9." in settings.description()
    assert settings.chosen_on() == "The units to drop were chosen on training windows."
    assert "not run" in settings.saving()
    stored = skipviz.load(fixed_folder, budget=0.5)
    traced = skipviz.trace(stored, tiny.TEXT)
    assert (traced.matrix("exec_count")[0] == [0, 1] * 4).all()
    assert traced.sites["rule"].unique().to_list() == ["schedule"]
    parameters = gate_parameters(stored.model)
    assert parameters["1.attn.adapter.up.weight"].abs().sum() > 0  # skipped at 0.5
    assert parameters["1.mlp.adapter.up.weight"].abs().sum() == 0  # never skipped, not stored
    assert parameters["4.mlp.adapter.up.weight"].abs().sum() > 0  # skipped at 0.9


def test_rates_that_are_drawn_are_called_random(fixed_folder: Path) -> None:
    assert policy_of({"0.5": [0.0, 1.0]}) == "static"
    assert policy_of({"0.5": [0.0, 1.0], "0.9": [1.0, 0.5]}) == "random"
    drawn = dataclasses.replace(read_settings(fixed_folder), policy="random")
    assert drawn.description().startswith("Random execution")
    assert "masked" in drawn.saving()


def test_exits_have_rules_for_policies(exit_folder: Path) -> None:
    settings = read_settings(exit_folder)
    assert settings.policies == ["confidence", "entropy"]
    assert list(settings.budgets) == [0.8, 0.6]
    other = settings.under("confidence", name="x")
    assert (other.policy, other.budget, str(other.at(0.7, name="x"))) == (
        "confidence", 0.7, "confidence 0.5000",
    )  # fmt: skip
    assert "- entropy: 4.0000 for budget 0.8, 6.0000 for budget 0.6" in settings.description()
    assert settings.policy_name == "Rule"
    loaded = skipviz.load(exit_folder, policy="confidence")
    assert loaded.budget == 0.7
    assert (skipviz.trace(loaded, tiny.TEXT).matrix("threshold") == 0.5).all()


def test_thresholds_are_set_anew_where_one_decides(
    gated_folder: Path, exit_folder: Path, fixed_folder: Path
) -> None:
    settings = threshold_settings(read_settings(gated_folder), name="gates")
    before = dict(settings.thresholds)
    made = settings.calibrated_for(0.55, 0.125)
    assert dict(made.thresholds) == before | {0.55: 0.125}
    assert dict(settings.thresholds) == before
    assert made.calibrated_for(0.55, 0.25).thresholds[0.55] == 0.25
    limited = made.guarded_for(0.1, 0.5, 2.0).guarded_for(0.2, 0.75, 1.0)
    assert "clipped at 2 nats for each document, stays below 0.1" in limited.promise(0.1)
    again = limited.guarded_for(0.1, 0.5, None)
    assert "stays below 0.1 nats per token (Student's t test)" in again.promise(0.1)
    assert "clipped at 1 nats" in again.promise(0.2)
    assert {limit: str(each) for limit, each in again.limits.items()} == {
        0.1: "threshold 0.500000", 0.2: "threshold 0.750000",
    }  # fmt: skip
    for folder in (exit_folder, fixed_folder):
        with pytest.raises(skipviz.InputError, match="mine has no thresholds that can be set anew"):
            threshold_settings(read_settings(folder), name="mine")


def test_a_policy_without_thresholds_is_refused(exit_folder: Path) -> None:
    fields = json.loads((exit_folder / CONFIG).read_text(encoding="utf-8"))
    (exit_folder / CONFIG).write_text(json.dumps(fields | {"policy": "patience"}))
    with pytest.raises(skipviz.ModelError, match="'patience' has no thresholds"):
        read_settings(exit_folder)


def test_gates_may_share_the_adapters_of_another_folder(gated_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shares"
    folder.mkdir()
    model = tiny.gated(seed=0)
    for name, parameter in gate_parameters(model).items():
        if ".gate." in name:
            parameter.data.mul_(2.0)
        else:
            parameter.data.zero_()
    write_gates(model, folder / WEIGHTS, adapters=False)
    own = read_settings(gated_folder)
    assert isinstance(own, GatedSettings)
    dataclasses.replace(
        own,
        gates_sha256=sha256_of(folder / WEIGHTS),
        adapters_of=str(gated_folder),
        adapters_sha256=own.gates_sha256,
    ).write(folder)
    shared, owner = skipviz.load(folder), skipviz.load(gated_folder)
    mine, theirs = gate_parameters(shared.model), gate_parameters(owner.model)
    for name, parameter in mine.items():
        assert torch.equal(parameter, theirs[name]) == (".adapter." in name), name
    assert shared.weights_sha256 != owner.weights_sha256
    (gated_folder / WEIGHTS).unlink()
    with pytest.raises(skipviz.ModelError, match="shares the adapters of"):
        skipviz.load(folder)


def test_adapters_alone_are_read_from_gates(gated_folder: Path) -> None:
    model = tiny.gated(seed=3)
    before = {n: p.clone() for n, p in gate_parameters(model).items()}
    read_adapters(model, gated_folder / WEIGHTS)
    source = gate_parameters(tiny.gated(seed=0))
    for name, parameter in gate_parameters(model).items():
        wanted = source[name] if ".adapter." in name else before[name]
        assert torch.equal(parameter, wanted), name
    fewer = tiny.backbone(seed=0)
    install_rates(fewer, dataclasses.replace(SHAPE, adapter_rank=1), seed=0)
    with pytest.raises(skipviz.ModelError, match=r"has no adapter .* of shape"):
        read_adapters(fewer, gated_folder / WEIGHTS)
