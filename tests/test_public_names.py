from __future__ import annotations

import subprocess
import sys

import numpy as np

import skipviz
import skipviz.text.documents
from skipviz.experiments.attribution.target import Attribution
from tests.synthetic import make_trace

HEAVY = ("torch", "transformers", "streamlit", "polars")
BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers")))  # an import of these fails
import skipviz
trace = skipviz.Trace.load(sys.argv[1])
found = skipviz.cluster(trace)
skipviz.plots.token_html(trace), skipviz.plots.layer_map(trace)
skipviz.plots.execution_rate_by_layer(trace), skipviz.plots.layers_used_histogram(trace)
skipviz.plots.cluster_profiles(found), trace._repr_html_()
trace.write_csv(sys.argv[2])
print(found.count)
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, skipviz; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == "[]"


def test_every_name_is_there_and_nothing_else_shows() -> None:
    assert all(getattr(skipviz, name) is not None for name in skipviz.__all__)
    assert dir(skipviz) == sorted(skipviz.__all__)


def test_a_saved_trace_needs_no_torch(tmp_path) -> None:
    make_trace(tokens=200).save(tmp_path / "a.parquet")
    assert int(run(BLOCKED, str(tmp_path / "a.parquet"), str(tmp_path / "a.csv"))) >= 1
    assert (tmp_path / "a.csv").stat().st_size


def test_a_repr_fits_a_screen(gated: skipviz.SkipModel) -> None:
    traced = make_trace(tokens=200)
    shown = [
        gated,
        skipviz.Document("a.txt", "word " * 5000),
        skipviz.Plan(np.ones((500, 60), dtype=np.bool_)),
        traced,
        skipviz.cluster(traced),
        skipviz.Site(
            layer=1, unit="mlp", rule="gt", polarity=1, skip_path="zero", kv="computed",
            computed_anyway=True, scope="token",
        ),
        skipviz.Target(token=3),
        Attribution(traced.tokens, 1.0, ()),
        skipviz.trace(gated, "A fox."),
    ]  # fmt: skip
    with skipviz.record(gated) as recording:
        shown.append(recording)
        gated.model(input_ids=__import__("torch").tensor([[5, 6, 7]]))
    for each in shown:
        assert len(repr(each)) <= 800, type(each)
        assert repr(each).count("\n") < 10, type(each)
