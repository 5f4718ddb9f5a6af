from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import skipviz
from skipviz.families.dense import Dense
from skipviz.families.exits.family import Exits
from skipviz.families.fixed_rates.family import FixedRates
from skipviz.families.gated.family import Gated
from skipviz.families.powers import CanDraw, CanFlip, CanForce, CanSlope, CanThreshold, HasExits
from tests import tiny

ROOT = Path(skipviz.__file__).parent
OWN = tuple(
    f"skipviz.families.{family}"
    for family in ("gated", "exits", "fixed_rates", "looped", "published")
)
HOME = ("families/", "training/")
"""Training makes the shapes that it trains."""


def sources() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(ROOT.rglob("*.py"))
    }


def compares_family_names(source: str) -> bool:
    """Whether anything that ends in ``family.name`` is compared, or looked for among others."""
    return any(
        isinstance(node, ast.Compare)
        and any(
            (
                isinstance(side, ast.Attribute)
                and side.attr == "name"
                and ast.unparse(side.value).endswith("family")
            )
            or "['family']" in ast.unparse(side)
            for side in (node.left, *node.comparators)
        )
        for node in ast.walk(ast.parse(source))
    )


def belongs_to_a_family(source: str) -> set[str]:
    """What a file imports that is one family's own."""
    return {
        name.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for name in node.names
        if node.module.startswith(OWN)
    }


def test_no_name_of_a_family_is_asked_for() -> None:
    assert compares_family_names('model.family.name == "gated"')
    assert compares_family_names('family.name in ("gated", "exit")')
    assert compares_family_names('trace.run["family"].item() != "exit"')
    found = [path for path, source in sources().items() if compares_family_names(source)]
    assert found == []


def test_nothing_of_one_family_is_asked_for_outside_the_families() -> None:
    found = {
        path: belongs_to_a_family(source)
        for path, source in sources().items()
        if not path.startswith(HOME) and belongs_to_a_family(source)
    }
    assert found == {}


def test_families_say_what_they_can() -> None:
    powers = (CanForce, CanFlip, CanSlope, CanThreshold, CanDraw, HasExits)

    def has(family: object) -> list[bool]:
        return [isinstance(family, power) for power in powers]

    assert has(Gated()) == [True, True, True, True, False, False]
    assert has(FixedRates()) == [True, True, False, False, True, False]
    assert has(Exits()) == [True, False, False, False, False, True]
    assert not any(isinstance(Dense(), power) for power in powers)


def test_units_are_those_of_the_sites() -> None:
    model = tiny.gated(seed=0)
    units, sites = Gated().units(model), Gated().sites(model)
    assert [(unit.layer, unit.kind) for unit in units] == [
        (site.layer, site.unit) for site in sites
    ]
    assert all(unit.looks for unit in units)
    assert units[0].module is model.model.layers[1].self_attn
    assert units[1].dense is model.model.layers[1].mlp.unit


def test_decisions_have_a_slope_in_the_block_alone() -> None:
    model = tiny.gated(seed=0)
    gate = next(unit for unit in Gated().units(model)).gate

    def slope() -> float:
        gate.up.weight.grad = None
        model(torch.arange(3, 12)[None]).logits.logsumexp(-1).sum().backward()
        return 0.0 if gate.up.weight.grad is None else float(gate.up.weight.grad.abs().sum())

    assert slope() == 0
    with Gated().straight_through(model):
        assert slope() > 0
    assert slope() == 0


def test_what_cannot_be_forced_says_so(dense: skipviz.SkipModel) -> None:
    plan = skipviz.Plan(np.ones((len(skipviz.trace(dense, tiny.TEXT)), 0), dtype=np.bool_))
    with pytest.raises(skipviz.InputError, match="tiny-dense is of the family dense, whose"):
        skipviz.trace(dense, tiny.TEXT, plan=plan)
