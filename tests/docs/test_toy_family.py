"""The guide to adding a family, run: a package elsewhere brings a family, and all works with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import skipviz
from skipviz.families import families
from skipviz.folders import WEIGHTS
from skipviz.home import sha256_of
from skipviz.models import at_budget, read_settings
from tests import tiny

GUIDE = Path(__file__).parents[2] / "docs" / "contributing"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install the family as another package would: a module and its entry point."""
    site = tmp_path / "site"
    about = site / "toy-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[skipviz.families]\ntoy = toy_family:Toy\n")
    shutil.copy(GUIDE / "toy_family.py", site / "toy_family.py")
    monkeypatch.syspath_prepend(str(site))
    families.cache_clear()
    import toy_family

    yield toy_family
    sys.modules.pop("toy_family")
    families.cache_clear()


@pytest.fixture
def folder(toy: Any, tmp_path: Path, tiny_model_folder: Path) -> Path:
    made = tmp_path / "toy-model"
    made.mkdir()
    model = tiny.backbone(seed=0)
    torch.manual_seed(0)
    toy.install(model)
    save_file({n: p.detach().clone() for n, p in toy.parameters(model).items()}, made / WEIGHTS)
    toy.ToySettings(
        backbone=str(tiny_model_folder),
        backbone_sha256=skipviz.load(tiny_model_folder).weights_sha256,
        gates_sha256=sha256_of(made / WEIGHTS),
        budget=0.9,
        policy="learned",
        thresholds=toy.Budgets({0.9: 0.0, 0.5: 1e6}),
    ).write(made)
    return made


def test_a_family_from_another_package_loads_its_own_folders(toy: Any, folder: Path) -> None:
    model = skipviz.load(folder)
    assert model.family.name == "toy"
    assert type(read_settings(folder)).__name__ == "ToySettings"
    traced = skipviz.trace(model, tiny.TEXT)
    assert traced.run["family"].item() == "toy"
    assert traced.sites["layer"].to_list() == [1, 3, 5]
    assert 0 < traced.matrix("exec_count").mean() < 1


def test_its_budgets_are_its_own(folder: Path) -> None:
    model = skipviz.load(folder)
    low = at_budget(model, 0.5)
    assert not skipviz.trace(low, tiny.TEXT).matrix("exec_count").any()
    assert skipviz.trace(model, tiny.TEXT).matrix("exec_count").any()
    with pytest.raises(ValueError, match=r"budget=0\.7 is not calibrated.*there are 0\.9, 0\.5"):
        at_budget(model, 0.7)


def test_forcing_its_own_decisions_gives_the_same_losses(folder: Path) -> None:
    model = skipviz.load(folder)
    traced = skipviz.trace(model, tiny.TEXT)
    plan = skipviz.Plan(traced.matrix("exec_count") > 0)
    forced = skipviz.trace(model, tiny.TEXT, plan=plan)
    assert forced.tokens["nll"].to_list() == traced.tokens["nll"].to_list()


def test_what_a_family_lacks_is_a_sentence(folder: Path) -> None:
    model = skipviz.load(folder)
    with pytest.raises(ValueError, match="toy"):
        skipviz.audit(model, skipviz.trace(model, tiny.TEXT))


def test_what_is_registered_and_is_no_family_is_named(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tmp_path / "site" / "toy-1.0.dist-info" / "entry_points.txt"
    points.write_text("[skipviz.families]\ntoy = toy_family:ToyDecide\n")
    families.cache_clear()
    with pytest.raises(skipviz.ModelError, match=r"toy_family:ToyDecide.*lacks one of"):
        families()
