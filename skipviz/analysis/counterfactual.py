"""What a text would have been under other decisions, beside what it was."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from skipviz.analysis.flops import CostSummary, cost_summary
from skipviz.arrays import Bools, Floats
from skipviz.traces import Trace, running_steps

CHANGED = {
    "token": pl.Int64,
    "text": pl.String,
    "site": pl.Int64,
    "label": pl.String,
    "layer": pl.Int64,
    "unit": pl.String,
    "executed": pl.Boolean,
    "asked": pl.Boolean,
    "score_before": pl.Float32,
    "score": pl.Float32,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class WhatIf:
    """A text as it would have been under other decisions, beside the trace that was.

    Attributes
    ----------
    question
        What was asked, in words.
    before
        The trace that was.
    trace
        The trace that would have been.
    asked
        Of shape [tokens, sites]: True where the question itself decides otherwise than before, by
        force or by a threshold moved past the score that was. Other decisions that changed did so
        because what their gates looked at changed.
    kl
        Of shape [tokens]: by how much the prediction after each token changed, the KL divergence
        from the prediction that was to the new one, in nats, from 0.
    computed_anew
        Which layers and tokens were run for it, in words; the rest was known from the trace. Empty
        where everything was run.

    Examples
    --------
    >>> answer = skipviz.what_if(model, trace, sites={(2, "L3.mlp"): True})
    >>> answer.changed.filter("asked").select("token", "label", "executed").rows()
    [(2, 'L3.mlp', True)]
    >>> answer.kl[:2].tolist()  # a token changes no prediction before its own
    [0.0, 0.0]
    """

    question: str
    before: Trace
    trace: Trace
    asked: Bools
    kl: Floats
    computed_anew: str

    def __repr__(self) -> str:
        was, now = self.costs
        total = self.trace.matrix("exec_count").size
        rows = [
            (
                "decisions changed",
                f"{self.changed.height:,} of {total:,} ({int(self.changed['asked'].sum()):,} "
                "asked for, the rest downstream)",
            ),
            ("loss", _from_to(was.loss, now.loss, ".4f", " nats per token", signed=True)),
            ("KL divergence", f"{self.kl.mean():.2g} nats per token, {self.kl.max():.2g} at most"),
            ("same top prediction", f"{self.same_top.mean():.1%} of {len(self.trace):,} tokens"),
            ("layers used", _from_to(was.layers_mean, now.layers_mean, ".2f", " on average")),
            ("budget realised", _from_to(was.budget, now.budget, ".4f")),
            ("share of dense FLOPs", _from_to(was.flop_share, now.flop_share, ".2%")),
            ("computed anew", self.computed_anew or "everything"),
        ]
        lines = [f"  {name:<22}{value}" for name, value in rows]
        return "\n".join([f"WhatIf: {self.question}", *lines])

    @cached_property
    def changed(self) -> pl.DataFrame:
        """One row for each decision that is another than before, by token and site.

        ``token`` and its ``text``; ``site``, ``label``, ``layer``, ``unit``; ``executed``, whether
        the unit runs now; ``asked``, whether the question itself decides so; ``score_before`` and
        ``score``, null where there was none.
        """
        ran = self.trace.matrix("exec_count") > 0
        token, site = np.nonzero(ran != (self.before.matrix("exec_count") > 0))
        places = self.trace.sites.select("site", "label", "layer", "unit")[site]
        columns = {
            "token": token,
            "text": self.trace.tokens["text"].gather(token),
            **{name: places[name] for name in places.columns},
            "executed": ran[token, site],
            "asked": self.asked[token, site],
            "score_before": self.before.matrix("score")[token, site],
            "score": self.trace.matrix("score")[token, site],
        }
        frame = pl.DataFrame(columns).select(
            pl.col(name).cast(kind) for name, kind in CHANGED.items()
        )
        return frame.with_columns(pl.col("score_before", "score").fill_nan(None))

    @cached_property
    def same_top(self) -> Bools:
        """Of shape [tokens]: whether the most likely next token is the same as before."""
        tops = [each.tokens["top_ids"].arr.get(0).to_numpy() for each in (self.before, self.trace)]
        same: Bools = tops[0] == tops[1]
        return same

    @cached_property
    def tokens(self) -> pl.DataFrame:
        """One row per token.

        ``token`` and its ``text``; ``nll_before``, ``nll`` and ``nll_change``, the loss on the next
        token in nats, null at the end of a text; ``kl``, in nats; ``same_top``; ``layers_before``
        and ``layers_used``; ``asked`` and ``downstream``, how many of its decisions changed.
        """
        ran = [each.matrix("exec_count") > 0 for each in (self.before, self.trace)]
        changed = ran[0] != ran[1]
        was, now = self.before.tokens, self.trace.tokens
        return now.select(
            "token",
            "text",
            was["nll"].alias("nll_before"),
            "nll",
            (pl.col("nll") - was["nll"]).alias("nll_change"),
            pl.Series("kl", self.kl, dtype=pl.Float64),
            pl.Series("same_top", self.same_top, dtype=pl.Boolean),
            was["layers_used"].alias("layers_before"),
            "layers_used",
            pl.Series("asked", (changed & self.asked).sum(axis=1), dtype=pl.Int64),
            pl.Series("downstream", (changed & ~self.asked).sum(axis=1), dtype=pl.Int64),
        )

    @cached_property
    def costs(self) -> tuple[CostSummary, CostSummary]:
        """Loss, layers used, budget and FLOPs, as it was and as it would have been."""
        return cost_summary(self.before), cost_summary(self.trace)


def decided_by(trace: Trace, thresholds: Floats) -> Bools:
    """Return what other thresholds would decide about the scores that were.

    Parameters
    ----------
    trace
        A trace with scores.
    thresholds
        Of each site, of shape [sites].

    Returns
    -------
    ndarray
        Of shape [tokens, sites]; decisions stand where a plan made them, or there was no score.
    """
    score, sites = trace.matrix("score"), trace.sites
    polarity = sites["polarity"].fill_null(1).to_numpy()
    margin = polarity * (score - thresholds.astype(np.float32))
    at_once = (sites["rule"].to_numpy() == "ge") & (polarity > 0)
    executes = np.where(at_once, margin >= 0, margin > 0)
    stands = np.isnan(score) | trace.matrix("forced")
    decided: Bools = np.where(stands, trace.matrix("exec_count") > 0, executes)
    return decided


def dependent_sites(sites: pl.DataFrame, site: int) -> list[int]:
    """Return which decisions can depend on one decision of a token, by their sites.

    Later sites see it in the token's own hidden state. Other tokens see it in keys and values: in
    those that attention above made of that state, and in the unit's own where they are not
    computed whatever it decides.

    Parameters
    ----------
    sites
        The ``sites`` table of a trace, in running order.
    site
        That of the decision.

    Returns
    -------
    list of int
        For each site: 0, none; 1, the token's own decision; 2, that of later tokens too; 3, that
        of all tokens, from the first site above on that decides for several tokens at once.

    Examples
    --------
    >>> trace.sites["label"].to_list()[:6]
    ['L1.attn', 'L1.mlp', 'L2.attn', 'L2.mlp', 'L3.attn', 'L3.mlp']
    >>> skipviz.analysis.counterfactual.dependent_sites(trace.sites, 1)[:6]
    [0, 0, 1, 2, 2, 2]
    """
    rows, units = running_steps(sites), sites["unit"].to_numpy()
    own = units[site] != "mlp" and sites["kv"][site] != "computed"
    reader = rows[site] if own else rows[site] + 1
    # A decision on attention, or on a block, comes before the layer's tokens see each other.
    read = (rows > reader) | ((rows == reader) & (units == "mlp"))
    above = np.arange(len(rows)) > site
    shared = np.logical_or.accumulate(above & (sites["scope"] != "token").to_numpy())
    return [int(each) for each in np.where(shared, 3, np.where(above & read, 2, above))]


def _from_to(
    was: float | None, now: float | None, form: str, unit: str = "", *, signed: bool = False
) -> str:
    if was is None or now is None:
        return "unknown"
    change = f" ({now - was:+{form}})" if signed else ""
    return f"{was:{form}} -> {now:{form}}{unit}{change}"
