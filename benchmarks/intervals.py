"""How often 95% intervals of a mean over documents cover the truth.

Run it as ``python benchmarks/intervals.py``.

Documents' losses are drawn from distributions whose mean is known: even ones, and skewed ones as
losses over dense are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from skipviz.evaluation.losses import estimate

COUNTS = (2, 3, 5, 8, 12, 20, 30, 40, 50, 60, 99, 120)
TRUTHS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda random, n: random.normal(1.0, 0.3, n), 1.0),
    "gamma, skewness 1": (lambda random, n: random.gamma(4.0, 0.25, n), 1.0),
    "lognormal, skewness 1.8": (
        lambda random, n: random.lognormal(0.0, 0.5, n), float(np.exp(0.125))
    ),
}  # fmt: skip


def main() -> None:
    """Print coverage by distribution and number of documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    draws = parser.parse_args().draws
    print("distribution | documents | covers the truth (95% CI)")
    for name, (draw, truth) in TRUTHS.items():
        for count in COUNTS:
            random, covered = np.random.default_rng(count), 0
            for seed in range(draws):
                found = estimate(draw(random, count), seed=seed)
                covered += found.low is not None and found.low <= truth <= (found.high or 0)
            low, high = stats.binomtest(covered, draws).proportion_ci(method="wilson")
            print(f"{name} | {count} | {covered / draws:.1%} ({low:.1%} to {high:.1%})", flush=True)


if __name__ == "__main__":
    main()
