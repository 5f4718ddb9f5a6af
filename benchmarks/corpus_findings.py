"""Which sentences of docs/findings.md hold over a corpus: the section of it that speaks of one.

``python benchmarks/corpus_findings.py DATASET [--kept FOLDER] [--most N]``. The dataset is that of
``corpus_texts.py`` with a gated model; its run need not have ended. Of each document the first 256
tokens are looked at as ``findings.py`` looks at three texts: what the gates cost over the dense
model, what their decisions cost when they are given to other tokens of the text, and what single
decisions were worth, here of cells drawn at random, the same number from each site. FOLDER keeps
what was found of a document, and the same command goes on from there; N documents are looked at, at
most, the first of an order that is drawn at random.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from sklearn.metrics import roc_auc_score

import skipviz
from benchmarks.findings import TOKENS, table
from skipviz.analysis.gates.quality import implied_price, judged
from skipviz.analysis.statistics.intervals import student_margin
from skipviz.analysis.tokens.classes import token_classes
from skipviz.corpus.questions.association import association
from skipviz.corpus.questions.means import corpus_means, corpus_rates
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.experiments.decision_audit import audit
from skipviz.families import Plan

SHORTEST = 64
"""Tokens of a document that is looked at."""
CELLS_PER_SITE = 10
"""Of each document."""
FAR_CELLS = 4
"""Of each document, flipped again with all tokens that follow, and with gates that react."""
SHUFFLES = 5
BEST_LAYER = 11
NEXT_BEST_AUROC = 0.563
"""Which no other layer had more than, over three texts."""

Statistic = Callable[[pl.DataFrame], float]


# What is found of a document, once.


def look(
    model: skipviz.SkipModel, dense: skipviz.SkipModel, ids: list[int], *, seed: int
) -> tuple[dict[str, float | int], pl.DataFrame]:
    """Return losses of a text, and cells of it with what they were worth."""
    text = model.tokenizer.decode(ids)
    trace = skipviz.trace(model, text)
    generator = np.random.default_rng(seed)
    made = trace.matrix("exec_count") > 0
    shuffled = generator.permuted(made, axis=0)
    losses = {
        name: each.tokens["nll"].sum()
        for name, each in (
            ("gates", trace),
            ("dense", skipviz.trace(dense, text)),
            ("shuffled", skipviz.trace(model, text, plan=Plan(shuffled))),
        )
    }
    last = len(trace) - 1
    drawn = [
        (int(token), site)
        for site in range(trace.sites.height)
        for token in generator.choice(last, min(CELLS_PER_SITE, last), replace=False)
    ]
    cells = audit(model, trace, cells=drawn)
    price = implied_price(trace, cells)
    places = np.sort(generator.choice(cells.height, FAR_CELLS, replace=False))
    few = cells[places].select("token", "site").rows()
    asked: dict[str, dict[str, Any]] = {
        "all_that_follow": {"horizon": None},
        "react": {"downstream": "react"},
    }
    beyond = [
        audit(model, trace, cells=few, **given).select("token", "site", **{name: "utility"})
        for name, given in asked.items()
    ]
    found = judged(trace, cells).select(
        "token", "site", "label", "layer", "unit", "executed", "utility", "margin", "worth"
    )
    for each in (*beyond, token_classes(trace).select("token", "kind")):
        found = found.join(each, on=[name for name in ("token", "site") if name in each.columns],
                           how="left", maintain_order="left")  # fmt: skip
    return {"predicted": last, "price": price, **losses}, found


def looked_at(
    corpus: CorpusDataset,
    model: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    kept: Path,
    *,
    most: int | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a row per document with its losses, and the cells of all."""
    wanted = corpus.collect(
        corpus.documents().filter(pl.col("tokens") >= SHORTEST).select("document", "domain")
    ).sort("document")
    losses, cells = [], []
    for document, domain in wanted.head(most or wanted.height).iter_rows():
        about, table = kept / f"{document}.json", kept / f"{document}.parquet"
        if not about.exists():
            ids = corpus.trace(document).tokens["token_id"].to_list()[:TOKENS]
            found, made = look(model, dense, ids, seed=document)
            made.write_parquet(table)
            about.write_text(json.dumps(found))
        named = {"document": document, "domain": domain}
        losses.append(named | json.loads(about.read_text()))
        said = (pl.lit(value).alias(name) for name, value in named.items())
        cells.append(pl.read_parquet(table).with_columns(*said))
    return pl.DataFrame(losses), pl.concat(cells)


# What it comes to, with intervals over documents.


