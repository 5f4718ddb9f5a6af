from __future__ import annotations

import math
import threading

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from scipy import stats
from torch import Tensor

import skipviz
from skipviz.errors import Stopped
from skipviz.experiments.attribution.over_depth import attribute_depth, flips_beside
from skipviz.experiments.attribution.over_tokens import METHODS, Gates, Method, attribute, runs
from skipviz.experiments.attribution.target import Target
from skipviz.families.gated.modules import gated_units
from tests import planted, tiny
from tests.families.exits.test_family import with_exits
from tests.families.fixed_rates.test_modules import fixed

TEXT = tiny.TEXT[:30]
TOKEN = 9


@pytest.fixture
def traced(gated: skipviz.SkipModel) -> skipviz.Trace:
    return skipviz.trace(gated, TEXT)


def at_embeddings(
    model: skipviz.SkipModel, trace: skipviz.Trace, embedded: Tensor, *, frozen: bool = True
) -> Tensor:
    """Log-probability of the word after TOKEN, from these embeddings."""
    plan = skipviz.Plan(trace.matrix("exec_count")[: TOKEN + 1] > 0)
    with torch.no_grad():
        if frozen:
            with model.family.force(model.model, plan):
                logits = model.model(inputs_embeds=embedded).logits
        else:
            logits = model.model(inputs_embeds=embedded).logits
    return logits[0, TOKEN].log_softmax(-1)[int(trace.tokens["token_id"][TOKEN + 1])]


