from __future__ import annotations

import pytest

import skipviz
from tests import tiny

TEXTS = (tiny.TEXT, tiny.TEXT[20:], "Why? Nobody knows: 42.", "The lazy dog sleeps, then jumps.")


@pytest.fixture
def documents() -> list[skipviz.Document]:
    return [skipviz.Document(f"doc{index}", text) for index, text in enumerate(TEXTS)]
