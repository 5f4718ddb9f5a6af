"""Encoders that a text leaves as a whole, against the number of layers that their code counts."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.analysis.robustness.decision_shift import shift_of_decisions
from skipviz.app.components.canvas_payload import span_texts
from skipviz.experiments.robustness.context_and_batch import batch_changes
from skipviz.experiments.robustness.surface import paraphrase_changes
from skipviz.families.published import deebert as deebert_family
from skipviz.readings.paths import loss_words
from skipviz.readings.robustness import paraphrase_words
from skipviz.readings.skipping import skipping_notes
from tests import encoders, tiny

MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "entropy": ("deebert", encoders.deebert),
    "entropy, all layers": ("deebert", lambda: encoders.deebert(entropy=-1.0)),
    "entropy, at once": ("deebert", lambda: encoders.deebert(entropy=9.0)),
    "patience": ("pabee", encoders.pabee),
    "patience, two": ("pabee", lambda: encoders.pabee(patience=2)),
    "patience, all layers": ("pabee", lambda: encoders.pabee(patience=0)),
    "patience, a number": ("pabee", lambda: encoders.pabee(classes=1)),
}
TEXTS = [tiny.TEXT, "Why? Nobody knows.", "The lazy dog sleeps: 42, 42, 42."]


def wrapped(name: str) -> skipviz.SkipModel:
    family, make = MODELS[name]
    model = skipviz.from_parts(make(), tiny.tokenizer(), name=name)
    assert model.family.name == family
    return model


@pytest.mark.parametrize("name", MODELS)
def test_what_ran_is_what_the_code_counts(name: str) -> None:
    model = wrapped(name)
    for text in TEXTS:
        trace = skipviz.trace(model, text)
        counted = model.model.truth
        assert trace.tokens["layers_used"].unique().to_list() == [counted]
        assert trace.tokens["exit_depth"].unique().to_list() == [counted - 1]
        wanted = np.arange(1, encoders.LAYERS) < counted
        assert np.array_equal(trace.matrix("exec_count"), np.tile(wanted, (len(trace), 1)))
        margin = trace.margin
        clear = np.isfinite(margin) & (np.abs(margin) > 1e-6)
        assert np.array_equal((margin > 0)[clear], trace.matrix("exec_count")[clear] > 0)


def test_leaving_behind_the_first_layer_is_another_thing_than_not_known_to_leave() -> None:
    trace = skipviz.trace(wrapped("entropy, at once"), TEXTS[0])
    assert trace.tokens["exit_depth"].unique().to_list() == [0]
    assert saved(trace).tokens.equals(trace.tokens)
    unknown = pl.lit(None, dtype=pl.Int64)
    before = replace(trace, tokens=trace.tokens.with_columns(exit_depth=unknown))
    assert saved(before).tokens["exit_depth"].null_count() == len(trace)  # as files of before
    first = pl.when(pl.col("token") > 0).then("exit_depth").alias("exit_depth")
    with pytest.raises(skipviz.TraceError, match="exit_depth is not"):
        saved(replace(trace, tokens=trace.tokens.with_columns(first)))


def saved(trace: skipviz.Trace) -> skipviz.Trace:
    """Return what becomes of a trace in a file."""
    file = io.BytesIO()
    trace.save(file)
    return skipviz.Trace.load(file)


def test_texts_leave_at_different_layers() -> None:
    for name in ("entropy", "patience"):
        model = wrapped(name)
        layers = set()
        for text in TEXTS:
            skipviz.trace(model, text)
            layers.add(model.model.truth)
        assert len(layers) > 1, layers


def test_recording_changes_nothing_and_sees_the_exception() -> None:
    model = wrapped("entropy")
    ids = model.tokenizer(TEXTS[0], return_tensors="pt").input_ids
    with torch.inference_mode():
        plain = model.model(ids)[0]
    with torch.inference_mode(), skipviz.record(model) as recording:
        assert torch.equal(model.model(ids)[0], plain)
    assert recording.trace.tokens["layers_used"].unique().to_list() == [model.model.truth]


def test_there_is_no_loss_and_pages_say_so() -> None:
    trace = skipviz.trace(wrapped("entropy"), TEXTS[0])
    assert trace.run["loss"].item() == "none"
    assert trace.tokens["nll"].null_count() == trace.tokens["surprisal"].null_count() == len(trace)
    labels = [note.label for note in skipping_notes(trace)]
    assert labels == ["one decision per text", "no next token", "not causal"]
    assert loss_words(trace, None) == "none"


def test_a_text_is_run_as_the_tokenizer_writes_it() -> None:
    class Around:
        def __getattr__(self, name: str) -> Any:
            return getattr(tiny.tokenizer(), name)

        def __call__(self, text: str, **options: Any) -> Any:
            made = tiny.tokenizer()(text, **options)
            if not options.get("add_special_tokens", True):
                return made
            made["input_ids"] = [1, *made["input_ids"], 2]
            if "offset_mapping" in made:
                made["offset_mapping"] = [(0, 0), *made["offset_mapping"], (0, 0)]
            return made

    model = skipviz.from_parts(encoders.deebert(), Around(), name="around")
    trace = skipviz.trace(model, TEXTS[1])
    assert trace.tokens["token_id"].to_list()[0] == 1
    assert trace.tokens["token_id"].to_list()[-1] == 2
    spans = span_texts(trace).unique("span", keep="first", maintain_order=True)
    assert "".join(spans["text"]) == TEXTS[1]


@pytest.mark.parametrize("name", ["entropy", "patience, a number"])
def test_the_check_up_finds_no_issue(name: str) -> None:
    found = skipviz.check(wrapped(name), ignore=("SKV012",)).findings
    outcomes = {each.code: each.outcome for each in found}
    assert "issue" not in outcomes.values(), found
    assert {outcomes[code] for code in ("SKV003", "SKV004", "SKV009")} == {"not applicable"}
    assert outcomes["SKV001"] == outcomes["SKV007"] == outcomes["SKV010"] == "passed"


@pytest.mark.parametrize("fault", ["polarity", "a layer early"])
def test_a_planted_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(
        sink: Any, layer: int, score: Any, threshold: Any, *, shape: Any, forced: bool
    ) -> None:
        never = torch.zeros(shape, dtype=torch.bool)
        if fault == "polarity":
            score = -score
        if fault == "a layer early":
            layer = layer - 1 if layer else encoders.LAYERS - 2
        whole = score.reshape(-1, 1).expand(shape)
        sink.on_gate(layer, ran=never, score=whole, threshold=threshold)

    monkeypatch.setattr(deebert_family, "asked", faulty)
    model = wrapped("entropy")
    found = {each.code: each.outcome for each in skipviz.check(model).findings}
    assert found["SKV007"] == "issue"


def test_what_needs_the_next_token_or_a_batch_says_why_it_is_refused() -> None:
    model = wrapped("patience")
    trace = skipviz.trace(model, TEXTS[0])
    with pytest.raises(skipviz.InputError, match="no loss that other decisions could change"):
        skipviz.what_if(model, trace, sites={(0, "L1.block"): False})
    with pytest.raises(skipviz.InputError, match="so it cannot write"):
        skipviz.generate(model, TEXTS[0])
    # Each text is run alone, so that nothing could differ whatever a batch does.
    with pytest.raises(skipviz.InputError, match="there is no batch to compare with"):
        batch_changes(model, [skipviz.Document("a", tiny.TEXT)])


def test_what_has_no_loss_says_nothing_of_a_loss() -> None:
    pairs = [(TEXTS[0], f"{TEXTS[0]} {TEXTS[0]}")]
    words, table = paraphrase_changes(wrapped("patience"), pairs)
    assert table.select("loss_before", "loss_after").null_count().row(0) == (1, 1)
    said = paraphrase_words(shift_of_decisions(words), table)
    assert "layers per token, in either direction." in said
    assert "nats" not in said
