"""Which tokens belong to which cluster, here and in other texts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from skipviz.analysis.clusters.grouping import (
    NO_CLUSTER,
    Grouping,
    Metric,
    distances,
    nearest_group,
)
from skipviz.analysis.clusters.profiles import (
    ProfileValue,
    Scale,
    raw_profiles,
    scaled,
)
from skipviz.analysis.clusters.significance import ALPHA
from skipviz.analysis.clusters.storage import PROFILES, TABLES, read_tables, write_tables
from skipviz.analysis.one_model import check_same_model, traces_of_one_model
from skipviz.arrays import Floats, Ints
from skipviz.traces import Trace


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Which tokens have depth profiles alike.

    Attributes
    ----------
    run
        One row: ``model`` and ``weights_sha256`` that the profiles are of; ``on``, ``method``,
        ``metric`` and ``seed``; ``chosen``, whether the caller chose the number of clusters; ``p``,
        the share of shuffled profiles, these among them, that group as clearly; ``p_continuum``,
        the same of profiles whose sites go together in pairs as much, but which form no groups,
        null where ``p`` claims no clusters;
        ``stability``, the mean adjusted Rand index between groups made from two halves of the
        tokens, 1 if they agree, 0 by chance, null where one cluster is all there is.
    sites
        One row per site: ``site``, ``label``, ``layer``, ``unit``, ``visit``; ``centre`` and
        ``spread``, on the gate's own scale, that scores are scaled by.
    tokens
        One row per token of all traces: ``trace`` and ``token`` in it, ``source``, ``sequence``,
        ``position``, ``text``; ``cluster``, from 0 for the largest, null for a token that HDBSCAN
        leaves out; ``distance`` from the mean profile of its cluster, in the metric.
    profiles
        One row per cluster and site: ``cluster``, ``tokens`` in it, ``site``, ``label``, ``layer``,
        ``unit``; ``rate``, the share of them for which the site ran; ``score``, their mean score.
    criterion
        One row per number of ``clusters`` tried: their mean ``silhouette`` and that of ``shuffled``
        profiles and of a ``continuum``, the mean of all draws and the 95th percentile (``_high``);
        draws end early where it is clear that there are no clusters.
    references
        One row per profile that others are compared with: ``cluster`` (null for none) and
        ``profile``, scaled.

    Examples
    --------
    >>> found = skipviz.cluster(trace, clusters=2)
    >>> found.count
    2
    >>> found.profiles.columns
    ['cluster', 'tokens', 'site', 'label', 'layer', 'unit', 'rate', 'score']
    """

    run: pl.DataFrame
    sites: pl.DataFrame
    tokens: pl.DataFrame
    profiles: pl.DataFrame
    criterion: pl.DataFrame
    references: pl.DataFrame

    @property
    def count(self) -> int:
        """Number of clusters; 1 where tokens form none."""
        return int(self.references["cluster"].drop_nulls().n_unique())

    @property
    def found(self) -> bool:
        """Whether tokens form groups: more clearly than shuffled profiles and than a continuum.

        Shuffling breaks what sites have in common, and one demand for depth that differs from
        token to token is enough to be clearer than that; so a continuum must be ruled out too.
        """
        continuum = self.run["p_continuum"][0]
        return float(self.run["p"][0]) <= ALPHA and continuum is not None and continuum <= ALPHA

    def __repr__(self) -> str:
        run = self.run.row(0, named=True)
        return (
            f"Clusters({self.count} of {self.tokens.height} tokens, on={run['on']!r}, "
            f"method={run['method']!r}, {'groups' if self.found else 'no groups'}, "
            f"p={run['p']:.3f}, p_continuum={run['p_continuum']})"
        )

    def assign(self, traces: Trace | Sequence[Trace]) -> pl.DataFrame:
        """Return which of these clusters the tokens of other texts belong to.

        A token goes to the cluster of the reference nearest to its profile.

        Parameters
        ----------
        traces
            Of the same model.

        Returns
        -------
        pl.DataFrame
            As ``tokens``.

        Raises
        ------
        ValueError
            If the traces are of another model, or lack scores where clusters are made on them.
        """
        several = traces_of_one_model(traces)
        return clustered_tokens(
            several, self.scaled(several), self._grouping(), self.run["metric"][0]
        )

    def scaled(self, traces: Trace | Sequence[Trace]) -> Floats:
        """Return the profiles of texts as these clusters see them, [tokens, sites].

        Decisions are 0 or 1, scores on the scale in ``sites``.

        Parameters
        ----------
        traces
            Of the same model.

        Raises
        ------
        ValueError
            As ``assign``.
        """
        several = traces_of_one_model(traces)
        check_same_model(several[0], self.sites, self.run["weights_sha256"][0])
        scale = Scale(
            centre=self.sites["centre"].to_numpy(), spread=self.sites["spread"].to_numpy()
        )
        on: ProfileValue = self.run["on"][0]
        return scaled(raw_profiles(several, on), scale)

    def save(self, target: Path | str | io.BytesIO) -> None:
        """Write everything to one Parquet file of one row, each table a list in it."""
        write_tables({name: getattr(self, name) for name in TABLES}, target)

    @classmethod
    def load(cls, source: Path | str | io.BytesIO) -> Clusters:
        """Read what ``save`` wrote.

        Raises
        ------
        StoreError
            If the file holds no clusters, clusters of another format, not all of them, or some
            that make no sense.
        """
        return cls(**read_tables(source))

    def _grouping(self) -> Grouping:
        labels = self.references["cluster"].fill_null(NO_CLUSTER).to_numpy().astype(np.int64)
        return Grouping(references=self.references["profile"].to_numpy(), labels=labels)


