"""Whether there are clusters at all, how many, and whether other tokens reproduce them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.analysis.clusters.grouping import Grouper, distances, nearest_group, silhouette
from skipviz.analysis.clusters.profiles import Continuum
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, shuffled_columns
from skipviz.arrays import Floats
from skipviz.progress import Progress, no_progress

SILHOUETTE_TOKENS = 600
"""Tokens on which silhouettes are taken; all their pairs are."""
ALPHA = 0.05
"""Clusters are claimed where no greater share of shuffled profiles groups as clearly."""
NULL_DRAWS = 39
"""How often profiles are shuffled, and how often drawn from a continuum, at most."""
ENOUGH_AS_CLEAR = 4
"""Draws as clear as the profiles themselves after which there is no use in further ones."""
CONTINUUM = ("continuum", "continuum_high")
RESAMPLES = 20
MIN_BLOCKS = 20
"""Blocks that are shuffled on average, at least; in a short text they are shorter for it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found out about the number of clusters.

    Attributes
    ----------
    criterion
        One row a number of clusters, as ``Clusters.criterion``.
    best
        The number with the clearest groups; 0 if there are none.
    p, p_continuum
        As in ``Clusters``.
    """

    criterion: pl.DataFrame
    best: int
    p: float
    p_continuum: float | None


def judge(
    profiles: Floats,
    grouper: Grouper,
    *,
    counts: list[int | None],
    seed: int = 0,
    progress: Progress = no_progress,
) -> Verdict:
    """Hold the silhouettes of profiles against those of profiles without groups.

    Parameters
    ----------
    profiles
        In reading order, [tokens, sites].
    grouper
        Makes the groups.
    counts
        Numbers of clusters to try; ``[None]`` leaves it to the method.
    seed
        Of shuffling and drawing.
    progress
        Called with the share done, 0 to 1.
    """
    generator = np.random.default_rng(seed)
    looked = sample_tokens(len(profiles), SILHOUETTE_TOKENS, generator)
    block = max(1, min(BLOCK_TOKENS, len(profiles) // MIN_BLOCKS))
    own, groups = _silhouettes(profiles[looked], grouper, counts)

    def blind(draw: Callable[[], Floats], begun: float) -> tuple[Floats, float]:
        found: list[Floats] = []
        # Each draw gives its clearest number of clusters, as these profiles did.
        while (
            len(found) < NULL_DRAWS
            and sum(each.max() >= own.max() for each in found) < ENOUGH_AS_CLEAR
        ):
            found.append(_silhouettes(draw()[looked], grouper, counts)[0])
            progress(begun + len(found) / NULL_DRAWS / 2)
        return np.stack(found), _p_value(own.max(), np.array([each.max() for each in found]))

    apart, p = blind(lambda: shuffled_columns(profiles, block=block, generator=generator), 0.0)
    table = pl.DataFrame(
        {"clusters": groups, "silhouette": own} | _summary("shuffled", apart),
        schema_overrides={"clusters": pl.Int64},
    )
    best = groups[int(own.argmax())] if own.max() > 0 else 0
    if p > ALPHA:
        nothing = [pl.lit(None, dtype=pl.Float64).alias(name) for name in CONTINUUM]
        return Verdict(criterion=table.with_columns(nothing), best=best, p=p, p_continuum=None)
    smooth, p_continuum = blind(Continuum(profiles, generator).draw, 0.5)
    table = table.with_columns(pl.DataFrame(_summary("continuum", smooth)))
    return Verdict(criterion=table, best=best, p=p, p_continuum=p_continuum)


def split_half_agreement(
    profiles: Floats, grouper: Grouper, *, count: int | None, seed: int = 0
) -> list[float]:
    """Return how well groups made from half of the tokens agree with those from the other half.

    Parameters
    ----------
    profiles
        Of shape [tokens, sites].
    grouper
        Makes the groups.
    count
        Number of clusters; None leaves it to the method.
    seed
        Of the halves.

    Returns
    -------
    list of float
        For each resample the adjusted Rand index (Hubert and Arabie, "Comparing partitions", 1985)
        of the two groupings, each carried to all tokens: 1 if they agree, about 0 by chance.
    """
    from sklearn.metrics import adjusted_rand_score

    generator = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        order = generator.permutation(len(profiles))[: 2 * SILHOUETTE_TOKENS]
        halves = np.array_split(order, 2)
        left, right = (
            nearest_group(grouper.group(profiles[half], count), profiles[order], grouper.metric)
            for half in halves
        )
        found.append(float(adjusted_rand_score(left, right)))
    return found


def sample_tokens(tokens: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Return at most so many of the tokens, in reading order."""
    if tokens <= most:
        return np.arange(tokens)
    return np.sort(generator.choice(tokens, most, replace=False))


def _p_value(own: float, blind: Floats) -> float:
    """Return the p-value of draws that may have ended early.

    Besag and Clifford, "Sequential Monte Carlo p-values", 1991.
    """
    as_clear = int((blind >= own).sum())
    if as_clear >= ENOUGH_AS_CLEAR:
        return as_clear / len(blind)
    return (1 + as_clear) / (1 + len(blind))


def _summary(name: str, blind: Floats) -> dict[str, Floats]:
    """Return mean and 95th percentile of draws, [draws, numbers of clusters]."""
    return {name: blind.mean(axis=0), f"{name}_high": np.quantile(blind, 0.95, axis=0)}


def _silhouettes(
    profiles: Floats, grouper: Grouper, counts: list[int | None]
) -> tuple[Floats, list[int]]:
    """Return the silhouette for each number of clusters, and how many clusters there were."""
    apart = distances(profiles, profiles, grouper.metric)
    distinct = len(np.unique(profiles, axis=0))
    # Shuffled profiles can be fewer distinct ones; more groups than those cannot be made.
    possible = [count for count in counts if count is None or count <= distinct]
    found = np.zeros(len(counts))
    labels = grouper.labels(profiles, possible) if possible else []
    found[: len(labels)] = [silhouette(apart, each) for each in labels]
    groups = [int(labels[0].max()) + 1 if count is None else count for count in counts]
    return found, groups
