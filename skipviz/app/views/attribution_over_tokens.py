"""Attribution over the text: which tokens a prediction, or a gate's score, is owed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import streamlit as st

from skipviz.analysis.gates.word_shares import shares_by_word
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.key_figures import key_figures
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs
from skipviz.app.components.trials import tried
from skipviz.app.jobs import Request
from skipviz.app.one_text import WITH_GRADIENT, about, seconds
from skipviz.experiments.attribution.over_tokens import Gates, Method, attribute, runs
from skipviz.experiments.attribution.target import Attribution, Target
from skipviz.plots.attribution import attribution_html
from skipviz.plots.palette import UNIT_NAMES
from skipviz.readings.attribution import sum_reading, text_reading
from skipviz.traces import Trace

SEED = 0
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


@dataclass(frozen=True)
class _Asked:
    """What is explained, and its words."""

    target: Target
    what: str
    unit: str


def show_text(request: Request, traced: Trace, token: int) -> None:
    """Offer the attribution of what a token predicts, and show what came out."""
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
        _show(traced, asked, found)


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


def _show(traced: Trace, asked: _Asked, found: Attribution) -> None:
    words = st.segmented_control(
        "Shares of", ["Tokens", "Words"], default="Tokens", required=True, key="pieces",
        help="A word's share is the sum of its tokens'.",
    ) == "Words"  # fmt: skip
    parts = shares_by_word(traced, found.table, words=words)
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
    key_figures(cells)
    st.markdown(sum_reading(found.delta, total))
    st.html(
        attribution_html(traced, parts, target=asked.target.token, what=asked.what, unit=asked.unit)
    )
    st.markdown(plain(text_reading(parts, what=asked.what, unit=asked.unit)))
    csv_buttons(
        {
            "Tokens": (
                "attribution-tokens",
                shares_by_word(traced, found.table, words=False).drop_nulls("attribution"),
            ),
            "Words": (
                "attribution-words",
                shares_by_word(traced, found.table, words=True).drop_nulls("attribution"),
            ),
        }
    )
