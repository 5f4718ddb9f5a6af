"""How to cite skipviz, and with which versions a file was made."""

from __future__ import annotations

import platform
from importlib.metadata import version

DRAWN_WITH = ("skipviz", "plotly", "polars", "numpy", "scipy", "scikit-learn")
"""Whose versions stand in a report beside those that the trace was recorded with."""

_ENTRY = """@software{{skipviz,
  title   = {{{{skipviz: which layers each token of a dynamic-depth transformer used, and why}}}},
  author  = {{{{The skipviz authors}}}},
  version = {{{version}}},
  license = {{Apache-2.0}},
}}"""


def bibtex() -> str:
    """Return the entry that cites this version of skipviz, as ``CITATION.cff`` has it."""
    return _ENTRY.format(version=version("skipviz"))


def versions_here() -> list[tuple[str, str]]:
    """Return the versions of Python and of the libraries that draw and compute here."""
    return [("Python", platform.python_version()), *((name, version(name)) for name in DRAWN_WITH)]
