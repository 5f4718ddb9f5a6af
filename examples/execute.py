"""Runs the notebooks and keeps what they show: ``make notebooks``, or name some of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
# Figures as data, without a copy of Plotly in each notebook; no word about missing widgets.
SETTINGS = {"PLOTLY_RENDERER": "plotly_mimetype", "PYTHONWARNINGS": "ignore:IProgress not found"}


def execute(path: Path) -> None:
    """Run one notebook from a fresh kernel and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(HERE)}}
    )
    client.execute()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ |= SETTINGS
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        print(path.name, flush=True)
        execute(path)
