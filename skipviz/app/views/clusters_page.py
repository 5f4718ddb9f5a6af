"""The page of clusters: which tokens use the same layers, and what they have in common."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import polars as pl
import streamlit as st

from skipviz.analysis.clusters.cards import (
    MEAN_COLUMNS,
    cluster_classes,
    cluster_figures,
    typical_tokens,
)
from skipviz.analysis.clusters.clustered import Clusters, mean_profiles
from skipviz.analysis.clusters.clustering import MAX_CLUSTERS, MIN_TOKENS, cluster
from skipviz.analysis.clusters.grouping import ClusteringMethod
from skipviz.analysis.clusters.maps import ClusterMap, Projection, map_profiles
from skipviz.analysis.clusters.profiles import ProfileValue
from skipviz.app.components.chart_clicks import clicked_point, select_clicked
from skipviz.app.components.cluster_view import cluster_text_view, payload
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.notebook_cell import FROM_TRACE, SAVED_AS, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.jobs import SEED, Request
from skipviz.app.one_text import say_word_lists, traced_text
from skipviz.app.state import on_canvas, state, widget
from skipviz.app.token_range import TokenRange, chosen_range
from skipviz.errors import InputError
from skipviz.plots.clustered_text import cluster_text
from skipviz.plots.clusters import (
    LEFT_OUT,
    cluster_criterion,
    cluster_map,
    cluster_name,
    cluster_profiles,
)
from skipviz.plots.lenses.found import cluster_lens
from skipviz.plots.style.labels import said_of
from skipviz.plots.style.palette import cluster_colour
from skipviz.progress import Progress
from skipviz.readings.clusters import (
    assigned_words,
    card_words,
    clustered_token_reading,
    map_reading,
    reading,
)
from skipviz.readings.glossary import GLOSSARY
from skipviz.traces import Trace

HERE, FILE = "Found in this text", "From a file"
ONS: dict[str, ProfileValue] = {"Which layers ran": "executed", "Gate scores": "score"}
METHOD_NAMES: dict[str, ClusteringMethod] = {
    "k-means": "kmeans",
    "Agglomerative": "agglomerative",
    "HDBSCAN": "hdbscan",
}
PROJECTION_NAMES: dict[str, Projection] = {"PCA": "pca", "UMAP": "umap"}
ALL = "all tokens"
CLASSES_SHOWN = 10
CELL_FILES = f"{SAVED_AS} “The clusters, to assign other texts to” saves clusters.parquet."
FIGURE_COLUMNS: dict[str, Any] = {
    "of": "",
    "tokens": st.column_config.NumberColumn("Tokens", format="localized"),
    "share": st.column_config.NumberColumn("Share", format="percent"),
    "layers_used": st.column_config.NumberColumn(
        "Layers used", format="%.2f", help=GLOSSARY["layers used"]
    ),
    "nll": st.column_config.NumberColumn(
        "Loss on the next token, nats", format="%.2f", help=GLOSSARY["loss"]
    ),
    "surprisal": st.column_config.NumberColumn(
        "Surprisal, nats", format="%.2f", help=GLOSSARY["surprisal"]
    ),
    "position": st.column_config.NumberColumn("Position", format="%.0f"),
    "log_frequency": st.column_config.NumberColumn("Word frequency, log10", format="%.2f"),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Clusters, and what the tokens of the text at hand have in common in them."""

    clusters: Clusters
    tokens: pl.DataFrame
    profiles: pl.DataFrame
    figures: pl.DataFrame
    classes: pl.DataFrame
    typical: pl.DataFrame
    mapped: ClusterMap
    words: str


def page() -> None:
    """Offer to find clusters in the text traced last, or to assign it to those of a file."""
    answer = heading(
        "Which tokens use the same layers?", "depth profile", "cluster", "silhouette",
        "adjusted Rand index", "p-value", "gate score", "layers used", "surprisal",
    )  # fmt: skip
    st.markdown(
        "A token's **depth profile** lists the decisions or the scores of all gates. Tokens with "
        "similar profiles are grouped. **Clusters are claimed only if shuffled profiles do not "
        "group as clearly.**"
    )
    known = traced_text(gates="all tokens use the same layers")
    if known is None:
        return
    request, traced = known
    origin = st.segmented_control(
        "Clusters", [HERE, FILE], default=HERE, required=True, key="clusters_from"
    )
    linguistic = st.toggle(
        "Parts of speech and named entities (English, by spaCy)", key="clusters_linguistic"
    )
    asked = (_from_file if origin == FILE else _from_text)(request, traced, linguistic)
    if asked is not None:
        found, settings = asked
        answer.markdown(found.words)
        _show(request, traced, found, settings)


