"""Two traces side by side: of one text under two settings or models, or of two texts.

Traces of other tokenizers are aligned by characters: a *piece* is a stretch of the text that both
cut at its ends, and at no place within.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from skipviz.analysis.flops import CostSummary, cost_summary, flops_known, token_flops
from skipviz.analysis.statistics.blocks import dependent_groups
from skipviz.analysis.statistics.intervals import clustered_margin
from skipviz.analysis.tokens.characters import new_characters
from skipviz.arrays import Bools, Ints
from skipviz.errors import InputError
from skipviz.text.arguments import checked
from skipviz.traces import SAME_TOKENS, Trace

Match = Literal["tokens", "characters", "none"]
SAME_SITE = ("layer", "unit", "visit")
"""What makes sites of two models the same site."""

PIECE_COLUMNS = {
    "piece": pl.Int64,
    "sequence": pl.Int64,
    "text": pl.String,
    "first_token": pl.Int64,
    "first_token_other": pl.Int64,
    "tokens": pl.Int64,
    "tokens_other": pl.Int64,
    "layers_used": pl.Float64,
    "layers_used_other": pl.Float64,
    "surprisal": pl.Float64,
    "surprisal_other": pl.Float64,
    "flops": pl.Float64,
    "flops_other": pl.Float64,
    "changed": pl.Int64,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class TraceComparison:
    """Two traces side by side.

    Attributes
    ----------
    trace, other
        The two.
    match
        ``tokens``: both are of the same tokens; ``characters``: of the same text, cut into other
        tokens; ``none``: of other texts, of which only totals are compared.

    Examples
    --------
    >>> cheap = skipviz.trace(skipviz.with_policy(model, "learned"), "The quick brown fox.")
    >>> found = skipviz.compare_traces(cheap, cheap)
    >>> found.match, found.pieces["changed"].sum()
    ('tokens', 0)
    """

    trace: Trace
    other: Trace
    match: Match

    def __repr__(self) -> str:
        rows = [
            f"  {row['figure']:<28}{_said(row['trace'])} | {_said(row['other'])} {row['unit']}"
            for row in self.totals.rows(named=True)
        ]
        return "\n".join([f"TraceComparison(match={self.match!r})", *rows])

    @cached_property
    def pieces(self) -> pl.DataFrame:
        """One row for each stretch of the text that both cut at its ends, in reading order.

        ``piece``; ``sequence``, its text, and its characters, ``text``; of both traces, the
        second's with ``_other``: ``first_token`` and number of ``tokens``; ``layers_used``, the
        mean over its tokens; ``surprisal``, the sum in nats over its characters, null where one is
        unknown; ``flops``, the sum, null where unknown. ``changed``: how many of
        ``shared_sites`` decide otherwise, null where the piece has not one token in both. No rows
        where the texts differ.
        """
        if self.match == "none":
            return pl.DataFrame(schema=PIECE_COLUMNS)
        starts = [_span_starts(each) for each in self._both]
        cuts = np.intersect1d(starts[0]["place"].to_numpy(), starts[1]["place"].to_numpy())
        one, two = (
            _by_piece(each, spans, cuts) for each, spans in zip(self._both, starts, strict=True)
        )
        joined = one.join(two.drop("text", "sequence"), on="piece", suffix="_other").sort("piece")
        return joined.with_columns(changed=self._changed(joined)).select(
            pl.col(name).cast(kind) for name, kind in PIECE_COLUMNS.items()
        )

    @cached_property
    def shared_sites(self) -> pl.DataFrame:
        """One row for each site that both models have, if they have as many layers.

        ``label``, ``layer``, ``unit``, ``visit``; ``site`` and ``site_other``; ``rate`` and
        ``rate_other``, the shares of tokens for which it ran; and ``changed``, the number of
        pieces, of those with one token in both, where it decides otherwise.
        """
        shared = self._shared
        differs = self._differs(self.pieces)
        return shared.select(
            "label",
            *SAME_SITE,
            "site",
            "site_other",
            rate=_rates(self.trace, shared["site"]),
            rate_other=_rates(self.other, shared["site_other"]),
            changed=pl.Series(differs.sum(axis=0), dtype=pl.Int64),
        )

    @cached_property
    def costs(self) -> tuple[CostSummary, CostSummary]:
        """Loss, layers used, budget and FLOPs of both."""
        return cost_summary(self.trace), cost_summary(self.other)

    @cached_property
    def totals(self) -> pl.DataFrame:
        """One row a figure: ``figure``, ``unit``, ``trace``, ``other`` and their ``difference``.

        The difference is the first minus the second; what is unknown is null. Surprisal is over the
        characters of tokens of which it is known: not those of a text's first token.
        """
        own = [_totals(trace, cost) for trace, cost in zip(self._both, self.costs, strict=True)]
        rows: list[dict[str, Any]] = [
            {"figure": figure, "unit": unit, "trace": value, "other": own[1][(figure, unit)]}
            for (figure, unit), value in own[0].items()
        ]
        schema = {"figure": pl.String, "unit": pl.String, "trace": pl.Float64, "other": pl.Float64}
        return pl.DataFrame(rows, schema=schema).with_columns(
            difference=pl.col("trace") - pl.col("other")
        )

    @cached_property
    def more_surprisal(self) -> tuple[float, float] | None:
        """By how much the first finds the text more surprising, and half the 95% interval of it.

        In nats per character, over the pieces of which both are known; the second is NaN where too
        few groups of neighbouring pieces are there to tell. None where nothing is known.
        """
        known = self.pieces.drop_nulls(["surprisal", "surprisal_other"])
        if known.is_empty():
            return None
        more = (known["surprisal"] - known["surprisal_other"]).to_numpy()
        characters = float(known["text"].str.len_chars().sum())
        groups = dependent_groups(known["sequence"].to_numpy())
        per_character = known.height / characters if characters else float("nan")
        return (
            float(more.mean()) * per_character,
            clustered_margin(more, groups) * per_character,
        )

    @cached_property
    def _shared(self) -> pl.DataFrame:
        """Return ``label``, ``layer``, ``unit``, ``visit``, ``site``, ``site_other`` of each."""
        own, theirs = (each.sites.select("site", "label", *SAME_SITE) for each in self._both)
        if self.trace.run["layers"].item() != self.other.run["layers"].item():
            own = own.clear()
        return own.join(theirs.drop("label"), on=SAME_SITE, suffix="_other", maintain_order="left")

    @property
    def _both(self) -> tuple[Trace, Trace]:
        return self.trace, self.other

    def _changed(self, pieces: pl.DataFrame) -> pl.Series:
        """Return how many shared sites decide otherwise in each piece; null where unknown."""
        found = np.full(pieces.height, np.nan)
        if self._shared.height:
            found[_one_token(pieces)] = self._differs(pieces).sum(axis=1)
        return pl.Series(found).fill_nan(None).cast(pl.Int64)

    def _differs(self, pieces: pl.DataFrame) -> Bools:
        """Return where decisions differ, [pieces with one token in both, shared sites]."""
        alone = _one_token(pieces)
        ran = [
            trace.matrix("exec_count")[
                np.ix_(
                    pieces[f"first_token{suffix}"].to_numpy()[alone],
                    self._shared[f"site{suffix}"].to_numpy(),
                )
            ]
            for trace, suffix in zip(self._both, ("", "_other"), strict=True)
        ]
        differs: Bools = ran[0] != ran[1]
        return differs


@checked
def compare_traces(trace: Trace, other: Trace) -> TraceComparison:
    """Put two traces side by side: where they differ, by how much, and what each cost.

    Parameters
    ----------
    trace, other
        Of the same text under two budgets, policies or models, whose tokenizers may differ, or of
        two texts, of which totals alone are compared.

    Returns
    -------
    TraceComparison
        Its totals, and the pieces of text that both have, with their differences.

    Raises
    ------
    InputError
        If one of them has no tokens.

    Examples
    --------
    >>> found = skipviz.compare_traces(trace, trace)
    >>> found.totals.filter(figure="tokens").select("trace", "other", "difference").row(0)
    (40.0, 40.0, 0.0)
    """
    if not (len(trace) and len(other)):
        raise InputError("A trace of 0 tokens cannot be compared; trace a text with both.")
    if trace.tokens.select(SAME_TOKENS).equals(other.tokens.select(SAME_TOKENS)):
        # Ids of two tokenizers may agree by chance, and their texts not.
        same = trace.tokens["text"].equals(other.tokens["text"])
        if same:
            return TraceComparison(trace=trace, other=other, match="tokens")
    alike = _texts(trace) == _texts(other)
    return TraceComparison(trace=trace, other=other, match="characters" if alike else "none")


def _one_token(pieces: pl.DataFrame) -> Bools:
    """Return which pieces have one token in both traces, of shape [pieces]."""
    alone: Bools = ((pieces["tokens"] == 1) & (pieces["tokens_other"] == 1)).to_numpy()
    return alone


def _texts(trace: Trace) -> list[str]:
    """Return the characters of each text, in reading order."""
    fresh = trace.tokens.select("sequence", text=new_characters())
    joined = fresh.group_by("sequence", maintain_order=True).agg(pl.col("text").str.join(""))
    return joined["text"].to_list()


def _span_starts(trace: Trace) -> pl.DataFrame:
    """Return the characters at which spans begin, over all texts one after the other.

    One row a span: ``span``; ``place``, its first character counted from that of the first text,
    and its characters, ``text``. Texts are apart by one place, so that none shares a place with the
    next.
    """
    fresh = trace.tokens.select("sequence", "span", text=new_characters())
    spans = fresh.group_by("sequence", "span", maintain_order=True).agg(pl.col("text").str.join(""))
    length = pl.col("text").str.len_chars().cast(pl.Int64)
    # A text ends one place after its last character: empty texts have a place too.
    last = (pl.col("sequence") != pl.col("sequence").shift(-1)).fill_null(False)
    width = length + last.cast(pl.Int64)
    return spans.with_columns(place=width.cum_sum() - width)


def _by_piece(trace: Trace, spans: pl.DataFrame, cuts: Ints) -> pl.DataFrame:
    """Return what a trace has in each piece, one row a piece."""
    numbered = spans.with_columns(
        piece=pl.Series(np.searchsorted(cuts, spans["place"].to_numpy(), side="right") - 1)
    )
    texts = numbered.group_by("piece").agg(pl.col("text").str.join(""))
    known = flops_known(trace)
    spent = token_flops(trace)["total"].cast(pl.Float64) if known else None
    tokens = trace.tokens.join(
        numbered.select("sequence", "span", "piece"), on=["sequence", "span"]
    )
    tokens = tokens.sort("token").with_columns(
        flops=pl.lit(None, dtype=pl.Float64) if spent is None else spent
    )
    surprisal = pl.col("surprisal").cast(pl.Float64)
    return tokens.group_by("piece").agg(
        pl.col("sequence").first(),
        first_token=pl.col("token").first(),
        tokens=pl.len(),
        layers_used=pl.col("layers_used").cast(pl.Float64).mean(),
        surprisal=pl.when(surprisal.null_count() == 0).then(surprisal.sum()),
        flops=pl.when(pl.col("flops").null_count() == 0).then(pl.col("flops").sum()),
    ).join(texts, on="piece")  # fmt: skip


def _rates(trace: Trace, sites: pl.Series) -> pl.Series:
    ran = (trace.matrix("exec_count")[:, sites.to_numpy()] > 0).mean(axis=0)
    return pl.Series(ran, dtype=pl.Float64)


def _totals(trace: Trace, cost: CostSummary) -> dict[tuple[str, str], float | None]:
    characters = sum(map(len, _texts(trace)))
    spent = float(token_flops(trace)["total"].sum()) if flops_known(trace) else None
    surprisal = trace.tokens["surprisal"].drop_nulls().cast(pl.Float64)
    nats = float(surprisal.sum()) if len(surprisal) else None
    # Of a text's first token it is unknown, and so it is of that token's characters.
    fresh = trace.tokens.select("surprisal", text=new_characters()).drop_nulls("surprisal")
    told = int(fresh["text"].str.len_chars().sum())
    return {
        ("tokens", ""): float(cost.tokens),
        ("characters", ""): float(characters),
        ("layers used, mean", "layers"): cost.layers_mean,
        ("layers of the model", "layers"): float(cost.layers),
        ("budget realised", "of dense"): cost.budget,
        ("whole-model FLOPs", "of dense"): cost.flop_share,
        ("FLOPs per character", "FLOPs"): _over(spent, characters),
        ("loss", "nats per token"): cost.loss,
        ("surprisal", "nats per character"): _over(nats, told),
    }


def _over(value: float | None, count: int) -> float | None:
    return None if value is None or not count else value / count


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
