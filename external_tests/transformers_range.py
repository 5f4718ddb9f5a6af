"""Tests skipviz under the oldest transformers that pyproject.toml allows and under the newest.

    python external_tests/transformers_range.py            # both ends
    python external_tests/transformers_range.py 4.57.6     # another version, dense models alone

Each version has an environment in `.cache/external` that shares every other package, torch too,
with the one that runs this. Under each, dense models of every architecture are traced and recorded
and compared with their own forward; at both ends the tests of families and recording run too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "external"
NEWEST = "newest"
TESTS = ("tests/families", "tests/recording")


def oldest() -> str:
    """Return the lower end that pyproject.toml states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = (re.fullmatch(r"transformers>=([\d.]+)", each) for each in project["dependencies"])
    return next(bound[1] for bound in bounds if bound)


def made(version: str) -> Path:
    """Return the interpreter of an environment with this version; make it if it is missing."""
    folder = CACHE / f"transformers-{version}"
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (own,) = (folder / "lib").glob("python*/site-packages")
        # Behind its own packages come those of the environment that runs this.
        (own / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")
    wanted = ["--upgrade", "transformers"] if version == NEWEST else [f"transformers=={version}"]
    pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *wanted]
    subprocess.run(pip, check=True)
    return python


def passes(version: str, *, whole: bool) -> bool:
    """Return whether everything passes under a version."""
    print(f"transformers {version}", flush=True)
    python = made(version)
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    commands: list[list[str | Path]] = [[python, ROOT / "external_tests" / "dense_models.py"]]
    if whole:
        quick = ["-q", "-W", "ignore", "-m", "not model and not slow"]
        commands.append([python, "-m", "pytest", *quick, *TESTS])
    codes = [subprocess.run(each, check=False, env=here, cwd=ROOT).returncode for each in commands]
    return not any(codes)


def main(versions: list[str]) -> int:
    """Test versions; return 0 if all pass."""
    ends = [oldest(), NEWEST]
    failed = [each for each in versions or ends if not passes(each, whole=each in ends)]
    print(f"\nFailed: {', '.join(failed)}" if failed else "\nAll passed.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
