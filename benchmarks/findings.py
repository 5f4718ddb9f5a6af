"""Whether the gates of a model are right: the tables of docs/findings.md.

One text of each held-out kind, 256 tokens: every decision flipped, the scores compared with what
the flips were worth and with attribution over depth, and the policy that knows the utilities run
at the same budget.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import stats

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.analysis.gates.quality import (
    controls,
    greedy_execution,
    implied_price,
    judged,
    quality,
    quality_by,
)
from skipviz.analysis.gates.score_correlation import correlate
from skipviz.analysis.statistics.multiple_tests import correlation_found
from skipviz.analysis.tokens.classes import token_classes
from skipviz.corpora.held_out import reporting_texts
from skipviz.experiments.attribution.over_depth import attribute_depth
from skipviz.experiments.attribution.target import Target
from skipviz.experiments.decision_audit import audit
from skipviz.families import Plan
from skipviz.text.documents import Document
from skipviz.text.spans import encode

TOKENS = 256
SAMPLE = 300
EXPLAINED = 6
EXPLAINED_WITHIN = 128
KINDS = ("", "dialogue", "code")
"""What the sources begin with; files of the Brown corpus have plain names."""


def chosen() -> dict[str, Document]:
    """Return the middle document of each kind: neither the first seen nor picked by its figures."""
    found = {}
    for kind in KINDS:
        of_kind = [text for text in reporting_texts() if text.source.rpartition("/")[0] == kind]
        found[kind or "prose"] = of_kind[len(of_kind) // 2]
    return found


def cut(model: skipviz.SkipModel, text: str, tokens: int) -> str:
    """Return the beginning of a text."""
    encoding = encode(model.tokenizer, text)
    kept: str = model.tokenizer.decode(encoding.ids[:tokens])
    return kept


def row(cells: Sequence[object]) -> str:
    """Return one row of a Markdown table."""
    shown = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return "| " + " | ".join(shown) + " |"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print(row(header))
    print("|" + "---|" * len(header))
    for each in rows:
        print(row(each))


class Text:
    """One audited text.

    Parameters
    ----------
    model, dense
        The gated model and its backbone.
    document
        The text.
    seed
        Seed of samples and shuffles.
    """

    def __init__(
        self, model: skipviz.SkipModel, dense: skipviz.SkipModel, document: Document, *, seed: int
    ) -> None:
        self.model, self.seed, self.source = model, seed, document.source
        self.text = cut(model, document.text, TOKENS)
        self.trace = skipviz.trace(model, self.text)
        self.cells = audit(model, self.trace)
        self.price = implied_price(self.trace, self.cells)
        self.dense_loss = float(skipviz.trace(dense, self.text).tokens["nll"].mean())  # type: ignore[arg-type]

    def judged(self, *, priced: bool = True) -> pl.DataFrame:
        """Return the cells, judged."""
        return judged(self.trace, self.cells, price=self.price if priced else 0.0)

    def loss(self, execute: np.ndarray) -> float:
        """Return the text's loss under given decisions, in nats over dense."""
        forced = skipviz.trace(self.model, self.text, plan=Plan(execute))
        return float(forced.tokens["nll"].mean()) - self.dense_loss  # type: ignore[arg-type]

    def sample(self) -> list[tuple[int, int]]:
        """Return some cells, drawn evenly."""
        generator = np.random.default_rng(self.seed)
        drawn = generator.choice(self.cells.height, SAMPLE, replace=False)
        rows: list[tuple[int, int]] = self.cells[np.sort(drawn)].select("token", "site").rows()
        return rows

    def policies(self) -> list[object]:
        """Return the loss over dense of the gates, of them shuffled, of greedy utility."""
        made = self.trace.matrix("exec_count") > 0
        shuffled = np.random.default_rng(self.seed).permuted(made, axis=0)
        greedy = greedy_execution(self.trace, self.cells)
        budget = realised_budget(self.trace)
        return [budget, *(self.loss(each) for each in (made, shuffled, greedy))]

    def horizons(self) -> list[object]:
        """Return what horizon 1 and held gates leave out, on a sample."""
        cells = self.sample()
        near = audit(self.model, self.trace, cells=cells)["utility"].to_numpy()
        far = audit(self.model, self.trace, cells=cells, horizon=None)["utility"].to_numpy()
        free = audit(self.model, self.trace, cells=cells, downstream="react")["utility"].to_numpy()
        return [
            float(np.mean(near)), float(np.mean(far)), float(stats.spearmanr(near, far).statistic),
            float(np.mean((near > 0) == (far > 0))),
            float(stats.spearmanr(near, free).statistic), float(np.mean((near > 0) == (free > 0))),
        ]  # fmt: skip

    def correlations(self) -> list[object]:
        """Return how far scores go with utilities, over all sites, plainly and controlled."""
        found = correlate(self.trace, self.cells, "utility", methods=("spearman",), seed=self.seed)
        whole = found.filter(scope="all").sort("controlled")
        cells: list[object] = []
        for each in whole.rows(named=True):
            none = f"not given ({each['withheld']})"
            interval = none if each["low"] is None else f"{each['low']:.3f} to {each['high']:.3f}"
            cells += [each["r"], interval, each["r_detrended"], each["p"]]
        sites = found.filter(scope="site", controlled=True)
        beyond = sites.filter(correlation_found())
        return [*cells, f"{beyond.height} of {sites.height}"]

    def depth(self) -> list[object]:
        """Hold attribution over depth against exact utilities, each token's own sites."""
        generator = np.random.default_rng(self.seed)
        last = min(len(self.trace) - 1, EXPLAINED_WITHIN)
        ran: list[float] = []
        skipped: list[float] = []
        for token in np.sort(generator.choice(np.arange(16, last), EXPLAINED, replace=False)):
            found = attribute_depth(self.model, self.trace, Target(token=int(token), kind="loss"))
            shares = found.table.filter(pl.col("token") == token)
            both = shares.join(self.cells, on=["token", "site"])
            # A unit that lowers the loss has a negative share of it.
            for executed, path, kept in ((True, "from_skipped", ran), (False, "to_all", skipped)):
                part = both.filter(pl.col("executed") == executed).drop_nulls(path)
                if part.height:  # none where the shares of the path do not add up
                    kept.append(float(stats.spearmanr(-part[path], part["utility"]).statistic))
        added_up = f"{len(ran)} and {len(skipped)} of {EXPLAINED}"
        return [*(float(np.nanmean(kept)) if kept else None for kept in (ran, skipped)), added_up]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-gated")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = skipviz.load(options.model)
    dense = skipviz.load(model.settings.backbone)  # type: ignore[union-attr]
    texts = {
        kind: Text(model, dense, document, seed=options.seed) for kind, document in chosen().items()
    }
    table(
        "The texts",
        ("text", "source", "tokens", "budget", "gates", "shuffled", "greedy utility"),
        [(kind, t.source, len(t.trace), *t.policies()) for kind, t in texts.items()],
    )
    rows = []
    for kind, t in texts.items():
        for priced in (False, True):
            cells = t.judged(priced=priced)
            whole, blind = quality(cells), controls(cells, seed=options.seed)
            rows.append(
                (
                    kind, "implied" if priced else "0", whole.worth, whole.right, whole.auroc,
                    blind["shuffled"].auroc, blind["random"].auroc, whole.average_precision,
                    whole.calibration_error, whole.calibrated,
                    whole.regret / cells["token"].n_unique(),
                )
            )  # fmt: skip
    table(
        "The scores",
        ("text", "price", "worth executing", "decided rightly", "AUROC", "shuffled", "random",
         "average precision", "calibration error", "if calibrated", "regret per token"),
        rows,
    )  # fmt: skip
    every = pl.concat([t.judged().with_columns(text=pl.lit(kind)) for kind, t in texts.items()])
    # Tokens of different texts are different tokens.
    number = pl.col("text").replace_strict({kind: i for i, kind in enumerate(texts)})
    every = every.with_columns(token=pl.col("token") + number.cast(pl.Int64) * 10 * TOKENS)
    kinds = pl.concat(
        [
            token_classes(t.trace).select(pl.col("token") + i * 10 * TOKENS, "kind")
            for i, t in enumerate(texts.values())
        ]
    )
    every = every.join(kinds, on="token")
    for title, column in (("By unit", "unit"), ("By token class", "kind"), ("By layer", "layer")):
        found = quality_by(every, column).sort(column)
        table(
            title,
            (column, "cells", "worth executing", "decided rightly", "AUROC"),
            found.select(column, "cells", "worth", "right", "auroc").rows(),
        )
    table(
        "Beyond the next token, and with gates that react",
        ("text", "mean utility, next token", "mean, all that follow", "rank correlation",
         "same sign", "compared with reacting gates: rank correlation", "same sign"),
        [(kind, *t.horizons()) for kind, t in texts.items()],
    )  # fmt: skip
    table(
        "Scores against utilities, Spearman's coefficient, mean of the sites",
        ("text", "plain", "95%", "without trends", "p", "covariates controlled for", "95%",
         "without trends", "p", "sites with q < 0.05"),
        [(kind, *t.correlations()) for kind, t in texts.items()],
    )  # fmt: skip
    table(
        "Attribution over depth against exact utilities, rank correlation within a token",
        ("text", "executed sites (from all skipped)", "skipped sites (to all run)",
         "tokens whose shares add up"),
        [(kind, *t.depth()) for kind, t in texts.items()],
    )  # fmt: skip


if __name__ == "__main__":
    main()
