"""How long skipviz takes to start, as multiples of ``python -c pass``; runs alternate."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

HELP = "import sys; sys.argv = ['skipviz', '--help']; from skipviz.cli import main; main()"
CODES = {"pass": "pass", "import skipviz": "import skipviz", "skipviz --help": HELP}
RUNS = 15


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in CODES}
    for _ in range(RUNS):
        for name, code in CODES.items():
            taken[name].append(seconds(code))
    plain = statistics.median(taken.pop("pass"))
    for name, times in taken.items():
        print(f"{name}: {statistics.median(times) / plain:.1f} x python -c pass")


if __name__ == "__main__":
    main()
