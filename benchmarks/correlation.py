"""How often correlations are claimed where there are none, found where there are, and covered.

Run it as ``python benchmarks/correlation.py``; ``--others`` adds the false claims of schemes that
were not taken: blocks of 32 tokens that change places, circular shifts, phases drawn at random, and
a t test with an effective sample size (Pyper and Peterman, 1998).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import signal, stats

from skipviz.analysis.statistics.blocks import block_permutations
from skipviz.analysis.statistics.correlation import CorrelationMethod, block_correlation

Random = np.random.Generator
Array = np.ndarray
DRAWS = 199
POPULATION = 200_000
"""Tokens that a true coefficient is taken from."""


def autoregressive(random: Random, n: int, persistence: float) -> Array:
    """Return a series of variance 1 whose neighbours are alike."""
    noise = random.standard_normal(n + 300) * np.sqrt(1 - persistence**2)
    return signal.lfilter([1], [1, -persistence], noise)[300:]


def trend(random: Random, n: int) -> Array:
    """Return a monotone trend of a random shape and direction, and noise."""
    u = np.linspace(0, 1, n)
    shapes = (
        u, u**2, np.sqrt(u), np.log1p(np.arange(n)), np.exp(-u * random.uniform(2, 10)),
        1 / (1 + np.exp(-(u - random.uniform(0.2, 0.8)) * random.uniform(5, 60))),
    )  # fmt: skip
    values = shapes[random.integers(len(shapes))] * random.choice([-1, 1])
    noise = random.choice([0.1, 0.3, 1.0, 3.0])
    return (values - values.mean()) / values.std() + noise * random.standard_normal(n)


def line(random: Random, n: int) -> Array:
    """Return a straight trend and noise."""
    return np.linspace(-1.7, 1.7, n) * random.choice([-1, 1]) + 0.5 * random.standard_normal(n)


def texts_of(made: Callable[[Random, int], Array], sizes: list[int]) -> Callable[..., Array]:
    """Return figures of several texts, each with a level of its own."""
    return lambda random, n: np.concatenate(
        [made(random, size) + 2 * random.standard_normal() for size in sizes]
    )


NOISE: dict[str, Callable[[Random, int], Array]] = {
    "independent": lambda random, n: random.standard_normal(n),
    "lines and noise": line,
    "monotone trends and noise": trend,
    "autocorrelation 0.9": lambda random, n: autoregressive(random, n, 0.9),
    "autocorrelation 0.98": lambda random, n: autoregressive(random, n, 0.98),
    "random walks": lambda random, n: np.cumsum(random.standard_normal(n)),
    "decisions, rate 0.5": lambda random, n: (random.random(n) < 0.5) * 1.0,
    "decisions, rate 0.98": lambda random, n: (random.random(n) < 0.98) * 1.0,
    "decisions alike, rate 0.5": lambda random, n: (autoregressive(random, n, 0.9) < 0) * 1.0,
    "decisions that drift": lambda random, n: (random.random(n) < np.linspace(0.2, 0.9, n)) * 1.0,
}
NOISE["two rare kinds of token"] = lambda random, n: (random.random(n) < 0.04) * 1.0
SEVERAL = {"5 texts": [100] * 5, "40 texts": [25] * 40, "texts of 8 to 300": [8, 20, 40, 90, 300]}


def wilson(hits: int, of: int) -> str:
    """Return a share and its 95% interval."""
    if not of:
        return "none given"
    low, high = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits / of:.1%} ({low:.1%} to {high:.1%})"


def null(seeds: range, lengths: list[int], only: str) -> None:
    """Print how often two figures that have nothing to do with each other are claimed to."""
    print("figures | tokens | method | claimed at p <= 0.05 | interval without 0, of those given")
    cases: list[tuple[str, list[int] | int, Callable[..., Array], CorrelationMethod]] = [
        (name, n, made, "spearman") for n in lengths for name, made in NOISE.items()
    ]
    cases += [
        (name, 256, NOISE[name], method)
        for method in ("pearson", "kendall")
        for name in ("monotone trends and noise", "autocorrelation 0.9", "decisions, rate 0.98")
    ]  # fmt: skip
    for texts, sizes in SEVERAL.items():
        for name in ("independent", "lines and noise", "autocorrelation 0.9"):
            cases.append((f"{texts}, {name}", sizes, texts_of(NOISE[name], sizes), "spearman"))
    for name, size, made, method in cases:
        if only not in name:
            continue
        sizes = size if isinstance(size, list) else [size]
        documents = np.repeat(np.arange(len(sizes)), sizes)
        claimed = given = outside = 0
        for seed in seeds:
            random = np.random.default_rng([seed, sum(sizes)])
            x, y = made(random, sum(sizes)), made(random, sum(sizes))
            found = block_correlation(
                x, y, method=method, documents=documents, permutations=DRAWS, seed=seed
            )
            claimed += found.p <= 0.05
            given += np.isfinite(found.low)
            outside += found.low > 0 or found.high < 0
        print(
            f"{name} | {sum(sizes)} | {method} | {wilson(claimed, len(seeds))} | "
            f"{wilson(outside, given)}, {given / len(seeds):.0%} given",
            flush=True,
        )


def related(random: Random, n: int, *, r: float, persistence: float) -> tuple[Array, Array]:
    """Return two series with a coefficient."""
    x, other = (autoregressive(random, n, persistence) for _ in range(2))
    return x, r * x + np.sqrt(1 - r * r) * other


def coverage(seeds: range, lengths: list[int], only: str) -> None:
    """Print how often intervals cover the truth, and how often a true coefficient is found."""
    print("\nfigures | r | tokens | method | truth covered, of those given | found at p <= 0.05")
    kinds: dict[str, tuple[float, Callable[[Array], Array], CorrelationMethod]] = {
        f"autocorrelation {phi:g}": (phi, lambda x: x, "spearman") for phi in (0, 0.5, 0.8, 0.9)
    }
    kinds |= {
        f"decision of rate {rate}": (
            0.0, lambda x, rate=rate: (x < stats.norm.ppf(rate)) * -1.0, "spearman",
        )
        for rate in (0.5, 0.9, 0.95, 0.98)
    }  # fmt: skip
    kinds["Pearson's, heavy tails"] = (
        0.0, lambda x: stats.t.ppf(stats.norm.cdf(x), 3), "pearson",
    )  # fmt: skip
    kinds["Pearson's"] = (0.0, lambda x: x, "pearson")
    kinds["Pearson's, skewed"] = (0.0, lambda x: np.exp(x), "pearson")
    kinds["Kendall's"] = (0.0, lambda x: x, "kendall")
    for name, (persistence, shaped, method) in kinds.items():
        if only not in name:
            continue
        for r in (0.0, 0.3, 0.6):
            whole = related(np.random.default_rng(0), POPULATION, r=r, persistence=persistence)
            truth = block_correlation(
                shaped(whole[0]), whole[1], method=method, block=POPULATION, permutations=1, seed=0
            ).r
            for n in lengths:
                given = inside = found_it = 0
                for seed in seeds:
                    random = np.random.default_rng([seed, n, 1])
                    x, y = related(random, n, r=r, persistence=persistence)
                    found = block_correlation(
                        shaped(x), y, method=method, permutations=DRAWS, seed=seed
                    )
                    given += np.isfinite(found.low)
                    inside += found.low <= truth <= found.high
                    found_it += found.p <= 0.05
                print(
                    f"{name} | {truth:.2f} | {n} | {method} | {wilson(inside, given)}, "
                    f"{given / len(seeds):.0%} given | {found_it / len(seeds):.0%}",
                    flush=True,
                )


def others(seeds: range, n: int = 256) -> None:
    """Print the false claims of other schemes, by Spearman's coefficient."""
    print(f"\nfigures, {n} tokens | blocks | circular shifts | phases | effective sample size")
    for name, made in NOISE.items():
        claimed = np.zeros(4)
        for seed in seeds:
            random = np.random.default_rng([seed, n])
            x, y = (stats.rankdata(made(random, n)) for _ in range(2))
            if not x.std() * y.std():
                continue
            x, y = stats.zscore(x), stats.zscore(y)
            own = abs(x @ y)
            blocks = x[block_permutations(n, DRAWS, block=32, generator=random)]
            shifts = np.array([np.roll(x, shift) for shift in range(n // 10, n - n // 10)])
            turned = np.exp(2j * np.pi * random.random((DRAWS, n // 2 + 1)))
            phases = np.fft.irfft(np.fft.rfft(x) * turned, n)
            for place, shuffled in enumerate((blocks, shifts, phases)):
                extreme = (abs(shuffled @ y) >= own - 1e-9).sum()
                claimed[place] += (extreme + 1) / (len(shuffled) + 1) <= 0.05
            lags = range(1, n // 5)
            both = sum((x[k:] @ x[:-k]) * (y[k:] @ y[:-k]) / (n * (n - k)) for k in lags)
            free = max(3.0, min(n, 1 / (1 / n + 2 / n * both)) if 1 + 2 * both > 0 else n) - 2
            r = own / n
            t = r * np.sqrt(free / max(1 - r * r, 1e-12))
            claimed[3] += 2 * stats.t.sf(t, free) <= 0.05
        print(f"{name} | " + " | ".join(f"{each / len(seeds):.1%}" for each in claimed), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of the first draw; the others follow")
    parser.add_argument("--tokens", type=int, nargs="*", default=[100, 256, 1000])
    parser.add_argument("--others", action="store_true", help="also schemes that were not taken")
    parser.add_argument("--only", default="", help="figures with this in their name")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.draws)
    null(seeds, options.tokens, options.only)
    coverage(seeds, [n for n in options.tokens if n >= 256], options.only)
    if options.others:
        others(seeds)


if __name__ == "__main__":
    main()
