"""The table of architectures says what works today."""

from __future__ import annotations

import pytest

from docs.make_architectures import PAGE, works
from tests import architectures


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.CAUSAL)
def test_the_table_of_architectures_is_true(name: str) -> None:
    row = f"| {name} | {' | '.join(works(name))} |"
    assert row in PAGE.read_text(encoding="utf-8"), "run python -m docs.make_architectures"