@dataclass(frozen=True)
class Figure:
    """A figure with its 95% interval over documents."""

    value: float
    low: float
    high: float
    documents: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def over_documents(rows: pl.DataFrame, statistic: Statistic) -> Figure:
    """Return a statistic of all rows; its interval by leaving out one document at a time."""
    documents = rows["document"].unique().sort()
    value = statistic(rows)
    without = np.array([statistic(rows.filter(pl.col("document") != one)) for one in documents])
    count = len(documents)
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    margin = student_margin(error, count)
    return Figure(value, value - margin, value + margin, count)


def cost(name: str, less: str = "dense") -> Statistic:
    """Return a statistic: nats per token that a policy costs over another."""

    def statistic(rows: pl.DataFrame) -> float:
        return float((rows[name].sum() - rows[less].sum()) / rows["predicted"].sum())

    return statistic


def share(column: str) -> Statistic:
    """Return a statistic: the share of rows for which something holds."""
    return lambda rows: float(rows[column].cast(pl.Float64).mean())  # type: ignore[arg-type]


def auroc(rows: pl.DataFrame, margin: str = "margin") -> float:
    """Return how well scores tell what is worth executing."""
    return float(roc_auc_score(rows["worth"].to_numpy(), rows[margin].to_numpy()))


def above_shuffled(rows: pl.DataFrame) -> float:
    """Return by how much that is more than of scores given to other tokens of text and site."""
    blind = [auroc(rows, f"shuffled {number}") for number in range(SHUFFLES)]
    return auroc(rows) - float(np.mean(blind))


def within_sites(rows: pl.DataFrame) -> float:
    """Return the rank correlation of scores and utilities, mean of the sites."""
    ranked = rows.select(
        pl.col("site"), *(pl.col(name).rank().over("site") for name in ("margin", "utility"))
    )
    each = ranked.group_by("site").agg(r=pl.corr("margin", "utility"))
    return float(each["r"].mean())  # type: ignore[arg-type]


def rank_correlation(other: str) -> Statistic:
    """Return a statistic: rank correlation of utilities on the next token with others."""
    return lambda rows: float(stats.spearmanr(rows["utility"], rows[other]).statistic)


def same_sign(other: str) -> Statistic:
    """Return a statistic: the share of cells for which both utilities have one sign."""
    return lambda rows: float(((rows["utility"] > 0) == (rows[other] > 0)).mean())  # type: ignore[arg-type]


