"""Probes on states in which it is known what can be read."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

import skipviz
from skipviz.experiments.hidden_states.probes import probes
from skipviz.experiments.hidden_states.states import States
from skipviz.traces import Trace
from tests.synthetic import make_trace

TOKENS, WIDTH, LAYERS = 1200, 24, 3
NAMES = np.array(["this", "that", "other"])

Floats = npt.NDArray[np.float32]


def traced(*, seed: int = 0, sequences: int = 8, words: int = 300) -> Trace:
    trace = make_trace(
        seed=seed, tokens=TOKENS, layers=LAYERS, gated=(1,), sequences=sequences, rate=0.5
    )
    word = np.random.default_rng(seed).integers(0, words, TOKENS)
    tokens = trace.tokens.with_columns(token_id=pl.Series(word, dtype=pl.Int64))
    return Trace(run=trace.run, sites=trace.sites, tokens=tokens, matrices=trace.matrices)


def noise(seed: int, width: int = WIDTH) -> Floats:
    generator = np.random.default_rng(seed + 1000)
    return generator.standard_normal((LAYERS + 1, TOKENS, width)).astype(np.float32)


def states_of(values: Floats) -> States:
    return States(np.arange(TOKENS), values)


def drawn(seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed + 2000).integers(0, 3, TOKENS)


def classes_of(**labels: npt.NDArray[np.int64]) -> pl.DataFrame:
    return pl.DataFrame({name: NAMES[label].tolist() for name, label in labels.items()})


def of(table: pl.DataFrame, feature: str, layer: int, part: str = "all") -> dict[str, float]:
    return table.row(by_predicate=(pl.col("feature") == feature) & (pl.col("layer") == layer)
                     & (pl.col("part") == part), named=True)  # fmt: skip


def test_what_is_in_the_states_is_read_where_it_is_and_nothing_else() -> None:
    label, null = drawn(0), drawn(1)
    values = noise(0)
    values[2, :, :3] += 3 * np.eye(3, dtype=np.float32)[label]
    table = probes(traced(), states_of(values), classes_of(label=label, null=null), seed=0)
    assert of(table, "label", 1)["accuracy"] > 0.85
    assert of(table, "label", 1)["selectivity"] > 0.4
    for layer in (-1, 0, 2):
        assert of(table, "label", layer)["accuracy"] < 0.42
    nulls = table.filter(feature="null", part="all")
    assert (nulls["accuracy"] < 0.42).all()
    assert (nulls["selectivity"].abs() < 4 * nulls["error"]).all()
    majority = np.bincount(label).max() / TOKENS
    assert of(table, "label", 1)["majority"] == pytest.approx(majority)


@pytest.mark.parametrize(("words", "width"), [(20, 24), (300, 24)])
def test_a_label_of_the_word_alone_has_no_selectivity(words: int, width: int) -> None:
    """Whether the words can be told apart linearly, or are too many for the state."""
    gains, accuracies = [], []
    for seed in range(4):
        trace = traced(seed=seed, words=words)
        generator = np.random.default_rng(seed + 3000)
        word = trace.tokens["token_id"].to_numpy()
        embedded = generator.standard_normal((words, width)).astype(np.float32)[word]
        label = generator.integers(0, 3, words)[word]
        values = np.repeat(embedded[None], LAYERS + 1, axis=0)
        row = of(probes(trace, states_of(values), classes_of(f=label), seed=seed), "f", 0)
        gains.append(row["selectivity"])
        accuracies.append(row["accuracy"])
    assert np.mean(accuracies) > (0.99 if words < width else 0.4)
    assert abs(np.mean(gains)) < 0.04


def test_a_probe_is_judged_by_documents_that_it_has_not_seen() -> None:
    trace = traced(sequences=10)
    document = trace.tokens["sequence"].to_numpy()
    label = np.random.default_rng(0).permutation(10)[document] % 2
    values = noise(0)
    values[:, :, :10] += 9 * np.eye(10, dtype=np.float32)[document]
    row = of(probes(trace, states_of(values), classes_of(f=label), seed=0), "f", 0)
    assert row["accuracy"] < 0.75  # who had seen every document would be right about all


def test_tokens_that_ran_and_that_skipped_are_judged_apart() -> None:
    trace, label = traced(), drawn(0)
    ran = trace.matrix("exec_count")[:, 1] > 0
    values = noise(0)
    values[2, ran, :3] += 6 * np.eye(3, dtype=np.float32)[label[ran]]
    table = probes(trace, states_of(values), classes_of(f=label), seed=0)
    assert of(table, "f", 1, "executed")["accuracy"] > 0.9
    assert of(table, "f", 1, "skipped")["accuracy"] < 0.45
    assert of(table, "f", 1, "executed")["tokens"] == ran.sum()
    assert table.filter(pl.col("part") != "all")["layer"].unique().to_list() == [1]
    whole = of(table, "f", 1)["accuracy"] * TOKENS
    parts = table.filter(pl.col("part") != "all", layer=1)
    assert whole == pytest.approx((parts["accuracy"] * parts["tokens"]).sum())


@pytest.mark.slow
def test_the_error_is_about_the_spread_of_what_chance_gives() -> None:
    far = []
    for seed in range(30):
        values = noise(seed, width=4)[:1]
        table = probes(traced(seed=seed), states_of(values), classes_of(f=drawn(seed)), seed=seed)
        row = of(table, "f", -1)
        far.append(row["selectivity"] / row["error"])
    assert 0.6 < np.std(far) < 1.6


def test_the_same_seed_gives_the_same_control() -> None:
    table, again, other = (
        probes(traced(), states_of(noise(0)), classes_of(f=drawn(0)), seed=seed)
        for seed in (0, 0, 1)
    )
    assert table.equals(again)
    assert not table.equals(other)
    assert (table["accuracy"] == other["accuracy"]).all()


def test_what_cannot_be_judged_is_refused() -> None:
    trace, label = traced(), drawn(0)
    few = States(np.arange(100), noise(0)[:, :100])
    with pytest.raises(ValueError, match="100 tokens make 4 blocks of 32"):
        probes(traced(sequences=1), few, classes_of(f=label), seed=0)
    edge = States(np.arange(280, 320), noise(0)[:, 280:320])
    with pytest.raises(ValueError, match="40 tokens make 3 blocks of 32"):  # none across texts
        probes(traced(sequences=4), edge, classes_of(f=label), seed=0)
    with pytest.raises(ValueError, match="classes of 5 tokens and 1200"):
        probes(trace, states_of(noise(0)), classes_of(f=label[:5]), seed=0)
    with pytest.raises(ValueError, match="None of the columns f has two classes"):
        probes(trace, states_of(noise(0)), classes_of(f=np.zeros_like(label)), seed=0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(skipviz.Stopped):
        probes(trace, states_of(noise(0)), classes_of(f=label), seed=0, stop=stop)
