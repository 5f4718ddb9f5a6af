"""SkipDecode's schedule against a loop over tokens and layers in plain Python."""

from __future__ import annotations

import doctest
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.errors import InputError
from skipviz.families.published import skip_decode
from skipviz.families.published.skip_decode import SkipDecodeSchedule, install_skip_decode
from skipviz.text.spans import encode
from tests import tiny

SCHEDULES = {
    "from all layers": SkipDecodeSchedule(most=6, least=2, length=24),
    "from fewer": SkipDecodeSchedule(most=5, least=3, length=15, warmup_layers=2),
    "behind a prompt": SkipDecodeSchedule(most=6, least=1, length=10, prompt=12),
    "without warming up": SkipDecodeSchedule(most=4, least=1, length=30, warmup_layers=0),
}


def scheduled(schedule: SkipDecodeSchedule) -> Any:
    model = tiny.backbone(seed=0)
    install_skip_decode(model, schedule)
    return model.eval()


def ids() -> Tensor:
    return torch.tensor([encode(tiny.tokenizer(), tiny.TEXT).ids])


def layers_of(schedule: SkipDecodeSchedule, place: int) -> list[int]:
    share = min(1.0, max(0.0, (place - schedule.prompt) / schedule.length))
    count = round(schedule.most - (schedule.most - schedule.least) * share)
    low = list(range(schedule.warmup_layers))
    return low + list(range(tiny.LAYERS - (count - len(low)), tiny.LAYERS))


def by_hand(schedule: SkipDecodeSchedule) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Return logits and who ran each layer; what a token skips holds nothing of it."""
    dense: Any = tiny.backbone(seed=0)
    tokens, layers = ids()[0], list(dense.model.layers)
    seen: list[list[Tensor]] = [[] for _ in layers]
    ran = np.zeros((len(tokens), len(layers)), dtype=np.uint8)
    logits = []
    with torch.no_grad():
        for place, token in enumerate(tokens):
            state = dense.model.embed_tokens(token)[None, None]
            for number in layers_of(schedule, place):
                seen[number].append(state)
                ran[place, number] = 1
                assert len(seen[number]) == place + 1  # all earlier tokens ran it too
                state = tiny.last_made(dense, layers[number], seen[number])
            logits.append(dense.lm_head(dense.model.norm(state))[0])
    return torch.cat(logits), ran


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_runs_is_a_loop_in_plain_python(name: str) -> None:
    schedule = SCHEDULES[name]
    model = skipviz.from_parts(scheduled(schedule), tiny.tokenizer())
    assert model.family.name == "skip-decode"
    trace = skipviz.trace(model, tiny.TEXT)
    logits, ran = by_hand(schedule)
    assert np.array_equal(trace.matrix("exec_count"), ran[:, trace.sites["layer"].to_numpy()])
    assert np.array_equal(trace.tokens["layers_used"].to_numpy(), ran.sum(axis=1))
    assert (np.diff(ran.astype(int), axis=0) <= 0).all()  # never more than before
    with torch.no_grad():
        torch.testing.assert_close(model.model(ids()).logits[0], logits, atol=1e-4, rtol=1e-4)


def test_recording_and_decoding_change_nothing() -> None:
    model = skipviz.from_parts(scheduled(SCHEDULES["from all layers"]), tiny.tokenizer())
    tokens = ids()
    with torch.inference_mode():
        plain = model.model(tokens).logits
        with skipviz.record(model) as recording:
            parts = tiny.decoded(model.model, tokens, last=6)
    torch.testing.assert_close(parts, plain, atol=1e-4, rtol=1e-4)
    whole = skipviz.trace(model, tiny.TEXT)
    assert np.array_equal(recording.trace.matrix("exec_count"), whole.matrix("exec_count"))


def test_the_check_up_finds_no_issue() -> None:
    model = skipviz.from_parts(scheduled(SCHEDULES["from all layers"]), tiny.tokenizer())
    found = skipviz.check(model, ignore=("SKV012",)).findings
    assert "issue" not in {each.outcome for each in found}, found


@pytest.mark.parametrize("name", ["most", "least", "length", "prompt", "warmup_layers"])
def test_what_is_no_whole_number_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    given: dict[str, Any] = {"most": 3, "least": 2, "length": 5, name: float("nan")}
    with pytest.raises(InputError, match=f"{name}=nan is of type float"):
        SkipDecodeSchedule(**given)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="least=4 must lie between 1 and most=3"):
        SkipDecodeSchedule(most=3, least=4, length=5)
    with pytest.raises(InputError, match="length=0"):
        SkipDecodeSchedule(most=3, least=2, length=0)
    model = tiny.backbone(seed=0)
    with pytest.raises(InputError, match="most=9, and the model has 6"):
        install_skip_decode(model, SkipDecodeSchedule(most=9, least=2, length=5))
    install_skip_decode(model, SCHEDULES["from fewer"])
    with pytest.raises(InputError, match="a schedule already"):
        install_skip_decode(model, SCHEDULES["from fewer"])


def test_the_example_is_true() -> None:
    dense = skipviz.from_parts(tiny.backbone(seed=0), tiny.tokenizer(), name="dense")
    names = {**vars(skip_decode), "skipviz": skipviz, "dense": dense}
    (example,) = doctest.DocTestFinder(recurse=False).find(install_skip_decode, globs=names)
    assert example.examples
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