def with_shuffled(cells: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Return cells with the scores of other tokens of the same document and site."""
    generator = np.random.default_rng(seed)
    for number in range(SHUFFLES):
        order = pl.Series(generator.random(cells.height))
        cells = cells.with_columns(order=order).with_columns(
            pl.col("margin").sort_by("order").over("document", "site").alias(f"shuffled {number}")
        )
    return cells.drop("order")


# What is printed.


def contradicted(found: Figure, low: float, high: float) -> str:
    """Return whether an interval and the range over three texts have nothing in common."""
    if found.high < low:
        return "yes: lower"
    return "yes: higher" if found.low > high else "no"


def claims(losses: pl.DataFrame, cells: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return sentences of docs/findings.md with what was claimed and what holds here."""
    far = cells.drop_nulls("all_that_follow")
    best = cells.filter(layer=BEST_LAYER)
    asked: list[tuple[str, float, float, pl.DataFrame, Statistic]] = [
        ("the gates cost over dense, nats", 0.012, 0.033, losses, cost("gates")),
        ("given to other tokens they cost, nats", 0.315, 0.552, losses, cost("shuffled")),
        ("AUROC of the score, all sites", 0.519, 0.543, cells, auroc),
        ("AUROC above shuffled scores", 0.009, 0.027, cells, above_shuffled),
        ("rank correlation within a site", 0.045, 0.087, cells, within_sites),
        ("executing helps, share of cells", 0.536, 0.540, cells, share("worth")),
        ("documents whose implied price is 0, share", 1.0, 1.0, losses, share("free")),
        (f"executing helps in layer {BEST_LAYER}", 0.674, 0.674, best, share("worth")),
        (f"AUROC of layer {BEST_LAYER}", 0.606, 0.606, best, auroc),
        ("next token compared with all that follow: same sign", 0.75, 0.797, far,
         same_sign("all_that_follow")),
        ("next token compared with all that follow: rank correlation", 0.692, 0.724, far,
         rank_correlation("all_that_follow")),
        ("gates that react compared with held ones: same sign", 0.75, 0.80, far,
         same_sign("react")),
        ("gates that react compared with held ones: rank correlation", 0.587, 0.649, far,
         rank_correlation("react")),
    ]  # fmt: skip
    made = []
    for said, low, high, rows, statistic in asked:
        found = over_documents(rows, statistic)
        three = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        made.append((said, three, str(found), contradicted(found, low, high)))
    return made


def by_group(cells: pl.DataFrame, column: str) -> list[tuple[Any, ...]]:
    """Return share worth executing, share decided rightly and AUROC of each group."""
    right = cells.with_columns(right=pl.col("worth") == pl.col("executed"))
    made = []
    for (group,), rows in right.sort(column).group_by(column, maintain_order=True):
        figures = (share("worth"), share("right"), auroc)
        found = [over_documents(rows, each) for each in figures]
        made.append((group, found[0].documents, rows.height, *map(str, found)))
    return made


def other_layers(cells: pl.DataFrame) -> str:
    """Return a sentence: which other layers have scores that are clearly better than was said."""
    found = {
        layer: over_documents(rows, auroc)
        for (layer,), rows in cells.filter(pl.col("layer") != BEST_LAYER)
        .sort("layer")
        .group_by("layer", maintain_order=True)
    }
    better = [f"{layer}: {each}" for layer, each in found.items() if each.low > NEXT_BEST_AUROC]
    return (
        f"Layers other than {BEST_LAYER} whose AUROC is above {NEXT_BEST_AUROC}, the most over "
        f"three texts, with all of its interval: {', '.join(better) or 'none'}."
    )


def whole_corpus(corpus: CorpusDataset) -> None:
    """Print what all tokens of the corpus say."""
    means = corpus_means(corpus, ["layers_used", "nll"], by="domain")
    every = corpus_means(corpus, ["layers_used", "nll"]).with_columns(domain=pl.lit("all"))
    rows = []
    both = pl.concat([means, every.select(means.columns)])
    for (domain,), part in both.group_by("domain", maintain_order=True):
        shown = [Figure(*each, 0) for each in part.select("mean", "low", "high").rows()]
        rows.append((domain, part["documents"][0], part["tokens"].max(), *map(str, shown)))
    table(
        "All tokens of the corpus",
        ("domain", "documents", "tokens", "layers used (95%)", "loss in nats (95%)"),
        rows,
    )
    rates = corpus_rates(corpus)
    best = rates.filter(layer=BEST_LAYER)
    told = ", ".join(
        f"{each['label']} {each['rate']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
        for each in best.rows(named=True)
    )
    print(f"\nShare of all tokens for which layer {BEST_LAYER} runs: {told}. Of all sites: "
          f"{rates['rate'].min():.3f} to {rates['rate'].max():.3f}.")  # fmt: skip
    depth = association(corpus, "surprisal").row(0, named=True)
    print(f"Layers used and surprisal of a token, Pearson's coefficient within documents: "
          f"{depth['r']:.3f} ({depth['low']:.3f} to {depth['high']:.3f}).")  # fmt: skip


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="smollm2-gated")
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--most", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    corpus = skipviz.open_corpus(options.dataset)
    model = skipviz.load(options.model)
    dense = skipviz.load(model.settings.backbone)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.kept or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        losses, cells = looked_at(corpus, model, dense, kept, most=options.most)
    losses = losses.with_columns(free=pl.col("price") == 0)
    cells = with_shuffled(cells, seed=options.seed)
    print("## Over a corpus")
    print(f"\n{corpus.document_count:,} documents, {len(corpus):,} tokens"
          f"{'' if corpus.complete else ', a run that has not ended'}; {losses.height:,} of them "
          f"looked at more closely, {TOKENS} tokens each at most, {cells.height:,} decisions "
          "flipped. Intervals are 95%, over documents.")  # fmt: skip
    whole_corpus(corpus)
    table(
        "Sentences over three texts",
        ("what was said", "three texts", "over the corpus (95%)", "contradicted"),
        claims(losses, cells),
    )
    print(f"\n{other_layers(cells)}")
    found = []
    for (domain,), rows in losses.sort("domain").group_by("domain", maintain_order=True):
        own = cells.filter(domain=domain)
        each = [over_documents(rows, cost(name)) for name in ("gates", "shuffled")]
        each += [over_documents(own, statistic) for statistic in (share("worth"), auroc)]
        found.append((domain, rows.height, *map(str, each)))
    table(
        "By domain",
        ("domain", "documents", "gates over dense, nats", "shuffled over dense, nats",
         "worth executing", "AUROC"),
        found,
    )  # fmt: skip
    for title, column in (("By unit", "unit"), ("By token class", "kind"), ("By layer", "layer")):
        table(
            title,
            (column, "documents", "cells", "worth executing", "decided rightly", "AUROC"),
            by_group(cells, column),
        )


if __name__ == "__main__":
    main()
