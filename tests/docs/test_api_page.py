"""Every public name has a docstring in numpydoc's form, and the page of the API is of today."""

from __future__ import annotations

import dataclasses
import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import skipviz

DOCS = Path(__file__).parents[2] / "docs"
PUBLIC = {name: getattr(skipviz, name) for name in skipviz.__all__}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
FIGURES = [f"plots.{name}" for name in skipviz.plots.__all__]
CLASSES = [name for name, value in PUBLIC.items() if inspect.isclass(value)]
REQUIRED = {"GL08", "SS01", "SS02", "SS03", "SS04", "PR02", "PR03", "PR07", "PR10", "RT02", "YD01"}
"""numpydoc's own checks: a docstring with a summary, that names what there is, in order, and says
something of each. Types are in the annotations."""


def problems(name: str) -> list[str]:
    found = validate(f"skipviz.{name}")["errors"]
    required = REQUIRED | ({"PR01", "RT01"} if name in FUNCTIONS else set())
    if name in FIGURES:  # what they return is in the annotation: a figure, or HTML
        required |= {"PR01"}
    return [f"{code}: {said}" for code, said in found if code in required]


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, *FIGURES])
def test_a_public_name_is_described(name: str) -> None:
    assert problems(name) == []


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_class_holds_is_described(name: str) -> None:
    value: Any = PUBLIC[name]
    said = NumpyDocString(inspect.getdoc(value) or "")
    told = {
        each.strip()
        for part in ("Attributes", "Parameters")
        for entry in said[part]
        for each in entry.name.split(",")
    }
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    assert {field.name for field in fields if not field.name.startswith("_")} <= told
    for member, held in vars(value).items():
        if not member.startswith("_") and (inspect.isfunction(held) or isinstance(held, property)):
            assert inspect.getdoc(held), f"{name}.{member} has no docstring"


def test_every_public_name_is_on_the_page_and_the_page_is_of_today() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in PUBLIC:
        assert f"skipviz.{name}" in page
    made = runpy.run_path(str(DOCS / "make_api.py"))["page"]()
    assert page == made, "run python docs/make_api.py"
