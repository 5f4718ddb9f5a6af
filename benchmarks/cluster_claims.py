"""How often clusters are claimed where there are none, and where there are.

Run it as ``python benchmarks/cluster_claims.py``. Tokens differ in one demand for depth, which is
even or skewed but has one mode; or they form groups that were planted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from skipviz.analysis.clusters.clustering import cluster
from tests.profiles import planted, trace_of

SITES = 24
Draw = Callable[[np.random.Generator, int], np.ndarray]
DEMANDS: dict[str, Draw] = {
    "normal": lambda random, n: random.normal(size=n),
    "lognormal": lambda random, n: random.lognormal(0.0, 0.7, n),
    "gamma": lambda random, n: random.gamma(1.5, 1.0, n),
    "exponential": lambda random, n: random.exponential(1.0, n),
    "beta": lambda random, n: random.beta(1.0, 4.0, n) * 4,
}


def continuum(draw: Draw, seed: int, tokens: int) -> np.ndarray:
    """Return decisions of tokens that differ in one demand alone, [tokens, sites]."""
    random = np.random.default_rng(seed)
    demand = draw(random, tokens)
    demand = (demand - demand.mean()) / demand.std()
    slopes, levels = random.uniform(0.3, 1.5, SITES), random.normal(0.0, 0.7, SITES)
    scores = demand[:, None] * slopes + levels + random.normal(size=(tokens, SITES))
    return (scores > 0).astype(np.uint8)


def main() -> None:
    """Print claims by kind of tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--only", default="", help="the kinds with this in their name")
    options = parser.parse_args()
    kinds: dict[str, Callable[[int], np.ndarray]] = {
        f"continuum, {name}": lambda seed, draw=draw: continuum(draw, seed, options.tokens)
        for name, draw in DEMANDS.items()
    }
    kinds["planted groups"] = lambda seed: planted(seed, tokens=options.tokens)[0]
    for name, made in kinds.items():
        if options.only not in name:
            continue
        claims = sum(
            cluster(trace_of(made(seed), seed=seed), seed=seed).found
            for seed in range(options.sets)
        )
        low, high = stats.binomtest(claims, options.sets).proportion_ci(method="wilson")
        print(f"{name}: {claims} of {options.sets} claimed ({low:.1%} to {high:.1%})", flush=True)


if __name__ == "__main__":
    main()
