"""From what a gate emits to score, threshold and decision: small numbers, worked out by hand."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.families.described.reading import FAR, Reading, at_path, read_gate, with_decisions

SCORES = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.25, -0.5]])
SHAPE = (2, 3)


def spec(**fields: Any) -> skipviz.GateSpec:
    return skipviz.GateSpec(module="model.layers.{layer}.router", **fields)


def read(
    value: Tensor, *, found: Any = None, shape: tuple[int, int] = SHAPE, **fields: Any
) -> Reading:
    made = spec(**fields)
    return read_gate(made, value, shape=shape, threshold=made.threshold, k=made.k, mask=found)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"threshold": 0.25}, 0.25),
        ({"threshold": 0.25, "executes": "low"}, 0.25),
        ({"threshold": 0.75, "activation": "sigmoid"}, math.log(3)),
        ({"threshold": 0.5, "activation": "tanh"}, math.atanh(0.5)),
        ({"rule": "argmax", "executes": 0}, 0.0),
    ],
)
def test_a_threshold_is_on_the_scale_of_the_scores(fields: dict[str, Any], limit: float) -> None:
    several = torch.stack([SCORES + 0.1, -SCORES], dim=-1)  # no two are equal
    found = read(several if "rule" in fields else SCORES, **fields)
    assert found.threshold is not None
    assert found.threshold.shape == ()
    assert float(found.threshold) == pytest.approx(limit)
    # Against it, scores decide as the gate did.
    low = fields.get("executes") == "low"
    above = found.score < found.threshold if low else found.score > found.threshold
    assert torch.equal(above, found.ran)
    assert found.score.dtype == torch.float32


def test_thresholds_may_differ_by_text_and_token() -> None:
    by_text = torch.tensor([0.6, -0.6])
    found = read_gate(spec(), SCORES, shape=SHAPE, threshold=by_text)
    assert found.ran.tolist() == [[False, False, True], [True, True, True]]
    assert found.threshold is not None
    assert found.threshold.tolist() == [[pytest.approx(0.6)], [pytest.approx(-0.6)]]
    found = read_gate(spec(), SCORES, shape=SHAPE, threshold=SCORES + 1)
    assert not found.ran.any()
    found = read_gate(spec(), SCORES, shape=SHAPE, threshold=torch.full((1, 1, 1), 0.25))
    assert found.threshold is not None
    assert found.threshold.shape == ()
    with pytest.raises(skipviz.RecordingError, match="gives 4 numbers for"):
        read_gate(spec(), SCORES, shape=SHAPE, threshold=torch.zeros(4))


def test_what_is_equal_to_the_threshold_runs_under_ge_alone() -> None:
    for low in (False, True):
        executes = {"executes": "low"} if low else {}
        strict = read(SCORES, threshold=0.5, **executes)
        closed = read(SCORES, threshold=0.5, rule="ge", **executes)
        assert (strict.ran[0, 0], closed.ran[0, 0]) == (False, True)


def test_ranks_are_parted_in_the_middle() -> None:
    found = read(SCORES, rule="topk", k=1)
    assert found.ran.tolist() == [[False, False, True], [False, True, False]]
    assert found.threshold is not None
    assert found.threshold.tolist() == [[1.25], [0.125]]
    low = read(SCORES, rule="topk", k=1, executes="low")
    assert low.ran.tolist() == [[False, True, False], [False, False, True]]
    assert low.threshold is not None
    assert low.threshold.tolist() == [[-0.25], [-0.25]]
    every = read(SCORES, rule="topk", k=3)
    assert every.threshold is not None
    assert every.threshold.isnan().all()
    assert read(SCORES, rule="topk", k=9).ran.all()  # never more than there are
    assert read(SCORES, rule="topk", k=0.1).ran.sum() == 2  # and never none
    whole = read_gate(spec(rule="topk", k=":k"), SCORES, shape=SHAPE, k=torch.tensor(2))
    share = read_gate(spec(rule="topk", k=":k"), SCORES, shape=SHAPE, k=torch.tensor(0.7))
    assert whole.ran.tolist() == share.ran.tolist() == [[True, False, True], [True, True, False]]
    strict = read(SCORES, rule="topk", k=2, strict=True)
    assert strict.ran.tolist() == [[False, False, True], [False, True, False]]
    assert torch.equal(read(SCORES, rule="topk", k=1, strict=True).ran, found.ran)


def test_quantiles_are_of_all_tokens_and_the_right_end_runs() -> None:
    high = read(SCORES, rule="quantile", k=0.5)
    assert high.threshold is not None
    assert float(high.threshold) == 0.125
    assert high.ran.tolist() == [[True, False, True], [False, True, False]]
    low = read(SCORES, rule="quantile", k=0.8, executes="low")
    assert low.ran.tolist() == [[False, True, False], [False, False, False]]
    assert low.threshold is not None
    assert float(low.threshold) == pytest.approx(-0.5)


def test_a_chance_is_that_of_executing() -> None:
    high = read(SCORES, activation="sigmoid", threshold=0.5).p_execute
    low = read(SCORES, activation="sigmoid", threshold=0.5, executes="low").p_execute
    assert high is not None
    assert low is not None
    assert torch.allclose(high, SCORES.sigmoid())
    assert torch.allclose(low, 1 - SCORES.sigmoid())
    assert read(SCORES).p_execute is None
    assert read(SCORES, activation="tanh").p_execute is None


def test_the_score_of_a_class_is_its_lead_over_the_best_other() -> None:
    value = torch.tensor([[[3.0, 1.0, 2.5], [0.0, 2.0, 5.0]]])
    found = read(value, rule="argmax", executes=0, shape=(1, 2))
    assert found.score.tolist() == [[0.5, -5.0]]
    assert found.ran.tolist() == [[True, False]]
    last = read(value, rule="argmax", executes=2, shape=(1, 2))
    assert last.score.tolist() == [[-0.5, 3.0]]
    with pytest.raises(skipviz.RecordingError, match="executes=3 is not one of 3"):
        read(value, rule="argmax", executes=3, shape=(1, 2))
    with pytest.raises(skipviz.RecordingError, match="executes=0 is not one of 1"):
        read(value[..., :1], rule="argmax", executes=0, shape=(1, 2))


def test_a_number_is_picked_from_either_end() -> None:
    value = torch.tensor([[[3.0, 1.0, 2.5]]])
    for pick, wanted in ((0, 3.0), (2, 2.5), (-1, 2.5), (-3, 3.0)):
        assert read(value, pick=pick, shape=(1, 1)).score.item() == wanted
    for pick in (3, -4):
        with pytest.raises(skipviz.RecordingError, match=f"pick={pick} is not one of 3"):
            read(value, pick=pick, shape=(1, 1))
    with pytest.raises(skipviz.RecordingError, match="needs 2 numbers; there are 3"):
        read(value, pick="difference", shape=(1, 1))
    assert read(value[..., 1:], pick="difference", shape=(1, 1)).score.item() == 1.5


@pytest.mark.parametrize(
    ("fields", "value", "wanted"),
    [
        ({"scope": "sequence"}, torch.tensor([0.5, -0.5]), [[True] * 3, [False] * 3]),
        ({"scope": "sequence"}, torch.tensor([[0.5], [-0.5]]), [[True] * 3, [False] * 3]),
        ({"scope": "batch"}, torch.tensor([0.5]), [[True] * 3] * 2),
        ({"scope": "batch", "pick": 1}, torch.tensor([-1.0, 0.5]), [[True] * 3] * 2),
        (
            {"scope": "sequence", "pick": 1},
            torch.tensor([[1.0, -1.0], [-1.0, 1.0]]),
            [[False] * 3, [True] * 3],
        ),
    ],
)
def test_one_decision_holds_for_all_tokens(
    fields: dict[str, Any], value: Tensor, wanted: list[list[bool]]
) -> None:
    found = read(value, **fields)
    assert found.ran.tolist() == wanted
    assert found.score.shape == SHAPE


@pytest.mark.parametrize(
    ("value", "fields", "message"),
    [
        (torch.zeros(6), {}, r"tensor of shape \(6,\)"),
        (torch.zeros(2, 3), {"pick": 0}, r"tensor of shape \(2, 3\)"),
        (torch.zeros(2, 4, 1), {}, r"shape \(2, 4\) in a forward of 2 texts of 3 tokens"),
        (torch.zeros(3, 3), {}, "in a forward of 2 texts"),
        (torch.zeros(3, 1, 1), {"scope": "sequence"}, "of scope sequence"),
        ([0.5], {}, "gives a list, not a tensor"),
    ],
)
def test_what_does_not_fit_the_forward_is_said(
    value: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(skipviz.RecordingError, match=message):
        read(value, **fields)


def test_masks_are_counted_as_they_say() -> None:
    mask = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    given = {"rule": "sample", "mask": ":mask"}
    for shaped in (mask, mask[..., None], mask.flatten()):
        assert read(SCORES, found=shaped, **given).ran.tolist() == mask.tolist()
    assert read(SCORES, found=mask, **given).threshold is None
    with pytest.raises(skipviz.RecordingError, match="mask has values above 1"):
        read(SCORES, found=mask, mask_executes=0, **given)
    skips = read(SCORES, found=mask.clamp(max=1), mask_executes=0, **given)
    assert skips.ran.tolist() == (1 - mask.clamp(max=1)).tolist()
    with pytest.raises(skipviz.RecordingError, match=r"GateSpec\.mask gives values of shape"):
        read(SCORES, found=torch.ones(1, 5), **given)


def test_paths_lead_through_names_keys_and_numbers() -> None:
    pair = namedtuple("pair", ("left", "right"))
    value = {"a": [10, pair(1, {"0": "key"})]}
    assert at_path(value, "", field="read") is value
    assert at_path(value, "a.0", field="read") == 10
    assert at_path(value, "a.-2", field="read") == 10
    assert at_path(value, "a.1.left", field="read") == 1
    assert at_path(value, "a.1.right.0", field="read") == "key"
    with pytest.raises(skipviz.RecordingError, match=r"GateSpec\.k: there is no 'b' .*\['a'\]"):
        at_path(value, "b", field="k")
    with pytest.raises(skipviz.RecordingError, match=r"there is no '5' on the path 'a\.5'.* list"):
        at_path(value, "a.5", field="read")


def test_what_is_emitted_instead_is_as_extreme_as_what_it_replaces() -> None:
    wanted = torch.tensor([[True, False, True], [False, True, False]])
    all_of_it = torch.ones_like(wanted)
    probabilities = SCORES.sigmoid()

    def made(value: Tensor, **fields: Any) -> Tensor:
        described = spec(**fields)
        return with_decisions(
            described, value, wanted, change=all_of_it, threshold=described.threshold
        )

    assert made(probabilities, threshold=0.5).tolist() == wanted.float().tolist()
    far = torch.where(wanted, FAR, -FAR)
    assert torch.equal(made(SCORES, threshold=0.5), far)
    for limit in (0.0, 1.0):  # which 0 or 1 would not pass
        assert torch.equal(made(probabilities, threshold=limit), far)
    assert torch.equal(made(probabilities, threshold=0.5, activation="sigmoid"), far)
    assert torch.equal(made(SCORES, threshold=0.5, executes="low"), -far)
    several = torch.stack([SCORES, SCORES, SCORES], dim=-1)
    picked = made(several, pick=-2)
    assert torch.equal(picked[..., 1], far)
    assert torch.equal(picked[..., [0, 2]], several[..., [0, 2]])


def test_a_plan_cannot_part_what_is_decided_together() -> None:
    described = spec(scope="sequence")
    value = torch.tensor([[0.5], [0.5]])
    same, whole = torch.tensor([[True] * 3, [False] * 3]), torch.ones(SHAPE, dtype=torch.bool)
    emitted = with_decisions(described, value, same, change=whole, threshold=0.0)
    assert emitted.tolist() == [[FAR], [-FAR]]
    parted = torch.tensor([[True, False, True], [True, True, True]])
    for wanted, change in ((parted, whole), (same, parted)):
        with pytest.raises(skipviz.InputError, match="for a whole sequence here"):
            with_decisions(described, value, wanted, change=change, threshold=0.0)
