from __future__ import annotations

import polars as pl

from skipviz.analysis.clusters.maps import ClusterMap
from skipviz.readings.clusters import clustered_token_reading, map_reading
from tests.synthetic import make_trace

TRACE = make_trace(tokens=30)
MAPPED = ClusterMap(
    method="pca",
    points=pl.DataFrame({"point": [0, 1], "token": [0, 7], "x": 0.0, "y": 0.0}),
    tokens=pl.DataFrame({"point": [0] * 5 + [1] * 25}),
    variance=None,
)
TOKENS = pl.DataFrame({"cluster": [None] * 5 + [1] * 25, "distance": [None] * 5 + [0.25] * 25})


def test_the_map_says_what_is_selected_and_how_much_it_shows() -> None:
    said = map_reading(30, MAPPED, lit=None)
    assert said.startswith("Select a region of the map")
    assert "2 of 30 tokens are on the map" in said
    assert map_reading(30, MAPPED, lit=12).startswith("12 of 30 tokens are highlighted")
    assert "on the map" not in map_reading(2, MAPPED, lit=1)


def test_a_token_is_said_with_its_cluster_and_its_point() -> None:
    used = TRACE.tokens["layers_used"]
    text = TRACE.tokens["text"]
    assert clustered_token_reading(TRACE, TOKENS, MAPPED, token=7) == (
        f"Token 7, {text[7]!r}: cluster 1, 0.250 from its mean profile, layers used {used[7]:g}"
    )
    assert clustered_token_reading(TRACE, TOKENS, MAPPED, token=3) == (
        f"Token 3, {text[3]!r}: no cluster, layers used {used[3]:g}; token 0 stands for it on the "
        "map"
    )