def embeddings(model: skipviz.SkipModel, trace: skipviz.Trace) -> tuple[Tensor, Tensor]:
    table = model.model.get_input_embeddings().weight.detach()
    ids = torch.tensor(trace.tokens["token_id"].to_list()[: TOKEN + 1])
    return table[ids][None], table.mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_each_token_a_share(
    gated: skipviz.SkipModel, traced: skipviz.Trace, method: Method
) -> None:
    found = attribute(gated, traced, Target(token=TOKEN), method=method, steps=16)
    assert found.table["token"].to_list() == list(range(TOKEN + 1))
    assert found.table["attribution"].abs().max() > 1e-3
    assert found.value == pytest.approx(-traced.tokens["nll"][TOKEN], abs=1e-4)
    again = attribute(gated, traced, Target(token=TOKEN), method=method, steps=16)
    assert again.table.equals(found.table)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "steps"), [("integrated_gradients", 300), ("shapley_sampling", 30)]
)
def test_shares_add_up_to_what_all_tokens_changed(
    gated: skipviz.SkipModel, traced: skipviz.Trace, method: Method, steps: int
) -> None:
    embedded, away = embeddings(gated, traced)
    whole = at_embeddings(gated, traced, embedded)
    nothing = at_embeddings(gated, traced, away.expand_as(embedded).contiguous())
    found = attribute(gated, traced, Target(token=TOKEN), method=method, steps=steps)
    total = found.table["attribution"].sum()
    assert total == pytest.approx(float(whole - nothing), abs=0.02)
    if found.delta is not None:
        assert found.delta == pytest.approx(total - float(whole - nothing), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_ablation_is_taking_one_token_away(
    gated: skipviz.SkipModel, traced: skipviz.Trace, frozen: bool
) -> None:
    embedded, away = embeddings(gated, traced)
    gates = "frozen" if frozen else "straight_through"
    found = attribute(
        gated, traced, Target(token=TOKEN), method="feature_ablation", gates=gates, rows=31
    )
    whole = at_embeddings(gated, traced, embedded, frozen=frozen)
    for token, share in found.table.rows():
        without = embedded.clone()
        without[0, token] = away
        wanted = whole - at_embeddings(gated, traced, without, frozen=frozen)
        assert share == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.slow
def test_input_times_gradient_is_torchs_own(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    embedded, away = embeddings(gated, traced)
    embedded = embedded.clone().requires_grad_()
    plan = skipviz.Plan(traced.matrix("exec_count")[: TOKEN + 1] > 0)
    with gated.family.force(gated.model, plan):
        logits = gated.model(inputs_embeds=embedded).logits
    word = int(traced.tokens["token_id"][TOKEN + 1])
    (slope,) = torch.autograd.grad(logits[0, TOKEN].log_softmax(-1)[word], embedded)
    wanted = (slope * (embedded - away)).sum(-1)[0].detach().numpy()
    found = attribute(gated, traced, Target(token=TOKEN), method="input_x_gradient")
    np.testing.assert_allclose(found.table["attribution"].to_numpy(), wanted, atol=1e-4)


def test_a_gates_score_is_explained_and_gates_let_slopes_through_if_asked(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    target = Target(token=TOKEN, kind="score", site=5)
    frozen = attribute(gated, traced, target, steps=200)
    assert frozen.value == pytest.approx(float(traced.matrix("score")[TOKEN, 5]), abs=1e-4)
    through = attribute(gated, traced, target, gates="straight_through", method="input_x_gradient")
    plain = attribute(gated, traced, target, method="input_x_gradient")
    assert not np.allclose(through.table["attribution"], plain.table["attribution"], atol=1e-4)
    assert not any(unit.training for _, _, unit in gated_units(gated.model))


def test_kinds_of_target_agree_with_each_other(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    word = int(traced.tokens["token_id"][TOKEN + 1])

    def shares(target: Target) -> np.ndarray:
        found = attribute(gated, traced, target, method="input_x_gradient")
        return found.table["attribution"].to_numpy()

    log = shares(Target(token=TOKEN))
    np.testing.assert_allclose(shares(Target(token=TOKEN, kind="loss")), -log, atol=1e-6)
    other = shares(Target(token=TOKEN, word=7))
    contrast = shares(Target(token=TOKEN, kind="contrast", word=word, against=7))
    np.testing.assert_allclose(contrast, log - other, atol=1e-4)


def test_depth_gives_each_path_its_cells_and_adds_up(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    found = attribute_depth(gated, traced, Target(token=TOKEN, kind="loss"), steps=200)
    executed = (traced.matrix("exec_count")[: TOKEN + 1] > 0).ravel()
    table = found.table
    assert np.all(table["from_skipped"].to_numpy()[~executed] == 0)
    assert np.all(table["to_all"].to_numpy()[executed] == 0)
    ids = torch.tensor([traced.tokens["token_id"].to_list()])[:, : TOKEN + 2]

    def loss(execute: np.ndarray) -> float:
        plan = skipviz.Plan(np.concatenate([execute, execute[-1:]]))
        with torch.no_grad(), gated.family.force(gated.model, plan):
            logits = gated.model(ids).logits[0, TOKEN]
        return float(-logits.log_softmax(-1)[ids[0, -1]])

    observed = traced.matrix("exec_count")[: TOKEN + 1] > 0
    low, here, high = (loss(e) for e in (observed & False, observed, observed | True))
    assert found.value == pytest.approx(here, abs=1e-4)
    assert table["from_skipped"].sum() == pytest.approx(here - low, abs=0.05)
    assert table["to_all"].sum() == pytest.approx(high - here, abs=0.05)
    assert found.delta is not None
    assert abs(found.delta) < 0.05


@pytest.mark.long
@pytest.mark.slow
def test_steps_grow_until_shares_add_up_or_none_is_given(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    target = Target(token=TOKEN, kind="loss")
    once = attribute_depth(gated, traced, target, steps=1, within=math.inf)
    assert once.steps == (1, 1)
    assert abs(once.deltas[0]) > 0.05 * abs(once.due[0])  # one point is too few here
    assert once.table["from_skipped"].null_count() == 0
    shares: list[float] = []
    found = attribute_depth(gated, traced, target, steps=8, progress=shares.append)
    assert shares == sorted(shares)
    assert (shares[-1], len(set(shares[-9:]))) == (1, 9)  # it moves to the end
    exact = attribute_depth(gated, traced, target, steps=400)
    for path, column in enumerate(("from_skipped", "to_all")):
        assert abs(found.deltas[path]) <= 0.05 * abs(found.due[path])
        total = found.table[column].sum()
        assert total - found.deltas[path] == pytest.approx(found.due[path], abs=1e-4)
        assert exact.due[path] == pytest.approx(found.due[path], abs=1e-4)
        np.testing.assert_allclose(found.table[column], exact.table[column], atol=0.03)
    # All but nothing is due for what was skipped, though it moves on the way: that takes more.
    assert found.steps[1] > 8
    strict = attribute_depth(gated, traced, target, steps=1, within=1e-9)
    assert strict.table["from_skipped"].null_count() == strict.table.height
    assert max(strict.steps) <= 16


@pytest.mark.slow
def test_depth_ranks_planted_units_as_the_truth_does() -> None:
    gain = planted.gains(0)
    scores = np.random.default_rng(1).standard_normal(gain.shape)
    model = skipviz.from_parts(planted.model(gain, scores), planted.tokenizer())
    trace = skipviz.trace(model, planted.text(8))
    tokens = trace.tokens["token_id"].to_numpy()
    found, wanted = [], []
    for token in range(7):
        shares = attribute_depth(model, trace, Target(token=token, kind="loss")).table
        own = shares.filter(token=token)["from_skipped"] + shares.filter(token=token)["to_all"]
        found += (-own.to_numpy()[1::2]).tolist()  # executing helps where it lowers the loss
        wanted += gain.T[tokens[token]].tolist()
        others = shares.filter(token=token - 1) if token else shares.clear()
        assert others["from_skipped"].abs().sum() < 1e-6
    assert np.array_equal(np.sign(found), np.sign(wanted))
    assert stats.spearmanr(found, wanted).statistic > 0.95


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(token=999), "token=999 cannot be explained"),
        (Target(token=1, kind="contrast"), "against"),
        (Target(token=1, kind="score", site=99), "site=99 has no gate"),
    ],
)
def test_targets_that_do_not_exist_are_refused(
    gated: skipviz.SkipModel, traced: skipviz.Trace, target: Target, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        attribute(gated, traced, target)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_no_method_runs_more_tokens_at_once_than_it_may_and_each_tells_how_far_it_is(
    gated: skipviz.SkipModel, traced: skipviz.Trace, method: Method
) -> None:
    seen = TOKEN + 1
    sizes: list[int] = []
    told: list[float] = []
    layer = gated.model.model.layers[0]
    handle = layer.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        attribute(
            gated, traced, Target(token=TOKEN), method=method, steps=10, rows=3 * seen,
            progress=told.append,
        )  # fmt: skip
    finally:
        handle.remove()
    assert max(sizes) == (1 if method == "input_x_gradient" else 3)
    assert sum(sizes) - 1 == runs(method, steps=10, tokens=seen)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert told[-2] == pytest.approx(1.0)  # the total was foreseen


def test_samples_in_parts_are_the_mean_over_all(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    """Of one sample at a time, however many, the shares are the mean and so is what they miss."""
    embedded, away = embeddings(gated, traced)
    whole = at_embeddings(gated, traced, embedded)
    nothing = at_embeddings(gated, traced, away.expand_as(embedded).contiguous())
    found = attribute(
        gated, traced, Target(token=TOKEN), method="gradient_shap", steps=7, rows=2 * (TOKEN + 1)
    )
    total = found.table["attribution"].sum()
    assert found.delta == pytest.approx(total - float(whole - nothing), abs=1e-3)


def test_a_single_run_says_at_each_layer_how_far_it_is_and_can_be_stopped_there(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    layers = len(gated.model.model.layers)
    told: list[float] = []
    attribute(gated, traced, Target(token=TOKEN), method="input_x_gradient", progress=told.append)
    # Forwards for the value, forwards and backwards for the gradient.
    assert len(set(told)) == 3 * layers
    for last in (1, layers + 1, 2 * layers + 1):  # one in each of the three
        stop, seen = threading.Event(), list[float]()

        def progress(share: float, stop: Any = stop, seen: Any = seen, last: int = last) -> None:
            seen.append(share)
            if len(seen) == last:
                stop.set()

        with pytest.raises(Stopped):
            attribute(
                gated, traced, Target(token=TOKEN), method="input_x_gradient", stop=stop,
                progress=progress,
            )  # fmt: skip
        assert len(seen) == last


def test_a_run_can_be_stopped(gated: skipviz.SkipModel, traced: skipviz.Trace) -> None:
    stop = threading.Event()
    with pytest.raises(Stopped):
        attribute(
            gated, traced, Target(token=TOKEN), steps=50, rows=1, stop=stop,
            progress=lambda share: stop.set() if share > 0.1 else None,
        )  # fmt: skip
    with pytest.raises(Stopped):
        attribute_depth(gated, traced, stop=stop)
    assert not any(unit.training for _, _, unit in gated_units(gated.model))
    again = skipviz.trace(gated, TEXT)
    assert np.array_equal(again.matrix("score"), traced.matrix("score"))


@pytest.mark.slow
def test_the_whole_texts_shares_are_the_sum_of_its_tokens(
    gated: skipviz.SkipModel,
) -> None:
    traced = skipviz.trace(gated, TEXT[:12])
    whole = attribute_depth(gated, traced, steps=3, within=math.inf)
    predicting = len(traced) - 1
    assert whole.table["token"].to_list() == np.repeat(range(predicting), 8).tolist()
    assert whole.value == pytest.approx(traced.tokens["nll"].sum(), abs=1e-3)
    for path in ("from_skipped", "to_all"):
        summed = np.zeros((predicting, traced.sites.height))
        for token in range(predicting):
            shares = attribute_depth(
                gated, traced, Target(token=token, kind="loss"), steps=3, within=math.inf
            )
            summed[: token + 1] += shares.table[path].to_numpy().reshape(token + 1, -1)
        np.testing.assert_allclose(whole.table[path].to_numpy(), summed.ravel(), atol=1e-4)


def test_flips_beside_shares_are_those_of_the_audit(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    every = skipviz.audit(gated, traced)
    own = flips_beside(gated, traced, TOKEN, seed=0)
    assert_frame_equal(own, every.filter(pl.col("token") == TOKEN), abs_tol=1e-5)
    far = skipviz.audit(gated, traced, horizon=None)
    some = flips_beside(gated, traced, sample=20, seed=0)
    assert some.height == 20
    assert_frame_equal(some, far.join(some, on=["token", "site"], how="semi"), abs_tol=1e-5)
    assert flips_beside(gated, traced, sample=9999, seed=0).height == far.height


def test_depth_needs_gates(dense: skipviz.SkipModel) -> None:
    with pytest.raises(ValueError, match="no gated units"):
        attribute_depth(dense, skipviz.trace(dense, TEXT))


def test_depth_needs_gates_on_units() -> None:
    model = skipviz.from_parts(with_exits(), tiny.tokenizer())
    traced = skipviz.trace(model, tiny.TEXT)
    with pytest.raises(ValueError, match="no gated units"):
        attribute_depth(model, traced)
    with pytest.raises(ValueError, match="has no gate at site 0 whose score comes from the text"):
        attribute(model, traced, Target(kind="score", token=TOKEN, site=0))


@pytest.mark.parametrize("gates", ["frozen", "straight_through"])
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_a_policy_that_does_not_look_can_be_explained(gates: Gates, rate: float) -> None:
    model = fixed([rate] * 8)
    traced = skipviz.trace(model, tiny.TEXT)
    target = Target(token=TOKEN)
    found = attribute(model, traced, target, method="feature_ablation", gates=gates)
    # Explained from embeddings, with the decisions that its tokens drew.
    assert found.value == pytest.approx(-traced.tokens["nll"][TOKEN], abs=1e-4)
    assert found.table["attribution"].abs().max() > 1e-3
    with pytest.raises(ValueError, match="whose score comes from the text"):
        attribute(model, traced, Target(kind="score", token=TOKEN, site=0))
