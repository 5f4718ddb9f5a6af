from __future__ import annotations

import copy
import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

import skipviz
import skipviz.evaluation.frontier
from skipviz.analysis.flops import compute_share, cost_summary, realised_budget
from skipviz.evaluation.candidates import guarded_candidates
from skipviz.evaluation.card import frontier_table
from skipviz.evaluation.frontier import frontier, measure
from skipviz.families.gated.settings import Threshold
from skipviz.text.spans import encode
from tests import tiny

TEXTS = (tiny.TEXT, tiny.TEXT[20:], "Why? Nobody knows: 42.")


@pytest.fixture
def documents() -> list[skipviz.Document]:
    return [skipviz.Document(f"doc{index}", text) for index, text in enumerate(TEXTS)]


def candidate(gated: skipviz.SkipModel, threshold: float, budget: float) -> skipviz.SkipModel:
    return gated.under(Threshold(threshold), budget=budget)


def test_figures_are_those_of_a_loop_written_by_hand(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    gated = candidate(gated, 0.3, 0.8)
    found = measure([gated], dense, documents)
    for number, document in enumerate(documents):
        row = found.filter(policy="learned", document=number).row(0, named=True)
        ids = torch.tensor([encode(gated.tokenizer, document.text).ids])
        with torch.no_grad():
            mine, theirs = (m.model(ids).logits[0, :-1].double() for m in (gated, dense))
        one, other = mine.log_softmax(-1), theirs.log_softmax(-1)
        wanted = ids[0, 1:]
        assert row["nll"] == pytest.approx(
            np.mean([-one[i, t].item() for i, t in enumerate(wanted)]), abs=1e-5
        )
        kl = (other.exp() * (other - one)).sum(-1).mean().item()
        assert row["kl"] == pytest.approx(kl, abs=1e-5)
        assert row["kl"] > 0.01
        agree = (one.argmax(-1) == other.argmax(-1)).double().mean().item()
        assert row["top1"] == pytest.approx(agree)
        traced = skipviz.trace(gated, document)
        assert row["tokens"] == len(traced) - 1
        assert row["realised"] == pytest.approx(realised_budget(traced))
        assert row["flop_share"] == pytest.approx(cost_summary(traced).flop_share)
        assert row["layers_used"] == pytest.approx(cost_summary(traced).layers_mean)
        parts = [row[f"{part}_share"] for part in ("attention", "mlp", "adapters", "gates", "kv")]
        assert sum(parts) + row["head_share"] == pytest.approx(row["flop_share"])


def test_the_dense_model_agrees_with_itself(
    dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    found = frontier(measure([], dense, documents), seed=0).row(0, named=True)
    assert (found["policy"], found["budget"]) == ("dense", None)
    assert (found["gap"], found["kl"], found["top1"]) == (0, 0, 1)
    assert found["realised"] == found["flop_share"] == 1
    assert found["nll_low"] <= found["nll"] <= found["nll_high"]


def test_candidates_that_share_a_model_keep_apart(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    shares: list[float] = []
    both = [candidate(gated, 1e6, 0.1), candidate(gated, -1e6, 1.0)]
    table = frontier(measure(both, dense, documents, progress=shares.append), seed=0)
    none, every = table.filter(policy="learned").sort("budget").rows(named=True)
    assert every["gap"] == pytest.approx(0, abs=1e-6)
    assert every["layers_used"] == 6
    assert none["layers_used"] == 2
    assert none["realised"] < 0.6 < 1 < every["realised"]  # gates cost FLOPs too
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_gaps_are_paired_by_document(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    measured = measure([candidate(gated, 0.3, 0.8)], dense, documents)
    row = frontier(measured, seed=0).filter(policy="learned").row(0, named=True)
    nll = {
        policy: measured.filter(policy=policy).sort("document")["nll"].to_numpy()
        for policy in ("dense", "learned")
    }
    assert row["gap"] == pytest.approx((nll["learned"] - nll["dense"]).mean())
    assert row["gap_low"] < row["gap"] < row["gap_high"]
    # Of few documents, means resampled lie between the least and the greatest.
    gaps = nll["learned"] - nll["dense"]
    assert row["gap_low"] < gaps.mean() < row["gap_high"]
    assert row["tokens"] == measured.filter(policy="dense")["tokens"].sum()
    # Budgets weigh documents as losses do.
    mine = measured.filter(policy="learned")
    for name in ("realised", "flop_share"):
        assert row[name] == pytest.approx(mine[name].to_numpy().mean())


def test_losses_over_the_learned_gates_are_at_the_budget_realised(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    less, more = candidate(gated, 0.5, 0.8), candidate(gated, 0.0, 0.9)
    # Asked for 0.8 as well, it realises something in between.
    other = dataclasses.replace(candidate(gated, 0.3, 0.8), policy="static")
    below = dataclasses.replace(candidate(gated, 9.0, 0.8), policy="random")
    measured = measure([less, more, other, below], dense, documents)
    table = frontier(measured, seed=0)

    def of(policy: str, budget: float) -> tuple[npt.NDArray[np.float64], float]:
        rows = measured.filter(policy=policy, budget=budget).sort("document")
        realised = table.filter(policy=policy, budget=budget)["realised"].item()
        return rows["nll"].to_numpy(), realised

    (low, at_low), (high, at_high), (mine, at) = (
        of("learned", 0.8), of("learned", 0.9), of("static", 0.8)
    )  # fmt: skip
    assert at_low < at < at_high
    differences = mine - (low + (high - low) * (at - at_low) / (at_high - at_low))
    found = table.filter(policy="static").row(0, named=True)
    assert found["over_learned"] == pytest.approx(differences.mean())
    assert found["over_learned_low"] < found["over_learned"] < found["over_learned_high"]
    assert table.filter(policy="learned")["over_learned"].to_list() == [0, 0]
    for policy in ("dense", "random"):
        assert table.filter(policy=policy)["over_learned"].item() is None
    without = frontier(measure([other], dense, documents), seed=0)
    assert without["over_learned"].null_count() == 2


def test_losses_at_the_budget_asked_lie_between_those_realised_around_it(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    probe = frontier(
        measure([candidate(gated, 0.5, 0.5), candidate(gated, 0.0, 0.9)], dense, documents)
    )
    low, high = probe.filter(policy="learned")["realised"].to_list()
    between, beyond = round(low + 0.7 * (high - low), 3), round(low - 0.1, 3)
    asked = [candidate(gated, 0.5, between), candidate(gated, 0.0, round(high, 3))]
    measured = measure([*asked, candidate(gated, 0.3, beyond)], dense, documents)
    table = frontier(measured, seed=0).filter(policy="learned")
    first, met, outside = table.rows(named=True)

    def nll(budget: float | None) -> npt.NDArray[np.float64]:
        rows = measured.filter(pl.col("budget").eq_missing(budget)).sort("document")
        return rows["nll"].to_numpy()

    # The nearest above and below among all three and the dense model.
    points = sorted((row["realised"], row["budget"]) for row in table.rows(named=True))
    below = max(point for point in points if point[0] <= between)
    above = min(point for point in points if point[0] >= between)
    share = (between - below[0]) / (above[0] - below[0])
    wanted = (1 - share) * nll(below[1]) + share * nll(above[1]) - nll(None)
    assert first["gap_at_asked"] == pytest.approx(wanted.mean())
    assert first["gap_at_asked_low"] < first["gap_at_asked"] < first["gap_at_asked_high"]
    assert first["missed"] is (abs(first["realised"] - between) > 0.02)
    assert met["gap_at_asked"] == pytest.approx(met["gap"])
    assert not met["missed"]
    assert outside["gap_at_asked"] is None
    assert outside["missed"]
    words = frontier_table(frontier(measured, seed=0))
    assert words.count("not at equal budget |") == 1
    assert words.count(" (missed) |") == table["missed"].sum()
    assert "`skipviz calibrate MODEL --budget" in words


def test_two_runs_may_share_a_store(
    gated: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    tmp_path: Path,
) -> None:
    store = tmp_path / "measured.parquet"
    meanwhile = [candidate(gated, 0.0, 0.9)]

    def halfway(_: float) -> None:
        if meanwhile:
            measure([meanwhile.pop()], dense, documents, store=store)

    measure([candidate(gated, 0.3, 0.8)], dense, documents, store=store, progress=halfway)
    kept = pl.read_parquet(store).group_by("budget").len().sort("budget")
    assert kept.rows() == [(None, 3), (0.8, 3), (0.9, 3)]


def test_a_single_document_has_no_interval(
    dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    row = frontier(measure([], dense, documents[:1]), seed=0).row(0, named=True)
    assert row["nll"] > 0
    assert row["nll_low"] is None
    assert row["nll_high"] is None


@pytest.mark.parametrize("text", ["a", "word " * 400])
def test_documents_of_no_use_are_named(dense: skipviz.SkipModel, text: str) -> None:
    with pytest.raises(ValueError, match=r"odd\.txt has \d+ tokens; an evaluation takes"):
        measure([], dense, [skipviz.Document("odd.txt", text)])


def test_the_order_of_candidates_is_kept(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    found = frontier(
        measure([candidate(gated, 1.0, 0.7), candidate(gated, 0.0, 0.9)], dense, documents), seed=0
    )
    assert found["budget"].to_list() == [None, 0.7, 0.9]
    assert isinstance(found, pl.DataFrame)


def test_what_is_in_the_store_is_not_run_again(
    gated: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "measured.parquet"
    one = candidate(gated, 0.3, 0.8)
    first = measure([one], dense, documents[:2], store=store)
    whole = measure([one], dense, documents, store=store)
    assert whole.filter(pl.col("document") < 2).equals(first)
    some = measure([one], dense, documents, most=2)
    assert some["document"].n_unique() == 2
    assert some.equals(whole.filter(pl.col("document").is_in(some["document"].to_list())))
    assert whole.equals(measure([one], dense, documents))
    monkeypatch.setattr(dense.model, "forward", None)
    monkeypatch.setattr(one.model, "forward", None)
    assert measure([one], dense, documents, store=store).equals(whole)


@pytest.mark.slow
def test_another_text_or_threshold_is_run(
    gated: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    tmp_path: Path,
) -> None:
    store = tmp_path / "measured.parquet"
    measure([candidate(gated, 0.3, 0.8)], dense, documents, store=store)
    changed = [skipviz.Document(documents[0].source, "Another text, please.")]
    other = measure([candidate(gated, 0.3, 0.8)], dense, changed, store=store)
    assert other.equals(measure([candidate(gated, 0.3, 0.8)], dense, changed))
    budget = measure([candidate(gated, 9.0, 0.7)], dense, documents, store=store)
    assert budget.equals(measure([candidate(gated, 9.0, 0.7)], dense, documents))
    moved = candidate(gated, 9.0, 0.8)
    found = measure([moved], dense, documents, store=store)
    assert found.equals(measure([moved], dense, documents))


def test_figures_of_another_precision_or_accounting_are_not_served(
    gated: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "measured.parquet"
    one = candidate(gated, 0.3, 0.8)
    full = measure([one], dense, documents, store=store)
    monkeypatch.setattr(skipviz.evaluation.frontier, "ACCOUNTING", 99)
    monkeypatch.setattr(skipviz.evaluation.frontier, "compute_share", no_heads)
    counted = measure([one], dense, documents, store=store)
    assert counted["head_share"].sum() == 0 < full["head_share"].sum()
    dense.model.to(torch.bfloat16)
    half = measure([], dense, documents, store=store)
    assert half["dtype"].unique().to_list() == ["bfloat16"]
    assert (half["nll"] != full.filter(policy="dense")["nll"]).all()
    assert pl.read_parquet(store).height == 2 * full.height + half.height


def no_heads(trace: skipviz.Trace) -> pl.DataFrame:
    return compute_share(trace).with_columns(
        share=pl.col("share") * (pl.col("component") != "head")
    )


def test_nothing_counts_twice(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    one = candidate(gated, 0.3, 0.8)
    with pytest.raises(ValueError, match="measured twice"):
        frontier(measure([one, one], dense, documents), seed=0)
    with pytest.raises(ValueError, match="documents are the same"):
        measure([one], dense, [documents[0], documents[0]])
    with pytest.raises(ValueError, match="0 documents are none"):
        measure([one], dense, documents, most=0)


def test_conversations_are_told_apart(
    tiny_backbone: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    )
    dense = skipviz.from_parts(tiny_backbone, tokenizer)
    said = [
        skipviz.Document("chat", "", messages=({"role": "user", "content": words},))
        for words in ("Why?", "The fox jumps over the dog.")
    ]
    store = tmp_path / "measured.parquet"
    both = [measure([], dense, [each], store=store)["nll"].item() for each in said]
    assert both == [measure([], dense, [each])["nll"].item() for each in said]
    assert both[0] != both[1]
    assert measure([], dense, said, store=store).height == 2


def test_an_evaluation_stops_within_a_layer_and_keeps_what_is_done(
    gated: skipviz.SkipModel,
    dense: skipviz.SkipModel,
    documents: list[skipviz.Document],
    tmp_path: Path,
) -> None:
    store, stop, ran = tmp_path / "measured.parquet", threading.Event(), 0

    def progress(share: float) -> None:
        if share > 0.5:
            stop.set()

    with pytest.raises(skipviz.Stopped):
        measure(
            [candidate(gated, 0.3, 0.8)], dense, documents, store=store, stop=stop,
            progress=progress,
        )  # fmt: skip
    kept = pl.read_parquet(store).height
    assert 0 < kept < 2 * len(documents)
    stop.clear()

    def count(*_: object) -> None:
        nonlocal ran
        ran += 1
        stop.set()

    hook = dense.model.model.layers[1].register_forward_hook(count)
    with pytest.raises(skipviz.Stopped):
        measure([], dense, [skipviz.Document("a", "Some other text.")], stop=stop)
    hook.remove()
    assert ran == 1
    assert not any(module._forward_hooks for module in dense.model.modules())
    with pytest.raises(skipviz.Stopped):
        guarded_candidates(
            dense, [candidate(gated, 0.3, 0.8)], documents * 7, limits=[1.0], stop=stop
        )
