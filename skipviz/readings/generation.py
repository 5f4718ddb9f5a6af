"""The page of generating in sentences."""

from __future__ import annotations

from typing import Any

from skipviz.recording.generating import Ended, Generation
from skipviz.recording.generation_comparison import GenerationComparison
from skipviz.traces import Trace

WHY_ENDED: dict[Ended, str] = {
    "end token": "it ended where the model wrote its end token",
    "stop string": "it ended at a stop string",
    "max_new_tokens": "it ended at the number of tokens asked for",
    "context": "it ended where the model's context was full",
    "stopped": "it was stopped",
}
"""Why a text ended, as a part of a sentence."""
LEAST_COMPARED = 16
"""Tokens that both texts must have for a ratio of their speeds: below it single steps decide."""
ONE_RUN = "Times are those of this one run; they vary with what else the machine does."


def writer_reading(
    trace: Trace,
    *,
    model: str,
    policy: str | None,
    budget: float | None,
    asked: bool,
) -> str | None:
    """Say with what a text will be written, where that is not what made the trace that is shown.

    Parameters
    ----------
    trace
        The trace that is shown.
    model, policy, budget
        What will write; None where the model has no such choice.
    asked
        Whether a user chose it, rather than that it is taken where nothing is chosen.
    """
    run = trace.run.row(0, named=True)
    same = model == run["model"]
    other_policy = same and None not in (policy, run["policy"]) and policy != run["policy"]
    other_budget = same and None not in (budget, run["budget"]) and budget != run["budget"]
    if same and not other_policy and not other_budget:
        return None

    def named(name: str | None, policy: str | None, budget: float | None) -> str:
        with_policy = f" under the policy {policy}" if other_policy else ""
        with_budget = f" at a budget of {budget:z.0%}" if other_budget else ""
        return f"{name or 'an unknown model'}{with_policy}{with_budget}"

    made_with = named(run["model"], run["policy"], run["budget"])
    why, then = (
        ("as the side bar says", "")
        if asked
        else (
            "since the side bar names no model",
            " To write with another model, choose a text and a model there.",
        )
    )
    cannot = ", which predicts no next token and cannot write" if run["loss"] == "none" else ""
    return (
        f"This page writes with {named(model, policy, budget)}, {why}. The text shown above was "
        f"traced with {made_with}{cannot}.{then}"
    )


def generation_reading(generation: Generation) -> str:
    """Say how much was written with how many layers, how fast, and why it ended.

    Parameters
    ----------
    generation
        What ``skipviz.generate`` returned.
    """
    words = _tokens(len(generation.written))
    return (
        f"The model wrote {words}{_layers(generation)}; {WHY_ENDED[generation.ended]}. "
        f"{_speed(generation)}"
    ).strip()


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def _layers(generation: Generation) -> str:
    trace = generation.trace
    layers = trace.run["layers"].item()
    written = generation.mean_layers("decode")
    if written is None or layers is None:
        return ""
    if not trace.sites.height:
        return f" and used all {layers} layers for each"
    prompt = generation.mean_layers("prefill")
    return (
        f" and used {written:z.1f} of {layers} layers for each on average ({prompt:z.1f} for each "
        "token of the prompt)"
    )


def _speed(generation: Generation) -> str:
    speed = generation.tokens_per_second
    if speed is None:
        return ""
    anyway = generation.trace.sites["computed_anyway"]
    masked = len(anyway) > 0 and bool(anyway.fill_null(False).all())
    kept = " Skipped units were computed and discarded here (masked), so skipping saved no time."
    return f"It wrote {speed:z.1f} tokens per second.{kept if masked else ''} {ONE_RUN}"


def comparison_reading(found: GenerationComparison) -> str:
    """Say where the text and the dense model's part, and which was written faster.

    Parameters
    ----------
    found
        What ``skipviz.compare_generations`` returned, the dense model's text second.
    """
    own, dense = found.figures.to_dicts()
    if found.token is None:
        where = _same(own["tokens"], dense["tokens"])
    else:
        mine, theirs = (
            _token_words(row, text, found.token)
            for row, text in zip((own, dense), found.texts, strict=True)
        )
        where = (
            f"The texts part at written token {found.token + 1:,}: {mine} here, {theirs} by the "
            "dense model."
        )
    speeds = own["tokens_per_second"], dense["tokens_per_second"]
    if None in speeds:
        return where
    both = (
        f"{where} The dense model wrote {speeds[1]:z.1f} tokens per second, and this one "
        f"{speeds[0]:z.1f}"
    )
    if min(own["tokens"], dense["tokens"]) < LEAST_COMPARED:
        return (
            f"{both}. Fewer than {LEAST_COMPARED} tokens are too few to compare their speeds: "
            "write more, or see the page Cost."
        )
    return (
        f"{both}: {speeds[0] / speeds[1]:z.2f} times as many. Each was timed in one run, one after "
        "the other; the page Cost runs the two in turn, several times."
    )


def _same(own: int, dense: int) -> str:
    """Say that two texts of so many tokens do not part; the shorter one was stopped."""
    if own == dense:
        return f"The dense model wrote the same {_tokens(own)}."
    shorter = "this text" if own < dense else "that of the dense model"
    return (
        f"The texts are the same as far as {shorter} was written: {_tokens(min(own, dense))}. It "
        "was stopped there."
    )


def _token_words(row: dict[str, Any], text: str, token: int) -> str:
    """Return what a text has in the place of a token."""
    if text:
        return f"“{text}”"
    last = row["tokens"] - (row["ended"] == "end token")
    return "the end of the text" if token >= last else "a part of a character"
