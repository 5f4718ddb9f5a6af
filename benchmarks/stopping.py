"""How long each kind of run goes on after it is told to stop, and how its progress moves.

Each runs over one text with ``smollm2-gated``, is told to stop after a while if it is not done,
and is timed until it ends. Besides: the longest time between two looks at ``stop``, and the
longest without a change in what the page shows of the progress, to a hundredth.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

import skipviz
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.maps import map_profiles
from skipviz.analysis.gates.score_correlation import correlate
from skipviz.analysis.layers.difficulty import depth_against_difficulty, difficulty
from skipviz.analysis.layers.specialties import specialties
from skipviz.analysis.robustness.drift import drift
from skipviz.analysis.robustness.two_corpora import select_tokens
from skipviz.analysis.tokens.classes import token_classes
from skipviz.corpora.held_out import BROWN_REPORTING, held_out
from skipviz.errors import Stopped
from skipviz.experiments.attribution.over_depth import flips_beside
from skipviz.experiments.hidden_states.attention_paid import attention_paid
from skipviz.experiments.hidden_states.prediction_by_depth import convergence_layers
from skipviz.experiments.hidden_states.probes import probes
from skipviz.experiments.hidden_states.states import record_states
from skipviz.experiments.hidden_states.task_prompts import task_depths
from skipviz.experiments.robustness import paraphrases
from skipviz.experiments.robustness.context_and_batch import batch_changes, context_changes
from skipviz.experiments.robustness.surface import paraphrase_changes, surface_changes
from skipviz.text.documents import Document


class Watched(threading.Event):
    """Remembers when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = [time.monotonic()]

    def is_set(self) -> bool:
        """Say whether it is set."""
        self.asked.append(time.monotonic())
        return super().is_set()


@dataclass
class Shown:
    """What a page shows: progress to a hundredth."""

    stop: Watched
    raises: bool
    moved: list[float] = field(default_factory=lambda: [time.monotonic()])
    share: float = -1.0

    def __call__(self, share: float) -> None:
        """Take the share of the work that is done."""
        if round(100 * share) != round(100 * self.share):
            self.moved.append(time.monotonic())
        self.share = share
        if self.raises and self.stop.is_set():
            raise Stopped


Run = Callable[[Shown, Watched], Any]


def measure(name: str, run: Run, *, after: float, raises: bool) -> None:
    """Print one line."""
    stop = Watched()
    shown = Shown(stop, raises)
    ended: list[str] = []

    def work() -> None:
        try:
            run(shown, stop)
            ended.append("done")
        except Stopped:
            ended.append("stopped")
        except Exception as error:
            ended.append(f"{type(error).__name__}: {error}"[:90])

    thread = threading.Thread(target=work)
    begun = time.monotonic()
    thread.start()
    thread.join(after)
    told = time.monotonic()
    stop.set()
    thread.join()
    end = time.monotonic()
    asked, moved = [*stop.asked, end], [*shown.moved, end]
    gaps = [b - a for a, b in pairwise(asked)]
    still = [b - a for a, b in pairwise(moved)]
    print(
        f"{name:28} {end - begun:7.1f} s  stop {end - told:5.2f} s  unasked {max(gaps):5.2f} s"
        f"  still {max(still):5.1f} s  reports {len(moved) - 2:4}  {' '.join(ended)}",
        flush=True,
    )


def drawn_utilities(trace: skipviz.Trace) -> pl.DataFrame:
    """Return an audit's table with utilities drawn at random: how long they take is the same."""
    token, site = np.indices((len(trace) - 1, trace.sites.height)).reshape(2, -1)
    utility = np.random.default_rng(0).normal(size=len(token))
    ran = trace.matrix("exec_count")[token, site] > 0
    columns = {"executed": ran, "nll": 0.0 * utility, "flipped_nll": utility, "utility": utility}
    return pl.DataFrame({"token": token, "site": site, **columns})


def main() -> None:
    """Print a line for each kind of run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chars", type=int, default=4000)
    parser.add_argument("--after", type=float, default=20.0, help="seconds until it is stopped")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    model = skipviz.load("smollm2-gated")
    text = held_out(BROWN_REPORTING[:1], chars=options.chars)[0].text
    documents = (Document(source="text", text=text),)
    traced = skipviz.trace(model, list(documents))
    count = len(traced)
    print(f"{count} tokens")
    target = skipviz.Target(token=count - 2, kind="loss")
    methods = ("feature_ablation", "integrated_gradients", "gradient_shap", "shapley_sampling",
               "input_x_gradient")  # fmt: skip
    experiments: dict[str, Run] = {
        "trace": lambda p, s: skipviz.trace(model, list(documents), progress=p, stop=s),
        "audit held": lambda p, s: skipviz.audit(model, traced, progress=p, stop=s),
        "audit react": lambda p, s: skipviz.audit(
            model, traced, downstream="react", progress=p, stop=s
        ),
        "depth": lambda p, s: skipviz.attribute_depth(model, traced, steps=8, progress=p, stop=s),
        "flips": lambda p, s: flips_beside(model, traced, progress=p, stop=s),
        **{
            f"attribute {method}": lambda p, s, method=method: skipviz.attribute(
                model, traced, target, method=method, steps=4, progress=p, stop=s
            )
            for method in methods
        },
        "attention": lambda p, s: attention_paid(model, traced, progress=p, stop=s),
        "tasks": lambda p, s: task_depths(model, progress=p, stop=s),
        "probes": lambda p, s: probes(
            traced, record_states(model, traced, stop=s), token_classes(traced), progress=p, stop=s
        ),
        "predictions": lambda p, s: convergence_layers(
            model, traced, record_states(model, traced, stop=s), progress=p, stop=s
        ),
        "surface": lambda p, s: surface_changes(model, documents, progress=p, stop=s),
        "paraphrases": lambda p, s: paraphrase_changes(
            model, paraphrases.read_pairs(paraphrases.pair_lines()), progress=p, stop=s
        ),
        "context": lambda p, s: context_changes(model, documents, progress=p, stop=s),
        "batch": lambda p, s: batch_changes(model, documents, progress=p, stop=s),
    }
    first = np.arange(count) < count // 2
    analyses: dict[str, Callable[[Shown], Any]] = {
        "clusters kmeans": lambda p: cluster(traced, progress=p),
        "clusters agglomerative": lambda p: cluster(traced, method="agglomerative", progress=p),
        "clusters hdbscan": lambda p: cluster(traced, "score", method="hdbscan", progress=p),
        "umap": lambda p: map_profiles(cluster(traced, clusters=2, progress=p), traced, "umap"),
        "specialties": lambda p: specialties(traced, token_classes(traced), progress=p),
        "specialties, spaCy": lambda p: specialties(
            traced, token_classes(traced, linguistic=True), progress=p
        ),
        "difficulty": lambda p: depth_against_difficulty(difficulty(traced), progress=p),
        "drift": lambda p: drift(
            select_tokens(traced, first), select_tokens(traced, ~first), progress=p
        ),
    }
    for name, run in experiments.items():
        if options.only in name:
            measure(name, run, after=options.after, raises=False)
    for name, analysis in analyses.items():
        if options.only in name:
            measure(name, lambda p, s, run=analysis: run(p), after=options.after, raises=True)
    if "correlate".startswith(options.only):
        cells = drawn_utilities(traced)
        for method in ("spearman", "pearson", "kendall"):
            measure(
                f"correlate {method}",
                lambda p, s, m=method: correlate(traced, cells, "utility", methods=[m], progress=p),
                after=options.after,
                raises=True,
            )


if __name__ == "__main__":
    main()
