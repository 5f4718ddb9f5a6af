"""Depth profiles in two dimensions, to look at: tokens with profiles alike lie together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.grouping import Grouping, Metric, distances, nearest_group
from skipviz.analysis.clusters.significance import sample_tokens
from skipviz.analysis.one_model import traces_of_one_model
from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError, MissingExtraError
from skipviz.traces import Trace

Projection = Literal["pca", "umap"]
PROJECTIONS: tuple[Projection, ...] = ("pca", "umap")
MAX_POINTS = 2000
"""Points on a map; each further token is stood for by the one with the nearest profile."""
UMAP_NEIGHBOURS = 15
"""Neighbours that UMAP tries to keep."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterMap:
    """Where profiles lie on a map.

    Attributes
    ----------
    method
        ``pca`` or ``umap``.
    points
        One row a point: ``point``; ``trace`` and ``token`` that lies there; ``x`` and ``y``, in
        the profiles' own scale for PCA, without meaning of their own for UMAP; ``tokens``, how
        many it stands for, itself among them.
    tokens
        One row per token of all traces: ``trace``, ``token`` and the ``point`` that stands for it.
    variance
        Shares of the variance along x and y, 0 to 1; None for UMAP.
    """

    method: Projection
    points: pl.DataFrame
    tokens: pl.DataFrame
    variance: tuple[float, float] | None


def map_profiles(
    clusters: Clusters,
    traces: Trace | Sequence[Trace],
    method: Projection = "pca",
    *,
    seed: int = 0,
) -> ClusterMap:
    """Lay the depth profiles of texts out in two dimensions.

    Parameters
    ----------
    clusters
        Say which profiles to take, of decisions or of scores, and their distance.
    traces
        The same texts, or others of the same model.
    method
        ``pca``, principal components, in which what lies apart differs, but not all that differs
        lies apart; ``umap``, in which neighbours stay together and larger distances mean little
        (McInnes, Healy and Melville, "UMAP: uniform manifold approximation and projection for
        dimension reduction", 2018).
    seed
        Of the sample and of UMAP.

    Returns
    -------
    ClusterMap
        Of at most ``MAX_POINTS`` points.

    Raises
    ------
    ImportError
        If UMAP is asked for and not installed; says how to install it.
    ValueError
        If there is no such method, there are too few tokens for it, or the traces are of another
        model.
    """
    if method not in PROJECTIONS:
        raise InputError(f"method={method!r} is not one of {', '.join(PROJECTIONS)}.")
    several = traces_of_one_model(traces)
    profiles = clusters.scaled(several)
    metric: Metric = clusters.run["metric"][0]
    if not len(profiles):
        raise InputError("The traces have 0 tokens, so there is nothing to map; trace a text.")
    if method == "umap" and len(profiles) <= UMAP_NEIGHBOURS:
        raise InputError(
            f"{len(profiles)} tokens are too few for UMAP, which looks at {UMAP_NEIGHBOURS} "
            "neighbours of each; take method='pca' or a longer text."
        )
    chosen = sample_tokens(len(profiles), MAX_POINTS, np.random.default_rng(seed))
    variance = None
    if method == "pca":
        places, variance = _principal_components(profiles[chosen])
    else:
        places = _umap(profiles[chosen], metric, seed)
    stands = _stands_for(profiles, chosen, metric)
    tokens = pl.DataFrame(
        {
            "trace": np.repeat(np.arange(len(several)), [len(trace) for trace in several]),
            "token": np.concatenate([np.arange(len(trace)) for trace in several]),
            "point": stands,
        },
        schema={"trace": pl.Int64, "token": pl.Int64, "point": pl.Int64},
    )
    points = tokens[chosen].select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("point"),
        "trace",
        "token",
        x=pl.Series(places[:, 0]),
        y=pl.Series(places[:, 1]),
        tokens=pl.Series(np.bincount(stands, minlength=len(chosen)), dtype=pl.Int64),
    )
    return ClusterMap(method=method, points=points, tokens=tokens, variance=variance)


def _stands_for(profiles: Floats, chosen: np.ndarray, metric: Metric) -> Ints:
    """Return the point of each token: its own, or the one with the nearest profile."""
    points = Grouping(references=profiles[chosen], labels=np.arange(len(chosen)))
    found = nearest_group(points, profiles, metric)
    found[chosen] = points.labels  # the first of several with the same profile would be nearest
    return found


def _principal_components(profiles: Floats) -> tuple[Floats, tuple[float, float]]:
    from sklearn.decomposition import PCA

    places = np.zeros((len(profiles), 2))
    if (profiles == profiles[0]).all():
        return places, (0.0, 0.0)
    model = PCA(min(2, *profiles.shape), svd_solver="full")
    found = model.fit_transform(profiles)
    places[:, : found.shape[1]] = found
    shares = [*map(float, model.explained_variance_ratio_), 0.0]
    return places, (shares[0], shares[1])


def _umap(profiles: Floats, metric: Metric, seed: int) -> Floats:
    with warnings.catch_warnings():
        # That Tensorflow is missing, that distances given have no inverse, that sets of equal
        # profiles are neighbours of none but themselves.
        warnings.simplefilter("ignore")
        model = _umap_learn().UMAP(
            n_neighbors=UMAP_NEIGHBOURS, metric="precomputed", random_state=seed, n_jobs=1
        )
        found: Floats = model.fit_transform(distances(profiles, profiles, metric))
    return found.astype(np.float64)


def _umap_learn() -> Any:
    try:
        import umap
    except ImportError as error:
        raise MissingExtraError(
            "Maps by UMAP need umap-learn, which is not installed: pip install "
            "'skipviz[clusters]'. Maps by PCA do without it."
        ) from error
    return umap
