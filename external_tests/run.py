"""Records packages that others wrote, each in its own environment, and checks what was recorded.

    python external_tests/run.py                 # all; makes what environments are missing
    python external_tests/run.py economize       # one

Environments lie in `.cache/external`, about 1.2 GB each, and are made anew when their versions here
change. Models are tiny and random; nothing but packages is fetched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "external"
TORCH = "torch==2.13.0"
"""Some packages are built by what is installed, so that no other torch is fetched to build them."""


@dataclass(frozen=True)
class Environment:
    """The versions that some scripts of `packages` need."""

    requirements: tuple[str, ...]
    scripts: tuple[str, ...]


ENVIRONMENTS = {
    "mixture-of-depth": Environment(
        ("mixture-of-depth==1.2.0", "transformers==4.40.1", "numpy<2"), ("mixture_of_depth.py",)
    ),
    "economize": Environment(("economize==0.3.2", "transformers==5.23.0"), ("economize_depth.py",)),
    "tide-inference": Environment(
        ("tide-inference==0.2.1", "transformers==5.23.0"), ("tide_inference.py",)
    ),
    "transformers": Environment(("transformers==5.23.0",), ("assisted.py", "hrm_text.py")),
}


def made(name: str) -> Path:
    """Return the interpreter of an environment; make it if it is missing or of other versions."""
    folder, wanted = CACHE / name, "\n".join([TORCH, *ENVIRONMENTS[name].requirements])
    python, stamp = folder / "bin" / "python", folder / "made-of"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"Making the environment {name}; this takes some minutes.", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([*pip, TORCH, "setuptools", "wheel"], check=True)
        subprocess.run(
            [*pip, "--no-build-isolation", TORCH, *ENVIRONMENTS[name].requirements],
            check=True,
            env={**os.environ, "TIDE_NO_CUDA": "1"},
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    stamp.write_text(wanted, "utf-8")
    return python


def recorded(name: str) -> Path:
    """Run the scripts of an environment; return the folder of what they recorded."""
    python, folder = made(name), CACHE / "recordings" / name
    shutil.rmtree(folder, ignore_errors=True)
    kit = folder / "kit"
    kit.mkdir(parents=True)
    shutil.copy(HERE.parent / "skipviz" / "recorder_kit.py", kit)  # that one file, as a user would
    threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(kit)}
    for script in ENVIRONMENTS[name].scripts:
        subprocess.run(
            [python, HERE / "packages" / script, folder], check=True, env={**os.environ, **threads}
        )
    return folder


def main(names: list[str]) -> int:
    """Record and check environments; return 0 if everything agrees."""
    if unknown := set(names) - set(ENVIRONMENTS):
        print(f"There is no {', '.join(sorted(unknown))}; there are {', '.join(ENVIRONMENTS)}.")
        return 2
    failed, here = [], {**os.environ, "PYTHONPATH": str(HERE.parent)}
    for name in names or ENVIRONMENTS:
        command = [sys.executable, HERE / "check.py", recorded(name)]
        outcome = subprocess.run(command, check=False, env=here)
        if outcome.returncode:
            failed.append(name)
    print(f"\nFailed: {', '.join(failed)}" if failed else "\nAll passed.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
