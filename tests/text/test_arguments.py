"""Values of another type than is asked for: taken for what they are, or a sentence."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.errors import InputError
from skipviz.text.arguments import check_types, checked
from tests import tiny

FUNCTIONS = [name for name in skipviz.__all__ if inspect.isfunction(getattr(skipviz, name))]
Word = Literal["a", "b"]


@checked
def taken(
    whole: int = 0,
    *,
    number: float | None = None,
    flag: bool = False,
    text: str = "",
    path: Path | None = None,
    several: Sequence[float] = (),
    pairs: Sequence[tuple[int, int]] | None = None,
    names: str | Sequence[str] = (),
    codes: Collection[str] = (),
    word: Word = "a",
    table: Mapping[str, int] | None = None,
    cells: Mapping[tuple[int | None, str | None], bool] | None = None,
    tell: Callable[[float], None] = print,
    anything: Any = None,
) -> dict[str, Any]:
    return dict(locals())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"whole": np.int64(3)}, 3),
        ({"whole": torch.tensor(3)}, 3),
        ({"number": np.float32(0.5)}, 0.5),
        ({"number": 2}, 2.0),
        ({"flag": np.bool_(True)}, True),
        ({"path": "x.parquet"}, Path("x.parquet")),
        ({"several": np.array([0.5, 1.0])}, [0.5, 1.0]),
        ({"several": pl.Series([0.5])}, [0.5]),
        ({"several": torch.tensor([0.5])}, [0.5]),
        ({"several": range(2)}, [0.0, 1.0]),
        ({"several": [np.float64(0.5)]}, [0.5]),
        ({"pairs": [[0, 1], (2, 3)]}, [(0, 1), (2, 3)]),
        ({"pairs": np.array([[0, 1]])}, [(0, 1)]),
        ({"names": "one"}, "one"),
        ({"codes": {"x"}}, {"x"}),
        ({"word": "b"}, "b"),
        ({"table": {"a": 1}}, {"a": 1}),
        ({"cells": {(None, "L3.mlp"): np.bool_(True)}}, {(None, "L3.mlp"): np.bool_(True)}),
    ],
)
def test_what_only_looks_different_is_taken(given: dict[str, Any], meant: Any) -> None:
    (name,) = given
    found = taken(**given)[name]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    "given",
    [
        {"whole": 1.5}, {"whole": True}, {"whole": "3"}, {"whole": [1]}, {"whole": np.ones(2)},
        {"number": "0.5"}, {"number": [0.5]}, {"number": 1j}, {"flag": 1}, {"flag": "false"},
        {"text": b"x"}, {"text": None}, {"text": 3}, {"path": 3}, {"path": b"x"}, {"path": "a\0b"},
        {"several": 0.5}, {"several": "0.5"}, {"several": [None]}, {"several": {0.5: 1}},
        {"several": iter([0.5])}, {"pairs": [0, 1]}, {"pairs": [(0, 1, 2)]}, {"pairs": [(0.5, 1)]},
        {"names": ["x", 3]}, {"codes": "x"}, {"word": 3}, {"word": ["a"]}, {"table": [1]},
        {"table": {1: 1}}, {"table": {"a": "1"}}, {"cells": {5: True}}, {"cells": {"ab": True}},
        {"cells": {(5,): True}}, {"cells": {(1.5, None): True}}, {"tell": "x"},
    ],
)  # fmt: skip
def test_what_is_another_thing_is_named(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(InputError, match=rf"^{name}=.* is of type \w+; taken takes .* there\.$"):
        taken(**given)


def test_the_sentence() -> None:
    said = {
        ("whole", "a\nb" * 50): "whole='a\\nba\\nba",
        ("several", 3): "several=3 is of type int; taken takes Sequence[float] there.",
        ("number", "x"): "number='x' is of type str; taken takes float | None there.",
        ("tell", 3): "tell=3 is of type int; taken takes a function there.",
        ("word", "c"): "word='c' is not one of a, b.",
        ("table", 3): "table=3 is of type int; taken takes Mapping[str, int] | None there.",
    }
    for (name, value), sentence in said.items():
        with pytest.raises(InputError) as caught:
            taken(**{name: value})
        assert str(caught.value).startswith(sentence)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_its_arguments_checked(name: str) -> None:
    function = getattr(skipviz, name)
    parameters = inspect.signature(function).parameters.values()
    hints = typing.get_type_hints(function)
    odd = {each.name: object() for each in parameters if hints[each.name] is not Any}
    anything = {each.name: None for each in parameters if hints[each.name] is Any}
    with pytest.raises(InputError, match=f"is of type object; {name} takes"):
        function(**anything, **odd)


def test_a_name_in_place_of_a_model_says_how_to_come_by_one() -> None:
    with pytest.raises(InputError, match="takes SkipModel there, and skipviz"):
        skipviz.trace("smollm2-gated", tiny.TEXT)


@dataclass(frozen=True)
class Fields:
    word: Word
    pair: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)


def test_fields_are_checked_with_their_words() -> None:
    odd: Any = [1, 2]
    assert Fields("b", odd).pair == (1, 2)
    for other, said in (
        ("c", "word='c' is not one of a, b"),
        (3, r"Fields takes 'a' \| 'b' there"),
    ):
        odd = other
        with pytest.raises(InputError, match=said):
            Fields(odd)


def test_what_is_no_model_in_memory_is_refused() -> None:
    for model, tokenizer, said in (
        ("smollm2-gated", print, "model is of type str; give a transformers model"),
        (torch.nn.Identity(), None, "tokenizer is of type NoneType; give the model's"),
    ):
        with pytest.raises(InputError, match=said):
            skipviz.from_parts(model, tokenizer)


def test_names_of_any_bytes_can_be_stored() -> None:
    assert skipviz.Document("a\udcff.txt", "text").source == "a\\udcff.txt"
