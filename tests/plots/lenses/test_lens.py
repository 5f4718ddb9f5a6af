from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skipviz.errors import InputError
from skipviz.plots.lenses.lens import Lens

VALUES = np.arange(21, dtype=np.float32)


def lens(**changed: Any) -> Lens:
    given = {
        "name": "n",
        "unit": "nats",
        "values": VALUES,
        "scale": "sequential",
        "ends": (0.0, 9.0),
    }
    return Lens(**{**given, **changed})


def test_a_scale_is_stretched_to_nine_tenths_of_the_values() -> None:
    assert lens().stretched() == (1.0, 19.0)
    known = np.append(VALUES, np.float32("nan"))
    assert lens(values=known).stretched() == (1.0, 19.0)
    around = lens(values=VALUES - 10, scale="diverging", ends=(-2.0, 2.0))
    assert around.stretched() == (-9.0, 9.0), "0 stays in the centre"


def test_one_site_can_be_stretched_to_itself() -> None:
    cells = lens(values=np.stack([VALUES, 100 * VALUES], axis=1))
    assert cells.of_cells
    assert cells.stretched(site=1) == (100.0, 1900.0)


@pytest.mark.parametrize("values", [np.full(5, 3.0), np.full(5, np.nan), np.zeros(0)])
def test_values_that_do_not_differ_keep_the_fixed_scale(values: np.ndarray) -> None:
    assert lens(values=values.astype(np.float32)).stretched() == (0.0, 9.0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"values": np.zeros((2, 2, 2), dtype=np.float32)}, "3 dimensions"),
        ({"ends": (1.0, 1.0)}, "ascending"),
        ({"scale": "diverging"}, "both sides of 0"),
        ({"colours": "pretty"}, "colours='pretty' is not one of depth"),
        ({"categories": ("a",)}, "1 categories"),
        ({"scale": "categories", "categories": tuple("abcdefghijklmn")}, "14 categories"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        lens(**changed)
