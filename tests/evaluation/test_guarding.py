from __future__ import annotations

import pytest
import torch

import skipviz
from skipviz.evaluation import guarding as module
from skipviz.evaluation.bounded_means import betting_p_value
from skipviz.evaluation.guarding import BUDGETS, FEWEST_DOCUMENTS, guard
from skipviz.evaluation.losses import document_losses
from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates
from skipviz.families.gated.settings import Threshold
from tests import tiny


@pytest.fixture
def documents() -> list[skipviz.Document]:
    return [
        skipviz.Document(f"doc{number}", tiny.TEXT[number : number + 50])
        for number in range(FEWEST_DOCUMENTS)
    ]


@pytest.fixture
def of_few_gates() -> skipviz.SkipModel:
    """One gated layer of six, so that even skipping it always leaves five."""
    model = tiny.backbone(seed=0)
    install_gates(model, GatedConfig(first_layer=2, last_layer=2, gate_hidden=4, adapter_rank=2))
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
    return skipviz.from_parts(model.eval(), tiny.tokenizer())


def threshold(model: skipviz.SkipModel) -> float:
    return float(next(gated_units(model.model))[2].decide.threshold)


@pytest.mark.slow
def test_thresholds_are_tested_from_the_safest_until_one_fails(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    wide = guard(gated, dense, documents, limit=1e6)
    assert wide.tested.height == len(BUDGETS)
    assert wide.tested["passed"].all()
    assert wide.tested["realised"][0] > wide.tested["realised"][-1]
    limit = float(wide.tested["gap"][4])
    found = guard(gated, dense, documents, limit=limit)
    assert not found.tested["passed"][-1]
    assert found.tested["passed"][:-1].all()
    assert found.tested["gap"][-2] < limit
    assert found.tested["p"][-2] <= 0.05 < found.tested["p"][-1]
    assert found.threshold == found.tested["threshold"][-2]
    assert threshold(gated) == 0
    guarded = gated.under(Threshold(found.threshold))
    kept = document_losses(skipviz.trace(guarded, documents))
    gap = (kept - document_losses(skipviz.trace(dense, documents))).mean()
    assert gap == pytest.approx(found.tested["gap"][-2], abs=1e-6)


@pytest.mark.slow
def test_more_confidence_never_takes_a_cheaper_threshold(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    limit = float(guard(gated, dense, documents, limit=1e6).tested["gap"][4])
    bold = guard(gated, dense, documents, limit=limit, confidence=0.6)
    careful = guard(gated, dense, documents, limit=limit, confidence=0.999)
    assert careful.tested.height <= bold.tested.height


@pytest.mark.long
@pytest.mark.slow
def test_a_clipped_promise_is_tested_by_betting_and_takes_more_documents(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    found = guard(gated, dense, documents, limit=3.0, clip=4.0)
    assert (found.limit, found.clip) == (3.0, 4.0)
    loss = document_losses(skipviz.trace(dense, documents))
    for row in found.tested.iter_rows(named=True):
        at = gated.under(Threshold(row["threshold"]))
        gaps = document_losses(skipviz.trace(at, documents)) - loss
        wanted = betting_p_value(gaps, 3.0, bound=4.0, confidence=0.95)
        assert row["p"] == pytest.approx(wanted, abs=1e-6)
        assert row["passed"] == (row["p"] <= 0.05)
    with pytest.raises(ValueError, match=r"a bound of 1e\+06 nats takes many"):
        guard(gated, dense, documents, limit=1.0, clip=1e6)
    for clip in (0.1, 0.05, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be above the limit"):
            guard(gated, dense, documents, limit=0.1, clip=clip)


@pytest.mark.slow
def test_budgets_out_of_reach_take_nothing_from_what_passed(
    of_few_gates: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    found = guard(of_few_gates, dense, documents, limit=1e6)
    assert 1 < found.tested.height < len(BUDGETS)
    assert found.tested["passed"].all()
    assert found.threshold == found.tested["threshold"][-1]


def test_a_first_budget_out_of_reach_is_a_sentence(
    of_few_gates: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BUDGETS", (0.5, 0.4))
    with pytest.raises(ValueError, match=r"Budget 0\.5 is out of reach"):
        guard(of_few_gates, dense, documents, limit=1e6)


def test_a_document_of_one_token_is_refused_by_name(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    documents[3] = skipviz.Document("short.txt", "a")
    with pytest.raises(ValueError, match=r"'short\.txt' is a single token"):
        guard(gated, dense, documents, limit=1e6)


def test_a_limit_that_nothing_keeps_is_a_sentence(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    with pytest.raises(
        ValueError, match=r"is not below 1e-09 with this confidence\. Raise the limit"
    ):
        guard(gated, dense, documents, limit=1e-9)


@pytest.mark.parametrize(
    ("few", "limit", "confidence", "said"),
    [
        (True, 0.1, 0.95, "too few"),
        (False, 0.0, 0.95, "limit=0"),
        (False, float("inf"), 0.95, "limit=inf must be a number"),
        (False, float("nan"), 0.95, "limit=nan must be a number"),
        (False, 0.1, 1.0, "=1.0 bet"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    gated: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    few: bool,
    limit: float,
    confidence: float,
    said: str,
) -> None:
    texts = documents[:5] if few else documents
    with pytest.raises(ValueError, match=said):
        guard(gated, dense, texts, limit=limit, confidence=confidence)