def _from_text(request: Request, traced: Trace, linguistic: bool) -> tuple[Found, str] | None:
    """Offer to find clusters; return what was found and how."""
    if len(traced) < MIN_TOKENS:
        st.info(
            f"The text has {len(traced)} tokens, too few to tell clusters from chance. Trace a "
            f"text "
            f"of {MIN_TOKENS} or more."
        )
        return None
    first, second, third = st.columns(3)
    on = ONS[
        str(
            first.segmented_control(
                "Profiles of",
                list(ONS),
                default=next(iter(ONS)),
                required=True,
                key="clusters_on",
                help=GLOSSARY["depth profile"],
            )
        )
    ]
    method = METHOD_NAMES[
        str(
            second.segmented_control(
                "Method",
                list(METHOD_NAMES),
                default="k-means",
                required=True,
                key="clusters_method",
            )
        )
    ]
    number = _choose_number(third, method)
    settings = f"{on} {method} {number} {linguistic}"

    def run(progress: Progress) -> Found:
        clusters = cluster(traced, on, method=method, clusters=number, seed=SEED, progress=progress)
        return _looked_at(clusters, traced, clusters.tokens, linguistic, reading(clusters))

    found = tried(
        "clusters",
        "Find clusters",
        request,
        lambda: jobs().analysis(request, f"clusters {settings}", run),
        settings=settings,
    )
    return None if found is None else (found, settings)


def _choose_number(place: Any, method: ClusteringMethod) -> int | None:
    if method == "hdbscan":
        place.caption("HDBSCAN finds the number of clusters itself and leaves some tokens out.")
        return None
    chosen = place.selectbox(
        "Number of clusters",
        ["By silhouette", *range(2, MAX_CLUSTERS + 1)],
        key="clusters_number",
        help="By silhouette: the number with the clearest groups, or one if shuffled profiles "
        "group "
        "as clearly. A fixed number is used whatever the test says.",
    )
    return None if chosen == "By silhouette" else int(chosen)


def _from_file(request: Request, traced: Trace, linguistic: bool) -> tuple[Found, str] | None:
    """Offer to assign the text to clusters made before; return what came out and of which."""
    upload = st.file_uploader(
        "Clusters saved from this page or with Clusters.save", type=["parquet"], key="clusters_file"
    )
    if upload is None:
        return None
    content, name = upload.getvalue(), upload.name
    settings = f"file {hashlib.sha256(content).hexdigest()} {linguistic}"

    def run(progress: Progress) -> Found:
        try:
            clusters = Clusters.load(io.BytesIO(content))
        except ValueError as error:
            raise InputError(str(error).replace("The data", name, 1)) from error
        tokens = clusters.assign(traced)
        words = (
            f"{assigned_words(clusters, tokens)}\n\nFor the tokens that made the clusters: "
            f"{reading(clusters)}"
        )
        return _looked_at(clusters, traced, tokens, linguistic, words)

    found = tried(
        "assign",
        "Assign this text",
        request,
        lambda: jobs().analysis(request, f"assign {settings}", run),
        settings=settings,
    )
    return None if found is None else (found, settings)


def _looked_at(
    clusters: Clusters, traced: Trace, tokens: pl.DataFrame, linguistic: bool, words: str
) -> Found:
    return Found(
        clusters=clusters,
        tokens=tokens,
        profiles=mean_profiles(traced, tokens),
        figures=cluster_figures(traced, tokens),
        classes=cluster_classes(traced, tokens, linguistic=linguistic),
        typical=typical_tokens(traced, tokens, seed=SEED),
        mapped=map_profiles(clusters, traced, seed=SEED),
        words=words,
    )