def clustered_tokens(
    traces: Sequence[Trace], profiles: Floats, grouping: Grouping, metric: Metric
) -> pl.DataFrame:
    """Return ``Clusters.tokens`` of traces whose scaled profiles are given."""
    labels = nearest_group(grouping, profiles, metric)
    columns = ("token", "source", "sequence", "position", "text")
    tables = [
        trace.tokens.select(pl.lit(index, dtype=pl.Int64).alias("trace"), *columns)
        for index, trace in enumerate(traces)
    ]
    return pl.concat(tables).with_columns(
        cluster=_nullable(labels),
        distance=pl.Series(_from_centre(profiles, labels, grouping, metric)).fill_nan(None),
    )


def _from_centre(profiles: Floats, labels: Ints, grouping: Grouping, metric: Metric) -> Floats:
    """Return how far each token is from the mean reference of its cluster; NaN without one."""
    found = np.full(len(profiles), np.nan)
    for label in range(int(grouping.labels.max()) + 1):
        mine = labels == label
        centre = grouping.references[grouping.labels == label].mean(axis=0, keepdims=True)
        found[mine] = distances(profiles[mine], centre, metric)[:, 0]
    return found


def mean_profiles(traces: Trace | Sequence[Trace], tokens: pl.DataFrame) -> pl.DataFrame:
    """Return what the tokens of each cluster did at each site.

    Parameters
    ----------
    traces
        Of one model.
    tokens
        Their clusters, ``Clusters.tokens`` or what ``Clusters.assign`` returned.

    Returns
    -------
    pl.DataFrame
        As ``Clusters.profiles``, without clusters that no token belongs to.
    """
    several = traces_of_one_model(traces)
    labels = tokens["cluster"].fill_null(NO_CLUSTER).to_numpy()
    ran = np.concatenate([trace.matrix("exec_count") > 0 for trace in several])
    scores = np.concatenate([trace.matrix("score") for trace in several]).astype(np.float64)
    sites = several[0].sites.select("site", "label", "layer", "unit")
    tables = [pl.DataFrame(schema=PROFILES)]
    for label in np.unique(labels[labels != NO_CLUSTER]):
        mine = labels == label
        score = np.where(np.isfinite(scores[mine]), scores[mine], np.nan)
        asked = np.isfinite(score).sum(axis=0)
        mean = np.where(asked > 0, np.nansum(score, axis=0) / np.maximum(asked, 1), np.nan)
        tables.append(
            sites.select(
                pl.lit(int(label), dtype=pl.Int64).alias("cluster"),
                pl.lit(int(mine.sum()), dtype=pl.Int64).alias("tokens"),
                pl.all(),
                rate=pl.Series(ran[mine].mean(axis=0), dtype=pl.Float64),
                score=pl.Series(mean, dtype=pl.Float64).fill_nan(None),
            )
        )
    return pl.concat(tables)


def reference_table(grouping: Grouping) -> pl.DataFrame:
    """Return ``Clusters.references``."""
    sites = grouping.references.shape[1]
    return pl.DataFrame(
        {
            "cluster": _nullable(grouping.labels),
            "profile": pl.Series(
                np.ascontiguousarray(grouping.references), dtype=pl.Array(pl.Float64, sites)
            ),
        }
    )


def _nullable(labels: Ints) -> pl.Series:
    return pl.Series(labels, dtype=pl.Int64).replace(NO_CLUSTER, None)
