from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "polars", "transformers", "streamlit", "rich", "pandas", "numpy"}


@pytest.mark.parametrize("command", [[], ["trace"], ["models"], ["models", "info"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        f"import atexit, sys; sys.argv = ['skipviz', *{command}, '--help']\n"
        "atexit.register(lambda: print(*sys.modules))\n"
        "from skipviz.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *words, modules = done.stdout.splitlines()
    assert any("--help" in line for line in words)
    assert HEAVY.isdisjoint(modules.split())
