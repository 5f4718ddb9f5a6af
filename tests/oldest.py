"""Prints the oldest versions that ``pyproject.toml`` allows, as requirements: ``make oldest``.

What skipviz itself needs, with all extras, is pinned to its lower bound. The tools of the tests
take the versions of ``constraints.txt``.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOUND = re.compile(r"^([\w.-]+)>=([\w.]+)$")


def oldest() -> list[str]:
    """Return a requirement for each dependency and each tool."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    tools = extras.pop("dev")
    wanted = {*project["dependencies"], *(each for extra in extras.values() for each in extra)}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines()
    known = dict(line.split("==") for line in pinned if "==" in line)
    found = [BOUND.sub(r"\1==\2", requirement) for requirement in sorted(wanted)]
    for tool in sorted(set(tools) - wanted):
        name = re.split(r"[<>=]", tool)[0]
        version = known.get(name.lower())
        found.append(f"{name}=={version}" if version else tool)
    return found


if __name__ == "__main__":
    print("\n".join(oldest()))
