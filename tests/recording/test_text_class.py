"""The class that an encoder predicts of a text, against what the model itself returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.recording.text_class import text_classes
from tests import encoders, tiny

MODELS: dict[str, Callable[[], Any]] = {"deebert": encoders.deebert, "pabee": encoders.pabee}
TEXTS = [tiny.TEXT, "Nobody knows.", "Why? It sleeps, and the lazy dog jumps: 42 times."]
NAMES = {0: "good", 1: "bad", 2: "neither"}


def named(name: str) -> skipviz.SkipModel:
    model = MODELS[name]()
    model.config.id2label = NAMES
    return skipviz.from_parts(model, tiny.tokenizer(), name=name)


def own(model: skipviz.SkipModel, trace: skipviz.Trace, sequence: int) -> torch.Tensor:
    """The probabilities that the model itself gives a text of a trace."""
    ids = trace.tokens.filter(sequence=sequence)["token_id"].to_list()
    with torch.inference_mode():
        return torch.softmax(model.model(torch.tensor([ids]))[0][0], dim=-1)


@pytest.mark.parametrize("name", MODELS)
def test_each_text_has_the_class_that_the_model_gives_it(name: str) -> None:
    model = named(name)
    trace = skipviz.trace(model, TEXTS)
    found = predicted_classes(trace)
    assert found["sequence"].to_list() == [0, 1, 2]
    for sequence, (label, prob) in enumerate(found.select("class_label", "class_prob").rows()):
        chances = own(model, trace, sequence)
        assert label == NAMES[int(chances.argmax())]
        assert prob == pytest.approx(float(chances.max()), abs=1e-6)
    for (_,), tokens in trace.tokens.group_by("sequence"):
        assert tokens.select("class_label", "class_prob").n_unique() == 1
        assert tokens["context"].to_list() == [tokens.height] * tokens.height  # it sees all


def test_the_class_is_that_of_the_largest_logit() -> None:
    model = named("pabee")
    with torch.no_grad():
        for head in model.model.classifiers:
            head.bias += torch.tensor([0.0, 0.0, 30.0])
    assert set(skipviz.trace(model, TEXTS).tokens["class_label"]) == {"neither"}


def test_a_recording_has_it_too() -> None:
    model = named("pabee")
    ids = torch.tensor([model.tokenizer(TEXTS[0])["input_ids"]])
    with skipviz.record(model) as recording:
        model.model(ids)
    traced = skipviz.trace(model, ids[0].tolist())
    names = ["class_label", "class_prob"]
    assert recording.trace.tokens[names].equals(traced.tokens[names])
    assert recording.trace.tokens["class_label"].null_count() == 0
    assert recording.trace.tokens["context"].to_list() == [len(traced)] * len(traced)
    with skipviz.record(model, statistics=False) as without:
        model.model(ids)
    assert without.trace.tokens["class_label"].null_count() == len(traced)


def test_it_is_the_class_under_the_decisions_that_were_made() -> None:
    model = named("deebert")
    free = skipviz.trace(model, TEXTS[0])
    runs = np.ones((len(free), free.sites.height), dtype=np.bool_)
    forced = skipviz.trace(model, TEXTS[0], plan=skipviz.Plan(runs))
    assert (forced.matrix("exec_count") > 0).all()
    assert not (free.matrix("exec_count") > 0).all()
    one, other = (each.tokens["class_prob"][0] for each in (free, forced))
    assert one != other


def test_windows_have_a_class_each() -> None:
    model = named("deebert")
    trace = skipviz.trace(model, TEXTS[0], window=16)
    found = predicted_classes(trace)
    assert found.height > 1
    assert set(found["sequence"]) == {0}
    assert found["tokens"].sum() == len(trace)
    assert trace.tokens["context"].max() == 16
    assert found["first_token"].to_list() == [0, *found["tokens"].cum_sum()[:-1]]


def test_what_is_no_class_is_unknown() -> None:
    number = skipviz.from_parts(encoders.pabee(classes=1), tiny.tokenizer(), name="number")
    trace = skipviz.trace(number, TEXTS)
    assert trace.tokens["class_label"].null_count() == len(trace)
    assert predicted_classes(trace).is_empty()
    several = encoders.pabee()
    several.config.problem_type = "multi_label_classification"
    assert text_classes(several, torch.zeros(2, 3)) == [None, None]
    assert text_classes(encoders.pabee(), torch.full((1, 3), torch.nan)) == [None]
    without = skipviz.trace(named("pabee"), TEXTS, statistics=False)
    assert without.tokens["class_label"].null_count() == len(without)


def test_models_that_predict_the_next_token_have_none(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    assert trace.tokens["class_label"].null_count() == len(trace)
    assert predicted_classes(trace).is_empty()


def test_names_that_cannot_be_stored_are_written_out(tmp_path: Path) -> None:
    model = named("pabee")
    model.model.config.id2label = dict.fromkeys(range(3), "half \ud800")
    trace = skipviz.trace(model, TEXTS[0])
    trace.save(tmp_path / "trace.parquet")
    assert skipviz.Trace.load(tmp_path / "trace.parquet").tokens.equals(trace.tokens)
    assert trace.tokens["class_label"][0] == "half \\ud800"
    assert trace.to_long().select(pl.col("class_label").unique()).item() == "half \\ud800"
