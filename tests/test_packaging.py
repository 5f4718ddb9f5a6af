from __future__ import annotations

from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[1]


def test_every_folder_with_code_is_a_package() -> None:
    there = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "skipviz").rglob("*.py")
    }
    assert set(find_packages(str(ROOT), include=["skipviz*"])) == there
