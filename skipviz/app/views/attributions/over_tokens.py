"""Attribution over the text: which tokens drive a prediction, or a gate's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import streamlit as st

from skipviz.analysis.gates.word_shares import shares_by_word
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.key_figures import key_figures
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.costs import Effort
from skipviz.app.jobs import SEED, Request
from skipviz.app.state import on_canvas
from skipviz.experiments.attribution.over_tokens import Gates, Method, attribute, runs
from skipviz.experiments.attribution.target import Attribution, Target
from skipviz.plots.attribution import attribution_html
from skipviz.plots.lenses.found import attribution_lens
from skipviz.plots.style.palette import UNIT_NAMES
from skipviz.readings.attribution import score_reading, sum_reading, text_reading
from skipviz.readings.glossary import GLOSSARY
from skipviz.traces import Trace

TARGET_KINDS = {
    "log-probability of the next token": "log_probability",
    "loss on the next token": "loss",
    "one next token compared with another": "contrast",
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
    "feature_ablation": "Each token alone is replaced by the mean embedding; its share is the "
    "change that this makes.",
    "integrated_gradients": "Gradients are summed along the straight path from mean embeddings to "
    "the text. With enough steps the shares add up; the convergence delta shows whether they do.",
    "input_x_gradient": "The gradient at the text itself, times the difference from the mean "
    "embedding. Fast, but only a linear approximation.",
    "gradient_shap": "Gradients at random points of the path that integrated gradients follow.",
    "shapley_sampling": "Tokens are added one by one in random orders; a share is the mean change "
    "that a token makes. Accounts for interactions, but is the slowest.",
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
    """What is explained, its name, and its unit."""

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
                help="Frozen: every decision stays as it was. Straight through: gates decide again "
                "when tokens are replaced, and gradients pass through decisions with the slope of "
                "the sigmoid used in training.",
            )
        )
    ]
    steps = 1
    if method in STEPS:
        steps = int(
            right.number_input(
                "Steps", 1, 512, STEPS[method], key=f"steps of {method}",
                help="Points on the path, or samples.",
            )
        )  # fmt: skip
    seen = token + 1
    effort = Effort(
        f"{method} {gates} {request.model}", runs(method, steps=steps, tokens=seen) * seen
    )
    st.caption(
        f"{MEANINGS[method]} It is of the {seen:,} tokens up to this one. Frozen and straight "
        "through answer different questions: with frozen gates, a token cannot act by changing "
        "which layers run."
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
        effort=effort,
    )  # fmt: skip
    if found is not None:
        words = _show(traced, asked, found)
        _offer_cell(request, traced, asked, method=method, gates=gates, steps=steps, words=words)
        on_canvas(request).paint(
            settings,
            lambda: [attribution_lens(traced, found.table, what=asked.what, unit=asked.unit)],
        )


def _choose_target(traced: Trace, token: int) -> _Asked | None:
    last = token == len(traced) - 1
    kinds = ["score of a gate"] if last else list(TARGET_KINDS)
    chosen = str(st.selectbox("What to explain", kinds, key=f"kind {last}"))
    kind = TARGET_KINDS[chosen]
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
    ran = bool(traced.matrix("exec_count")[token, site])
    st.caption(score_reading(token, score=score, threshold=threshold, ran=ran))
    return _Asked(
        Target(token=token, kind="score", site=site),
        f"the score of {names[site]} for token {token}",
        "units",
    )


def _choose_contrast(traced: Trace, token: int) -> _Asked | None:
    row = traced.tokens.row(token, named=True)
    words = {int(traced.tokens["token_id"][token + 1]): str(traced.tokens["text"][token + 1])}
    likely = zip(row["top_ids"] or [], row["top_texts"] or [], strict=True)
    words |= {int(word): str(text) for word, text in likely if word >= 0 and int(word) not in words}
    if len(words) < 2:
        st.info("No other likely next token is recorded here. Choose another token.")
        return None
    left, right = st.columns(2)
    word = int(
        left.selectbox(
            "Next token", list(words), format_func=lambda each: repr(words[each]),
            key=f"word {token}",
            help="The token that came next, and the ones that the model found most likely.",
        )
    )  # fmt: skip
    others = [each for each in words if each != word]
    against = int(
        right.selectbox(
            "Compared with", others, format_func=lambda each: repr(words[each]),
            key=f"against {token} {word}",
        )
    )  # fmt: skip
    return _Asked(
        Target(token=token, kind="contrast", word=word, against=against),
        f"the log-probability of {words[word]!r} minus that of {words[against]!r} after token "
        f"{token}",
        "nats",
    )


def _show(traced: Trace, asked: _Asked, found: Attribution) -> bool:
    """Show the shares; return whether they are those of words."""
    words = st.segmented_control(
        "Shares of", ["Tokens", "Words"], default="Tokens", required=True, key="pieces",
        help="The share of a word is the sum of the shares of its tokens.",
    ) == "Words"  # fmt: skip
    parts = shares_by_word(traced, found.table, words=words)
    total = float(found.table["attribution"].sum())
    cells = [
        (
            "Value on this text",
            f"{found.value:z.3f}",
            f"{asked.what[0].upper()}{asked.what[1:]}, in {asked.unit}, on the text as it is.",
        ),
        ("Sum of the shares", f"{total:+z.3f}", f"Over all tokens, in {asked.unit}."),
    ]
    if found.delta is not None:
        cells.append(
            (
                "Convergence delta",
                f"{found.delta:+z.3f}",
                f"{GLOSSARY['convergence delta']} The total is the difference between the text "
                "and mean embeddings in its place.",
            )
        )
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
    return words


def _offer_cell(
    request: Request, traced: Trace, asked: _Asked, *, method: Method, gates: Gates, steps: int,
    words: bool,
) -> None:  # fmt: skip
    target = asked.target
    named = "".join(
        f", {name}={value}"
        for name in ("word", "against", "site")
        if (value := getattr(target, name)) is not None
    )
    notebook_cells(
        f"HTML(skipviz.plots.attribution_html(trace, parts, target={target.token}, "
        f"what={asked.what!r}, unit={asked.unit!r}))",
        imports=[
            "from IPython.display import HTML",
            "from skipviz.analysis.gates.word_shares import shares_by_word",
        ],
        first=[
            FROM_TRACE,
            f"target = skipviz.Target(token={target.token}, kind={target.kind!r}{named})",
            f"found = skipviz.attribute(model, trace, target, method={method!r}, gates={gates!r}, "
            f"steps={steps}, seed={SEED})",
            f"parts = shares_by_word(trace, found.table, words={words})",
        ],
        model=model_line(request, traced),
    )
