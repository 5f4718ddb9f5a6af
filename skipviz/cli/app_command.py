"""Open the page from an installed skipviz."""

from __future__ import annotations

import os
import sys
import tomllib
from importlib.resources import files
from typing import Annotated, Any

import typer


def open_app(port: Annotated[int, typer.Option(help="Where the page listens.")] = 8501) -> None:
    """Open the page in the browser, on this machine alone."""
    folder = files("skipviz.app")
    settings = tomllib.loads((folder / "assets" / "config.toml").read_text(encoding="utf-8"))
    command = ["-m", "streamlit", "run", str(folder / "page.py"), f"--server.port={port}"]
    # In place of this process, so that Ctrl-C and signals reach the server.
    os.execv(sys.executable, [sys.executable, *command, *_flags(settings)])


def _flags(settings: dict[str, Any], section: str = "") -> list[str]:
    """Return Streamlit's settings as the flags of its command line."""
    flags: list[str] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            flags += _flags(value, f"{section}{name}.")
        elif isinstance(value, list):
            flags += [f"--{section}{name}={each}" for each in value]
        else:
            written = str(value).lower() if isinstance(value, bool) else str(value)
            flags.append(f"--{section}{name}={written}")
    return flags