def _show(request: Request, traced: Trace, found: Found, settings: str) -> None:
    st.subheader("The map and the text")
    mapped = _choose_map(request, traced, found, settings)
    chosen = chosen_range(
        request, traced, but="They are highlighted; clusters and what they have in common are "
        "of the whole text.",
    )  # fmt: skip
    if mapped is not None:
        key = hashlib.sha256(f"{request.key} {settings} {mapped.method}".encode()).hexdigest()
        _explore(request, traced, found, mapped, key, chosen)
    st.subheader("Which layers each cluster runs, and how many clusters there are")
    left, right = st.columns(2)
    left.plotly_chart(cluster_profiles(traced, found.profiles), key="cluster_profiles")
    right.plotly_chart(cluster_criterion(traced, found.clusters), key="cluster_criterion")
    right.caption(
        f"{GLOSSARY['silhouette']} The dotted lines are means over draws without groups: profiles "
        "shuffled within sites, and a continuum with the same correlations between sites. The line "
        "above each is the 95th percentile of its draws. What decides is the highest point of "
        "these tokens and of each draw, at whatever number it lies: to be above the band at "
        "another number is no evidence."
    )
    _cards(request, traced, found)
    _downloads(traced, found)
    notebook_cells(
        "skipviz.plots.cluster_profiles(trace, mean_profiles(trace, tokens))",
        "skipviz.plots.cluster_criterion(trace, clusters)",
        imports=["from skipviz.analysis.clusters.clustered import mean_profiles"],
        first=_cell_lines(found),
        files=CELL_FILES,
    )
    st.caption(plain(said_of(traced)))
    on_canvas(request).paint(settings, lambda: [cluster_lens(traced, found.tokens)])


def _choose_map(request: Request, traced: Trace, found: Found, settings: str) -> ClusterMap | None:
    chosen = st.segmented_control(
        "Map by",
        list(PROJECTION_NAMES),
        default="PCA",
        required=True,
        key="clusters_map",
        help="PCA: the two directions in which profiles differ most. UMAP: keeps similar profiles "
        "close together; large distances mean little. It is slower.",
    )
    if PROJECTION_NAMES[str(chosen)] == "pca":
        return found.mapped
    return tried(
        "umap",
        "Compute the map",
        request,
        lambda: jobs().analysis(
            request,
            f"umap {settings}",
            lambda progress: map_profiles(found.clusters, traced, "umap", seed=SEED),
        ),
        settings=settings,
    )


@st.fragment
def _explore(
    request: Request, traced: Trace, found: Found, mapped: ClusterMap, key: str, within: TokenRange
) -> None:
    """Show map and text, linked: what is selected in one is highlighted in the other."""
    tokens = found.tokens
    names = [cluster_name(each) for each in sorted(tokens["cluster"].drop_nulls().unique())]
    left_out = [LEFT_OUT] if tokens["cluster"].null_count() else []
    chosen = st.segmented_control(
        "Highlight",
        [ALL, *names, *left_out],
        default=ALL,
        required=True,
        key=f"lit {key}",
        on_change=_clear,
        args=(key,),
    )
    points = state().points.get(key, set())
    if points:
        st.button("Clear the selection", on_click=_clear, args=(key,))
    of_name = tokens["cluster"].map_elements(cluster_name, pl.String, skip_nulls=False)
    lit = mapped.tokens["point"].is_in(points) if points else (of_name == chosen) | (chosen == ALL)
    every = not points and chosen == ALL and within.ends is None
    if within.ends is not None:
        lit &= tokens["token"].is_between(*within.ends)
    left, right = st.columns(2)
    with right:
        shown = payload(traced, tokens, key=key, lit=None if every else lit.arg_true().to_list())
        here = cluster_text_view(shown, key="cluster_text")
        if here is not None and here < len(traced):
            select_clicked(request, "cluster text", here)
        on = on_canvas(request)
        selected = on.selection.token if on.asked is None else on.asked[1]
    with left:
        of_points = mapped.tokens.filter(lit)["point"].unique().to_list()
        figure = cluster_map(
            traced,
            tokens,
            mapped,
            lit=None if every else set(of_points),
            marked=None if selected is None else int(mapped.tokens["point"][selected]),
        )
        st.plotly_chart(
            figure,
            key=f"map {key}",
            on_select=lambda: _keep_selected(key),
            selection_mode=("box", "lasso"),
        )
        point = clicked_point(f"map {key}")
        if point is not None and point["data"]:
            of_point = mapped.tokens.filter(point=int(point["data"][0]))
            select_clicked(request, "cluster map", int(of_point["token"][0]))
    st.caption(map_reading(tokens.height, mapped, lit=None if every else int(lit.sum())))
    said = "" if every else f", lit={set(of_points)}"
    said += "" if selected is None else f", marked={int(mapped.tokens['point'][selected])}"
    notebook_cells(
        f"skipviz.plots.cluster_map(trace, tokens, mapped{said})",
        imports=["from skipviz.analysis.clusters.maps import map_profiles"],
        first=[
            *_cell_lines(found),
            f"mapped = map_profiles(clusters, trace, {mapped.method!r}, seed={SEED})",
        ],
        files=CELL_FILES,
    )
    if selected is not None:
        st.text(clustered_token_reading(traced, tokens, mapped, token=selected))


