"""Depth profiles: a token's vector over sites, of its decisions or of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from skipviz.arrays import Floats
from skipviz.errors import InputError
from skipviz.traces import Trace

ProfileValue = Literal["executed", "score"]
PROFILE_VALUES: tuple[ProfileValue, ...] = ("executed", "score")
NORMAL_QUARTILE_RANGE = 1.349
"""Distance between the quartiles of a normal distribution, in standard deviations."""
SCORE_CLIP = 3.0
"""Where scaled scores are cut off: a few tokens lie so far out that they alone would be groups."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How the scores of each site are made comparable.

    Attributes
    ----------
    centre
        What is subtracted, of shape [sites], on each gate's own scale.
    spread
        What is divided by, of shape [sites].
    """

    centre: Floats
    spread: Floats


def raw_profiles(traces: Sequence[Trace], on: ProfileValue) -> Floats:
    """Return what each token did at each site, [tokens, sites].

    Parameters
    ----------
    traces
        Of one model, one after the other.
    on
        ``executed``: 1 where the unit ran, else 0; ``score``: the gate's score, on its scale.

    Raises
    ------
    ValueError
        If there is nothing of that name, or a score is missing.
    """
    if on not in PROFILE_VALUES:
        raise InputError(f"on={on!r} is not one of {', '.join(PROFILE_VALUES)}.")
    if on == "executed":
        return np.concatenate([(t.matrix("exec_count") > 0).astype(np.float64) for t in traces])
    scores: Floats = np.concatenate([t.matrix("score").astype(np.float64) for t in traces])
    missing = float((~np.isfinite(scores)).mean()) if scores.size else 0.0
    if missing:
        raise InputError(
            f"{missing:.1%} of the scores are missing, as of tokens that have left; cluster with "
            "on='executed'."
        )
    return scores


def scale_of(profiles: Floats, on: ProfileValue) -> Scale:
    """Return the scale of profiles: none for decisions, median and quartiles for scores."""
    sites = profiles.shape[1]
    if on == "executed":
        return Scale(centre=np.zeros(sites), spread=np.ones(sites))
    low, middle, high = np.quantile(profiles, [0.25, 0.5, 0.75], axis=0)
    spread = (high - low) / NORMAL_QUARTILE_RANGE
    # A gate that says the same of most tokens has no quartiles to speak of.
    spread = np.where(spread > 0, spread, profiles.std(axis=0))
    return Scale(centre=middle, spread=np.where(spread > 0, spread, 1.0))


def scaled(profiles: Floats, scale: Scale) -> Floats:
    """Return profiles on a scale, [tokens, sites], cut off where they lie far out."""
    found: Floats = np.clip((profiles - scale.centre) / scale.spread, -SCORE_CLIP, SCORE_CLIP)
    return found


class Continuum:
    """Profiles without groups, whose sites go together in pairs as much as in those given.

    A latent variable a site, with correlations, is turned into the values of that site by rank
    (Cario and Nelson, "Modeling and generating random vectors with arbitrary marginal distributions
    and correlation matrix", 1997). Ties weaken correlations; those of the latent variables are
    raised until what comes out has those wanted.

    Most tokens may need little and a few need much: a skewed demand has one mode, and yet profiles
    lie closer together at one end. So what most sites share is as skewed as in those given, and
    all else is normal.

    Parameters
    ----------
    profiles
        In any order, [tokens, sites].
    generator
        Source of chance.
    """

    ROUNDS = 4
    SKEWS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)

    def __init__(self, profiles: Floats, generator: np.random.Generator) -> None:
        self._sorted = np.sort(profiles, axis=0)
        self._generator = generator
        self._wanted = _correlations(profiles)
        self._shared = np.linalg.eigh(self._wanted)[1][:, -1]
        own = self._skew_of(profiles)
        found = []
        for skew in self.SKEWS:
            self._fit(skew)
            found.append(float(np.mean([self._skew_of(self.draw()) for _ in range(self.ROUNDS)])))
        self._fit(float(np.interp(own, np.maximum.accumulate(found), self.SKEWS)))

    def draw(self) -> Floats:
        """Return as many profiles as were given, [tokens, sites], each site's values the same."""
        latent = self._generator.normal(size=self._sorted.shape)
        if self._skew:
            latent[:, -1] = stats.pearson3.rvs(
                self._skew, size=len(latent), random_state=self._generator
            )
        rank = np.argsort(np.argsort(latent @ self._mix, axis=0), axis=0)
        found: Floats = np.take_along_axis(self._sorted, rank, axis=0)
        return found

    def _fit(self, skew: float) -> None:
        """Find latent correlations for a skewness of what most sites share."""
        self._skew = skew
        latent = self._wanted.copy()
        self._mix = _root(latent, self._shared)
        for _ in range(self.ROUNDS):
            latent = np.clip(latent + self._wanted - _correlations(self.draw()), -0.99, 0.99)
            np.fill_diagonal(latent, 1.0)
            self._mix = _root(latent, self._shared)

    def _skew_of(self, profiles: Floats) -> float:
        """Return how skewed is what most sites of profiles share."""
        spread = profiles.std(axis=0)
        unit = (profiles - profiles.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        shared = unit @ self._shared
        return float(stats.skew(shared)) if shared.std() > 0 else 0.0


def _correlations(profiles: Floats) -> Floats:
    centred = profiles - profiles.mean(axis=0)
    spread = centred.std(axis=0)
    unit = centred / np.where(spread > 0, spread, 1.0)
    found: Floats = unit.T @ unit / len(profiles)
    np.fill_diagonal(found, 1.0)
    return found


def _root(correlations: Floats, shared: Floats) -> Floats:
    """Return a matrix that gives independent columns nearly these correlations.

    The last row is what most sites share, in the direction of ``shared``.
    """
    values, vectors = np.linalg.eigh(correlations)
    vectors[:, -1] *= 1.0 if vectors[:, -1] @ shared >= 0 else -1.0
    found: Floats = (vectors * np.sqrt(np.clip(values, 0.0, None))).T
    return found
