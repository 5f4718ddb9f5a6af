"""What ``import skipviz`` brings, what it does without, and what its objects print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import skipviz
from tests import published, tiny
from tests.corpus.asked import made_parts, write_corpus
from tests.synthetic import make_trace

HEAVY = ("torch", "transformers", "streamlit", "polars")
ON_A_LAPTOP = """
import sys
from importlib.machinery import PathFinder

class Laptop(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in ("torch", "transformers")
        return None if absent else super().find_spec(name, path, target)

sys.meta_path = [Laptop if each is PathFinder else each for each in sys.meta_path]
try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("torch was found")
import numpy as np
import polars as pl
import skipviz
from skipviz.analysis.gates.quality import judged, quality, reliability
from skipviz.plots import *

trace = skipviz.Trace.load(sys.argv[1])
tokens, sites = trace.matrix("exec_count").shape
drawn = np.random.default_rng(0).normal(size=(2, tokens, sites))
cells = trace.decisions.select("token", "site", executed=pl.col("exec_count") > 0).with_columns(
    nll=pl.lit(1.0), flipped_nll=pl.lit(1.0), utility=pl.Series(drawn[0].ravel())
)
marked = judged(trace, cells)
assert 0 < quality(marked).auroc < 1
correlated = skipviz.correlate(trace, cells, "utility", permutations=19)
found = skipviz.cluster(trace, clusters=2)

figures = [
    compute_share_figure(trace),
    execution_rate_by_layer(trace),
    layer_map(trace),
    layers_used_histogram(trace),
    next_tokens(trace, 3),
    token_path(trace, 3),
    cluster_criterion(trace, found),
    cluster_profiles(trace, found.profiles),
    correlation_figure(trace, correlated, method="spearman", value="utility"),
    reliability_figure(trace, reliability(marked)),
    utility_map(trace, marked),
]
assert all(figure.data for figure in figures)
texts = [token_html(trace), cluster_text(trace, found.tokens), trace._repr_html_()]
assert all("<" in text for text in texts)
trace.write_csv(sys.argv[2])
print(len(figures) + len(texts), sorted({"torch", "transformers"} & set(sys.modules)))
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, skipviz; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == "[]"


def test_every_name_is_there_and_nothing_else_shows() -> None:
    assert all(getattr(skipviz, name) is not None for name in skipviz.__all__)
    assert dir(skipviz) == sorted(skipviz.__all__)


@pytest.mark.slow
def test_a_saved_trace_is_analysed_and_drawn_without_torch(tmp_path: Path) -> None:
    trace, table = tmp_path / "a.parquet", tmp_path / "a.csv"
    traced = make_trace(tokens=80)
    traced.save(trace)
    assert run(ON_A_LAPTOP, trace, table) == "14 []"
    assert table.read_text(encoding="utf-8").count("\n") == 1 + traced.decisions.height


def test_a_repr_fits_a_screen(gated: skipviz.SkipModel, tmp_path: Path) -> None:
    texts, told = tmp_path / "a.txt", []
    texts.write_text("A fox.")
    traced = make_trace(tokens=80)
    target = skipviz.Target(token=2)
    own = skipviz.trace(gated, "A fox.")
    shown: list[object] = [
        gated,
        skipviz.Document("a.txt", "word " * 5000),
        skipviz.GateSpec(module="model.layers.{layer}.router", rule="topk", k=0.5),
        skipviz.Plan(np.ones((500, 60), dtype=np.bool_)),
        traced,
        own,
        skipviz.cluster(traced, clusters=2),
        skipviz.Site(
            layer=1, unit="mlp", rule="gt", polarity=1, skip_path="zero", kv="computed",
            computed_anyway=True, scope="token",
        ),
        target,
        skipviz.cost(gated, own, rounds=1, decoded=1),
        (found := skipviz.check(own)),
        found.findings[0],
        *skipviz.inspect(published.routed(), tiny.tokenizer())[:1],
        skipviz.attribute_depth(gated, own, target, steps=2),
        skipviz.what_if(gated, own, sites={(1, None): False}),
        (written := skipviz.generate(gated, "A fox.", max_new_tokens=40)),
        written.tokens[0],
        skipviz.compare_generations(written, written),
        skipviz.compare_traces(own, own),
        skipviz.trace_corpus(gated, texts, out=tmp_path / "corpus", report=told.append),
        told[-1],
        skipviz.Workers(),
    ]  # fmt: skip
    made = write_corpus(tmp_path / "asked", made_parts(1))
    shown += [made, made.sample(), skipviz.compare_corpora(made, made)]
    shown.append(skipviz.concordance(made, "fox"))
    with skipviz.record(gated) as recording:
        shown.append(recording)
        gated.model(input_ids=torch.tensor([[5, 6, 7]]))
    classes = {
        value for name in skipviz.__all__ if isinstance(value := getattr(skipviz, name), type)
    }
    objects = {kind for kind in classes if not issubclass(kind, BaseException)}
    assert {type(each) for each in shown} == objects
    for each in shown:
        assert len(repr(each)) <= 800, type(each)
        assert len(repr(each).splitlines()) <= 10, type(each)