def _cell_lines(found: Found) -> list[str]:
    own = found.tokens is found.clusters.tokens
    return [
        FROM_TRACE,
        'clusters = skipviz.Clusters.load("clusters.parquet")',
        f"tokens = {'clusters.tokens' if own else 'clusters.assign(trace)'}",
    ]


def _keep_selected(key: str) -> None:
    """Keep which points are selected: a map drawn anew, with other points faint, has forgotten."""
    points = widget(f"map {key}")["selection"]["points"]
    # The ring around a token is not a point.
    state().points[key] = {
        int(point["customdata"][0]) for point in points if point.get("customdata")
    }


def _clear(key: str) -> None:
    state().points[key] = set()


def _cards(request: Request, traced: Trace, found: Found) -> None:
    st.subheader("What the tokens have in common")
    say_word_lists(request, traced)
    figures = found.figures.select(
        name for name in FIGURE_COLUMNS if found.figures[name].null_count() < found.figures.height
    )
    st.dataframe(figures, column_config=FIGURE_COLUMNS, hide_index=True, width="stretch")
    missing = [
        FIGURE_COLUMNS[name]["label"] for name in MEAN_COLUMNS if name not in figures.columns
    ]
    if missing:
        st.caption(f"Unknown for this trace: {', '.join(missing)}.")
    for number in found.figures["cluster"].drop_nulls():
        with st.container(border=True):
            st.html(
                '<span style="display:inline-block;width:1em;height:1em;border-radius:.2em;'
                f'vertical-align:-.1em;background:{cluster_colour(number)}"></span> '
                f"<b>Cluster {number}</b>"
            )
            st.markdown(card_words(found.figures, found.classes, cluster=number))
            left, right = st.columns([2, 1])
            left.dataframe(
                found.typical.filter(cluster=number).select(
                    "before",
                    pl.col("text").alias("typical"),
                    "after",
                    pl.col("token"),
                    pl.col("distance").round(3),
                ),
                column_config={
                    name: st.column_config.Column(width="small")
                    for name in ("typical", "token", "distance")
                },
                hide_index=True,
                width="stretch",
            )
            right.dataframe(
                found.classes.filter(cluster=number)
                .sort(pl.col("more").abs(), descending=True, maintain_order=True)
                .head(CLASSES_SHOWN)
                .select("class", "share", "share_all"),
                column_config={
                    "share": st.column_config.NumberColumn("here", format="percent"),
                    "share_all": st.column_config.NumberColumn("all tokens", format="percent"),
                },
                hide_index=True,
                width="stretch",
            )


def _downloads(traced: Trace, found: Found) -> None:
    st.subheader("Downloads")
    tables = {
        "Clusters of tokens": ("clusters", found.tokens),
        "Figures": ("cluster-figures", found.figures),
        "Classes": ("cluster-classes", found.classes),
        "Profiles": ("cluster-profiles", found.profiles),
        "Typical tokens": ("cluster-tokens", found.typical),
        "Criterion": ("cluster-criterion", found.clusters.criterion),
    }
    csv_buttons(tables)
    left, right = st.columns(2)
    saved = io.BytesIO()
    found.clusters.save(saved)
    left.download_button(
        "The clusters, to assign other texts to", saved.getvalue(), file_name="clusters.parquet",
        on_click="ignore", width="stretch",
        help="The file also contains the texts that the clusters were made from.",
    )  # fmt: skip
    right.download_button(
        "Coloured text (HTML)",
        lambda: cluster_text(traced, found.tokens, limit=len(traced)).encode(),
        file_name="clusters.html", mime="text/html", on_click="ignore", width="stretch",
    )  # fmt: skip
