"""The page of questions in sentences: what other decisions would have meant for a text."""

from __future__ import annotations

from skipviz.analysis.counterfactual import WhatIf

_NO_CHANGE = 5e-5
"""Nats per token below which a change in loss is not told with four decimals."""


def what_if_reading(answer: WhatIf) -> str:
    """Say what would change: the loss first, then decisions, predictions and cost.

    Parameters
    ----------
    answer
        What ``skipviz.what_if`` returned.
    """
    changed = answer.changed.height
    if not changed:
        return (
            "**Nothing would change**: every decision is the same as before, and so are the "
            "predictions."
        )
    asked = int(answer.changed["asked"].sum())
    return " ".join(
        part
        for part in (
            _loss(answer),
            f"{changed:,} of {answer.trace.matrix('exec_count').size:,} decisions would be others: "
            f"{asked:,} as asked, and {changed - asked:,} downstream, because their gates would "
            "see other hidden states.",
            f"The most likely next token would stay the same after {answer.same_top.mean():z.1%} "
            f"of the tokens; predictions would move by {_small(float(answer.kl.mean()))} nats on "
            "average (KL divergence).",
            _cost(answer),
        )
        if part
    )


def flip_reading(answer: WhatIf, token: int, site: int, *, can_depend: int) -> tuple[str, ...]:
    """Say what flipping one decision would do: to the loss, to other decisions, to what comes next.

    Parameters
    ----------
    answer
        What ``skipviz.what_if`` returned for that decision forced to the other side.
    token, site
        Of the decision.
    can_depend
        How many other decisions can depend on it.

    Returns
    -------
    tuple of str
        Sentences, the answer first.
    """
    ran = bool(answer.before.matrix("exec_count")[token, site])
    row = answer.tokens.row(token, named=True)
    followed = int(answer.tokens["downstream"].sum())
    together = int(answer.tokens["asked"].sum()) - 1
    said = [_flipped("Skipping it" if ran else "Running it", row["nll_change"], row["nll"])]
    later = answer.tokens["nll_change"][token + 1 :].drop_nulls()
    if len(later):
        said.append(
            f"Over the {len(later):,} later tokens: {float(later.sum()):+z.4f} nats in all."
        )
    if together > 0:
        said.append(f"{together:,} more are decided together with it.")
    said.append(
        f"Of the {can_depend:,} decisions that can depend on it, {followed:,} would change."
    )
    if not row["same_top"]:
        said.append("Another token would be the most likely to come next.")
    return tuple(said)


def _flipped(what: str, change: float | None, now: float | None = None) -> str:
    if change is None:
        return "It is the last token of the text: there is no next token to lose on."
    if abs(change) < _NO_CHANGE:
        return f"{what} would leave the loss on the next token as it is."
    word = "raise" if change > 0 else "lower"
    to = "" if now is None else f", to {now:z.4f}"
    return f"{what} would {word} the loss on the next token by {abs(change):z.4f} nats{to}."


def caveat_reading(answer: WhatIf) -> str:
    """Say how far an answer reaches.

    Parameters
    ----------
    answer
        What ``skipviz.what_if`` returned.
    """
    anew = f" Computed anew: {answer.computed_anew}." if answer.computed_anew else ""
    return (
        "This is one text: a lower loss on it does not show that the decisions are better on "
        "others. It is what a new run under the same decisions gives, up to rounding: a gate very "
        f"near to its threshold may decide otherwise in another run.{anew}"
    )


def _loss(answer: WhatIf) -> str:
    was, now = (cost.loss for cost in answer.costs)
    if was is None or now is None:
        return ""
    change = now - was
    if abs(change) < _NO_CHANGE:
        return f"**The loss would stay at {now:z.4f} nats per token.**"
    word = "rise" if change > 0 else "fall"
    return f"**The loss would {word} by {abs(change):z.4f} to {now:z.4f} nats per token.**"


def _cost(answer: WhatIf) -> str:
    was, now = answer.costs
    if was.budget is None or now.budget is None:
        return "What it would cost is unknown, because the FLOPs of this model are."
    budget = _from_to(f"{was.budget:z.4f}", f"{now.budget:z.4f}")
    flops = _from_to(f"{was.flop_share:z.2%}", f"{now.flop_share:z.2%}")
    return (
        f"The budget realised would {budget}, and the share of the dense model's FLOPs that the "
        f"text needs would {flops}."
    )


def _from_to(was: str, now: str) -> str:
    """Return what a figure would do, of which only what is written down can be told apart."""
    return f"stay at {now}" if now == was else f"be {now} instead of {was}"


def _small(nats: float) -> str:
    """Return nats with three decimals, or two digits where these would be noughts."""
    return f"{nats:z.3f}" if nats >= 0.001 or not nats else f"{nats:.1e}"
