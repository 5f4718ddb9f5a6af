"""The page of attribution: what a prediction or score is owed to, over the text and over depth."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import polars as pl
import streamlit as st

from skipviz.analysis.agreement import agreement, beside_flips, worth_of_cells
from skipviz.analysis.attribution_words import (
    correlation_reading,
    depth_reading,
    paths_reading,
    sum_reading,
    text_reading,
)
from skipviz.analysis.correlation import BLOCK
from skipviz.analysis.correlation import METHODS as COEFFICIENTS
from skipviz.analysis.pieces import pieces
from skipviz.analysis.score_correlation import score_correlations
from skipviz.app.downloads import csv_of
from skipviz.app.jobs import Request
from skipviz.app.one_text import about, audited, seconds, unfit
from skipviz.app.plain_text import plain
from skipviz.app.run_view import jobs, traced_now
from skipviz.app.trials import tried
from skipviz.experiments.attribution import Gates, Method, attribute, runs
from skipviz.experiments.depth_attribution import attribute_depth, flips_beside
from skipviz.experiments.explained import Attribution, Target
from skipviz.models import SkipModel
from skipviz.plots.attribution import (
    attribution_html,
    correlation_figure,
    depth_bars,
    depth_map,
    share_scatter,
)
from skipviz.plots.labels import provenance
from skipviz.plots.palette import UNIT_NAMES
from skipviz.recording.tracing import Progress
from skipviz.trace import Trace

SEED = 0
MOST_ROWS = 30
FEW_BLOCKS = 4
"""Blocks of tokens below which a bootstrap over them says nothing."""
WITH_GRADIENT = 3
"""How many times as long a run takes that is walked back for gradients."""
KINDS = {
    "log-probability of what came next": "log_probability",
    "loss on what came next": "loss",
    "one word against another": "contrast",
    "score of a gate": "score",
}
WAYS: dict[str, Method] = {
    "Feature ablation": "feature_ablation",
    "Integrated gradients": "integrated_gradients",
    "Input times gradient": "input_x_gradient",
    "GradientSHAP": "gradient_shap",
    "Shapley sampling": "shapley_sampling",
}
MEANINGS: dict[Method, str] = {
    "feature_ablation": "Each token is taken away alone, the mean embedding in its place; its "
    "share is what that changes.",
    "integrated_gradients": "Gradients are summed along the straight path from mean embeddings to "
    "the text. Exact if walked finely enough; the delta tells.",
    "input_x_gradient": "The slope at the text itself, times the step from the mean embedding. "
    "Quick, and blind to all that is not straight.",
    "gradient_shap": "Gradients at random points of the path that integrated gradients walk.",
    "shapley_sampling": "Tokens are put in one by one in random orders; a share is the mean of "
    "what a token changed. The fairest, and the slowest.",
}
STEPS: dict[Method, int] = {
    "integrated_gradients": 64,
    "gradient_shap": 32,
    "shapley_sampling": 3,
}
"""Where to begin, for the methods that take steps or samples."""
GATES: dict[str, Gates] = {"Frozen": "frozen", "Straight through": "straight_through"}
VALUES = {"Utility, by the audit": "utility", "Shares over depth": "share"}
WORDS = {"utility": "utility", "share": "shares of the loss"}
SCOPES = ("This token's", "The whole text's")


def page() -> None:
    """Offer the attributions of the text last traced, and show what came out."""
    st.header("What is it owed to?")
    st.markdown(
        "What in the text, and which units over the depth, made a prediction likely or a gate "
        "speak: **shares** of one number among all that could have made it. And whether gates "
        "score high where executing is worth it."
    )
    request: Request | None = st.session_state.get("request")
    traced = traced_now()
    if request is None or traced is None:
        st.info("Trace a text on the page “Skip paths” first; it is what will be explained here.")
        return
    problem = unfit(traced)
    if problem is not None:
        st.info(problem)
        return
    st.caption(f"The text: {plain(traced.tokens['source'][0])}, {len(traced):,} tokens.")
    token = _choose_token(traced)
    st.subheader("Over the text")
    _over_text(request, traced, token)
    st.subheader("Over depth")
    shares = _over_depth(request, traced, token)
    st.subheader("Do scores go with what executing is worth?")
    _correlations(request, traced, shares)
    st.caption(provenance(traced))


def _choose_token(traced: Trace) -> int:
    texts = traced.tokens["text"].to_list()
    following = [*(f", then {text!r}" for text in texts[1:]), ", the last"]
    return int(
        st.selectbox(
            "Token",
            range(len(texts)),
            index=len(texts) - 2,
            format_func=lambda token: f"{token}: {texts[token]!r}{following[token]}",
            # A key of its own for each length: a shorter text has no such token.
            key=f"attributed of {len(texts)}",
            help="The prediction made at this token, or a gate's score for it, is explained. Type "
            "to search.",
        )
    )


@dataclass(frozen=True)
class _Asked:
    """What is explained, and its words."""

    target: Target
    what: str
    unit: str


def _over_text(request: Request, traced: Trace, token: int) -> None:
    asked = _choose_target(traced, token)
    if asked is None:
        return
    left, middle, right = st.columns([2, 2, 1])
    method = WAYS[str(left.selectbox("Method", list(WAYS), key="method"))]
    gates = GATES[
        str(
            middle.segmented_control(
                "Gates",
                list(GATES),
                default="Frozen",
                required=True,
                key="gates",
                help="Frozen: every decision stays as it was. Straight through: gates may decide "
                "anew where tokens are taken away, and gradients pass through decisions with the "
                "slope of the sigmoid that they were trained with.",
            )
        )
    ]
    steps = 1
    if method in STEPS:
        steps = int(
            right.number_input(
                "Steps", 1, 512, STEPS[method], key=f"steps of {method}",
                help="Points of the path, or samples.",
            )
        )  # fmt: skip
    seen = token + 1
    forwards = runs(method, steps=steps, tokens=seen)
    if method not in ("feature_ablation", "shapley_sampling"):
        forwards *= WITH_GRADIENT
    st.caption(
        f"{MEANINGS[method]} About {about(seconds(forwards, seen))}. Frozen and straight through "
        "answer different questions: a hard decision has no slope, so with frozen gates nothing "
        "can act by changing what runs."
    )
    settings = f"{asked.target} {method} {gates} {steps}"
    found = tried(
        "attribution",
        "Attribute over the text",
        request,
        lambda: jobs().experiment(
            request,
            f"attribution {settings}",
            lambda model, progress, stop: attribute(
                model, traced, asked.target, method=method, gates=gates, steps=steps, seed=SEED,
                progress=progress, stop=stop,
            ),
        ),
        settings=settings,
    )  # fmt: skip
    if found is not None:
        _show_text(traced, asked, found)


def _choose_target(traced: Trace, token: int) -> _Asked | None:
    last = token == len(traced) - 1
    kinds = ["score of a gate"] if last else list(KINDS)
    chosen = str(st.selectbox("What to explain", kinds, key=f"kind {last}"))
    kind = KINDS[chosen]
    if kind == "score":
        return _choose_score(traced, token)
    if kind == "contrast":
        return _choose_contrast(traced, token)
    word = f"{traced.tokens['text'][token + 1]!r} after token {token}"
    name = "log-probability of" if kind == "log_probability" else "loss on"
    return _Asked(Target(token=token, kind=cast(Any, kind)), f"the {name} {word}", "nats")


def _choose_score(traced: Trace, token: int) -> _Asked:
    sites = traced.sites.select("layer", "unit").rows()
    names = [f"layer {layer}, {UNIT_NAMES[unit]}" for layer, unit in sites]
    site = names.index(str(st.selectbox("Gate", names, index=len(names) // 2, key="gate")))
    score, threshold = (float(traced.matrix(name)[token, site]) for name in ("score", "threshold"))
    ran = "it ran" if traced.matrix("exec_count")[token, site] else "it was skipped"
    st.caption(
        f"For token {token} this gate says {score:.3f} and the threshold is {threshold:.3f}, so "
        f"{ran}. Shares are in points of the gate's own scale."
    )
    return _Asked(
        Target(token=token, kind="score", site=site),
        f"the score of {names[site]} for token {token}",
        "points",
    )


def _choose_contrast(traced: Trace, token: int) -> _Asked | None:
    row = traced.tokens.row(token, named=True)
    words = {int(traced.tokens["token_id"][token + 1]): str(traced.tokens["text"][token + 1])}
    likely = zip(row["top_ids"] or [], row["top_texts"] or [], strict=True)
    words |= {int(word): str(text) for word, text in likely if word >= 0 and int(word) not in words}
    if len(words) < 2:
        st.info("No other word is known to have been likely here; choose another token.")
        return None
    left, right = st.columns(2)
    word = int(
        left.selectbox(
            "Word", list(words), format_func=lambda each: repr(words[each]), key=f"word {token}",
            help="What came next, and what the model held likeliest.",
        )
    )  # fmt: skip
    others = [each for each in words if each != word]
    against = int(
        right.selectbox(
            "Against", others, format_func=lambda each: repr(words[each]),
            key=f"against {token} {word}",
        )
    )  # fmt: skip
    return _Asked(
        Target(token=token, kind="contrast", word=word, against=against),
        f"the lead of {words[word]!r} over {words[against]!r} after token {token}",
        "nats",
    )


def _show_text(traced: Trace, asked: _Asked, found: Attribution) -> None:
    words = st.segmented_control(
        "Shares of", ["Tokens", "Words"], default="Tokens", required=True, key="pieces",
        help="A word's share is the sum of its tokens'.",
    ) == "Words"  # fmt: skip
    parts = pieces(traced, found.table, words=words)
    total = float(found.table["attribution"].sum())
    cells = [
        ("Explained", f"{found.value:.3f}", f"{asked.what}, {asked.unit}, on the text as it is."),
        ("Sum of the shares", f"{total:+.3f}", f"Over all tokens, {asked.unit}."),
        (
            "Convergence delta",
            "none" if found.delta is None else f"{found.delta:+.3f}",
            "By how much the sum misses the difference between the text and mean embeddings in "
            "the place of all of it. Near 0, the shares can be trusted to add up.",
        ),
    ]
    for column, (label, value, meaning) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value, help=plain(meaning))
    st.markdown(sum_reading(found.delta, total))
    st.html(
        attribution_html(traced, parts, target=asked.target.token, what=asked.what, unit=asked.unit)
    )
    st.markdown(plain(text_reading(parts, what=asked.what, unit=asked.unit)))
    _downloads(
        {
            "Tokens": (
                "attribution-tokens",
                pieces(traced, found.table, words=False).drop_nulls("attribution"),
            ),
            "Words": (
                "attribution-words",
                pieces(traced, found.table, words=True).drop_nulls("attribution"),
            ),
        }
    )


@dataclass(frozen=True, eq=False)
class _Depth:
    """Shares over depth and the exact flips beside them."""

    cells: pl.DataFrame
    compared: pl.DataFrame
    attributed: Attribution


def _depth_run(
    traced: Trace, token: int | None, steps: int
) -> Callable[[SkipModel, Progress, threading.Event], _Depth]:
    target = None if token is None else Target(token=token, kind="loss")

    def run(model: SkipModel, progress: Progress, stop: threading.Event) -> _Depth:
        found = attribute_depth(
            model, traced, target, steps=steps, stop=stop,
            progress=lambda share: progress(0.8 * share),
        )  # fmt: skip
        flips = flips_beside(
            model, traced, token, seed=SEED, stop=stop,
            progress=lambda share: progress(0.8 + 0.2 * share),
        )  # fmt: skip
        cells = worth_of_cells(traced, found.table)
        return _Depth(cells, beside_flips(cells, flips), found)

    return run


def _over_depth(request: Request, traced: Trace, token: int) -> pl.DataFrame | None:
    """Show shares over depth; return them if they are of the whole text."""
    st.markdown(
        "Which units are run is the input here: integrated gradients walk from all gated units "
        "skipped to what was run, and from there to all run. The first path gives shares to what "
        "ran, the second to what was skipped. Exact flips of the same decisions stand beside them."
    )
    left, right = st.columns([3, 1])
    whole = SCOPES[1] == left.segmented_control(
        "Loss", SCOPES, default=SCOPES[1], required=True, key="depth_scope",
        help="The loss of the token chosen above on what came next, or the sum over all tokens.",
    )  # fmt: skip
    steps = int(
        right.number_input(
            "Steps", 1, 512, 64, key="depth_steps", help="Points of each of the two paths."
        )
    )
    if not whole and token == len(traced) - 1:
        st.info("The last token predicts nothing that is known. Choose another.")
        return None
    seen = len(traced) - 1 if whole else token + 1
    duration = seconds(2 * steps * WITH_GRADIENT + 50 * whole, seen)
    st.caption(f"About {about(duration)}. You can stop at any time.")
    found = _depth(request, traced, None if whole else token, steps)
    if found is None:
        return None
    what = "the whole text" if whole else f"token {token}"
    agreed = agreement(found.compared)
    st.markdown(depth_reading(found.cells, agreed, what=what))
    sums = found.attributed.table.select(pl.col("from_skipped", "to_all").sum()).row(0)
    st.markdown(paths_reading(found.attributed.deltas, sums))
    st.plotly_chart(depth_map(traced, found.cells, what=what), key="depth_map")
    left, right = st.columns(2)
    left.plotly_chart(depth_bars(traced, found.cells), key="depth_bars")
    right.plotly_chart(share_scatter(traced, found.compared), key="share_scatter")
    st.caption(
        "The flips count for the same loss as the shares: "
        + (
            f"{found.compared.height} of all decisions, drawn at random, each with its effect on "
            "all of the text that follows."
            if whole
            else f"the {found.compared.height} decisions of the token itself."
        )
        + " A flip changes one decision and holds all others; a share is averaged over a path on "
        "which all of them change at once, so the two may differ and both be right."
    )
    st.markdown("**Where shares and flips differ most**")
    texts = traced.tokens["text"]
    st.dataframe(
        found.compared.sort(pl.col("difference").abs(), descending=True)
        .head(MOST_ROWS)
        .select(
            "token",
            pl.col("token").map_elements(lambda each: repr(texts[each]), pl.String).alias("text"),
            pl.col("label").alias("site"),
            pl.when("executed").then(pl.lit("ran")).otherwise(pl.lit("skipped")).alias("decision"),
            pl.col("share").round(4).alias("share, nats"),
            pl.col("utility").round(4).alias("exact, nats"),
            pl.col("difference").round(4).alias("difference, nats"),
        ),
        hide_index=True,
        width="stretch",
        height=280,
    )
    _downloads(
        {
            "Shares over depth": ("attribution-depth", found.cells),
            "Beside exact flips": ("attribution-flips", found.compared),
        }
    )
    return found.cells if whole else None


def _depth(request: Request, traced: Trace, token: int | None, steps: int) -> _Depth | None:
    settings = f"{token} {steps}"
    return tried(
        "depth",
        "Attribute over depth",
        request,
        lambda: jobs().experiment(
            request, f"attribution over depth {settings}", _depth_run(traced, token, steps)
        ),
        settings=settings,
    )


def _correlations(request: Request, traced: Trace, shares: pl.DataFrame | None) -> None:
    st.markdown(
        "Gates that know their business score high where executing is worth it: by the audit, "
        "exactly, or by the shares over depth. Scores are held against it site by site, plainly "
        "and with what position, word frequency, surprisal and length explain taken out."
    )
    chosen = st.segmented_control(
        "Held against", list(VALUES), default="Utility, by the audit", required=True, key="against"
    )
    column = VALUES[str(chosen)]
    if column == "utility":
        cells = audited(request, traced, "held")
    else:
        cells = shares
        if cells is None:
            st.info("Attribute the whole text's loss over depth first, in the part above.")
    if cells is None:
        return
    method = st.segmented_control(
        "Coefficient",
        COEFFICIENTS,
        default="spearman",
        required=True,
        key="coefficient",
        format_func=str.capitalize,
        help="Kendall's takes minutes on a long text, the others seconds.",
    )
    st.caption(
        f"Coefficients of a site's {len(traced) - 1:,} tokens; a layer's, and the one over all, is "
        f"the mean of its sites'. Intervals and p-values move whole blocks of {BLOCK} neighbouring "
        "tokens; q is p after Benjamini and Hochberg over the whole table."
    )
    settings = column if column == "utility" else f"{column} {st.session_state.depth_steps}"
    table = tried(
        "correlations",
        "Correlate scores with it",
        request,
        lambda: jobs().analysis(
            request,
            f"score correlations {method} {settings}",
            lambda progress: score_correlations(
                traced, cells, column, methods=[method], seed=SEED, progress=progress
            ),
        ),
        settings=f"{method} {settings}",
    )
    if table is None:
        return
    if int(table["tokens"][0]) < FEW_BLOCKS * BLOCK:
        st.info(
            f"The text has {table['tokens'][0]} whole tokens, fewer than {FEW_BLOCKS} blocks of "
            f"{BLOCK}: too few to draw intervals from, and p-values rest on few orders. Take a "
            "longer text."
        )
        table = table.with_columns(pl.lit(None, dtype=pl.Float64).alias(n) for n in ("low", "high"))
    value = WORDS[column]
    st.markdown(correlation_reading(table, method=method, value=value))
    st.plotly_chart(
        correlation_figure(traced, table, method=method, value=value), key="coefficients"
    )
    st.caption(
        "Filled marks are sure at a false discovery rate of 5%; bars are 95% intervals; the grey "
        "band is the interval over all sites."
    )
    st.dataframe(
        table.select(
            pl.coalesce("label", pl.format("layer {}", "layer"), pl.lit("all sites")).alias(
                "scores of"
            ),
            pl.when("controlled").then(pl.lit("yes")).otherwise(pl.lit("no")).alias("controlled"),
            pl.col("r").round(3),
            pl.col("low").round(3).alias("95% from"),
            pl.col("high").round(3).alias("to"),
            pl.col("p").round(4),
            pl.col("q").round(4),
            "tokens",
        ),
        hide_index=True,
        width="stretch",
        height=320,
    )
    _downloads({"Correlations": ("score-correlations", table)})


def _downloads(tables: dict[str, tuple[str, pl.DataFrame]]) -> None:
    for column, (label, (name, table)) in zip(st.columns(len(tables)), tables.items(), strict=True):
        column.download_button(
            f"{label} (CSV)", csv_of(table), file_name=f"{name}.csv", mime="text/csv",
            on_click="ignore", width="stretch",
        )  # fmt: skip
