from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import skipviz
from skipviz.experiments.hidden_states.attention_paid import attention_paid
from skipviz.experiments.hidden_states.states import record_states
from skipviz.families.gated.modules import gated_units
from skipviz.recording.statistics import token_statistics
from skipviz.recording.windows import plan_windows
from tests import tiny

TEXTS = [tiny.TEXT, "Short.", tiny.TEXT[:40]]


def by_hand(model: skipviz.SkipModel, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Decisions and losses from a plain loop over the layers, without hooks or wrappers."""
    llama = model.model.model
    hidden = llama.embed_tokens(torch.tensor([ids]))
    position = torch.arange(len(ids))[None]
    rotary = llama.rotary_emb(hidden, position)
    decisions = []
    for layer in llama.layers:
        for norm, unit in (
            (layer.input_layernorm, layer.self_attn),
            (layer.post_attention_layernorm, layer.mlp),
        ):
            state = norm(hidden)
            inner = getattr(unit, "unit", unit)
            full = (
                inner(state, position_embeddings=rotary)
                if unit is layer.self_attn
                else inner(state)
            )
            full = full[0] if isinstance(full, tuple) else full
            if unit is not inner:
                score = unit.gate.up(torch.nn.functional.gelu(unit.gate.down(state)))[0, :, 0]
                run = score > unit.decide.threshold
                decisions.append(run.numpy())
                low = unit.adapter.up(unit.adapter.down(state))
                full = torch.stack([full[0, t] if run[t] else low[0, t] for t in range(len(ids))])[
                    None
                ]
            hidden = hidden + full
    logits = model.model.lm_head(llama.norm(hidden))[0]
    losses = [-torch.log_softmax(logits[t], -1)[ids[t + 1]].item() for t in range(len(ids) - 1)]
    return np.stack(decisions, axis=1), np.array(losses)


@torch.inference_mode()
def test_trace_equals_a_loop_written_by_hand(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    decisions, losses = by_hand(gated, trace.tokens["token_id"].to_list())
    executed = trace.matrix("exec_count")
    assert 0.1 < executed.mean() < 0.9, "the tiny model should decide both ways"
    np.testing.assert_array_equal(executed, decisions)
    np.testing.assert_allclose(trace.tokens["nll"].to_numpy()[:-1], losses, atol=1e-4)
    assert trace.tokens["nll"][-1] is None
    np.testing.assert_array_equal(
        trace.tokens["surprisal"].to_numpy()[1:], trace.tokens["nll"].to_numpy()[:-1]
    )


@torch.inference_mode()
def test_statistics_are_those_of_the_model(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    probabilities = gated.model(ids, use_cache=False).logits[0].softmax(-1)
    entropy = -(probabilities * probabilities.log()).sum(-1)
    np.testing.assert_allclose(trace.tokens["entropy"].to_numpy(), entropy, atol=1e-4)
    top = probabilities.topk(5)
    np.testing.assert_array_equal(trace.tokens["top_ids"].to_numpy(), top.indices)
    np.testing.assert_allclose(trace.tokens["top_probs"].to_numpy(), top.values, atol=1e-5)


def test_layers_used_counts_halves_and_ungated_layers(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    executed = trace.matrix("exec_count")
    expected = [2 + 0.5 * sum(row) for row in executed.tolist()]
    assert trace.tokens["layers_used"].to_list() == expected
    layers = trace.sites["layer"].to_list()
    deepest = [max((at for at, e in zip(layers, row, strict=True) if e), default=None)
               for row in executed.tolist()]  # fmt: skip
    assert trace.tokens["exit_depth"].to_list() == deepest


def test_forcing_what_was_observed_reproduces_it(gated: skipviz.SkipModel) -> None:
    seen = skipviz.trace(gated, tiny.TEXT)
    plan = skipviz.Plan(seen.matrix("exec_count").astype(bool))
    again = skipviz.trace(gated, tiny.TEXT, plan=plan)
    np.testing.assert_array_equal(again.matrix("score"), seen.matrix("score"))
    assert again.tokens["nll"].equals(seen.tokens["nll"])
    assert again.matrix("forced").all()
    assert again.run["policy"].item() == "forced"


def test_a_plan_may_force_some_cells_only(gated: skipviz.SkipModel) -> None:
    seen = skipviz.trace(gated, tiny.TEXT)
    execute = ~seen.matrix("exec_count").astype(bool)
    forced = np.zeros_like(execute)
    forced[3, 0] = True
    flipped = skipviz.trace(gated, tiny.TEXT, plan=skipviz.Plan(execute, forced))
    assert flipped.matrix("exec_count")[3, 0] != seen.matrix("exec_count")[3, 0]
    np.testing.assert_array_equal(flipped.matrix("forced"), forced)
    # Nothing before the flip can change.
    np.testing.assert_array_equal(flipped.matrix("score")[:3], seen.matrix("score")[:3])


def test_a_plan_of_the_wrong_size_is_refused(gated: skipviz.SkipModel) -> None:
    sites = len(gated.family.sites(gated.model))
    tokens = len(skipviz.trace(gated, tiny.TEXT))
    with pytest.raises(ValueError, match="The plan decides 2 tokens"):
        skipviz.trace(gated, tiny.TEXT, plan=skipviz.Plan(np.ones((2, sites), dtype=bool)))
    with pytest.raises(ValueError, match="The plan decides 3 sites"):
        skipviz.trace(gated, tiny.TEXT, plan=skipviz.Plan(np.ones((tokens, 3), dtype=bool)))


def test_batches_pad_without_changing_a_decision(gated: skipviz.SkipModel) -> None:
    together = skipviz.trace(gated, TEXTS)
    for number, text in enumerate(TEXTS):
        alone = skipviz.trace(gated, text)
        rows = (together.tokens["sequence"] == number).to_numpy()
        np.testing.assert_array_equal(
            together.matrix("exec_count")[rows], alone.matrix("exec_count")
        )
        np.testing.assert_allclose(together.matrix("score")[rows], alone.matrix("score"), atol=1e-5)
        np.testing.assert_allclose(
            together.tokens["nll"].to_numpy()[rows], alone.tokens["nll"].to_numpy(), atol=1e-5
        )


def test_windows_overlap_and_say_so(gated: skipviz.SkipModel) -> None:
    text = tiny.TEXT * 12
    trace = skipviz.trace(gated, text, window=64, overlap=16)
    run = trace.run.row(0, named=True)
    assert (run["window"], run["window_overlap"]) == (64, 16)
    context = trace.tokens["context"].to_list()
    assert context[:64] == list(range(1, 65))
    assert min(context[64:]) == 17
    assert "".join(trace.tokens["text"].to_list()) == text
    # A token after the first window is what a run over its window alone gives.
    ids = trace.tokens["token_id"].to_list()
    decisions, losses = by_hand(gated, ids[48:112])
    np.testing.assert_array_equal(trace.matrix("exec_count")[64:112], decisions[16:])
    np.testing.assert_allclose(trace.tokens["nll"].to_numpy()[64:111], losses[16:63], atol=1e-4)
    assert trace.tokens["nll"].null_count() == 1


@given(tokens=st.integers(1, 500), window=st.integers(2, 100), share=st.floats(0, 0.99))
def test_windows_report_every_token_once(tokens: int, window: int, share: float) -> None:
    overlap = int(window * share)
    reported = [
        token
        for part in plan_windows(tokens, window=window, overlap=overlap)
        for token in range(part.report, part.stop)
    ]
    assert reported == list(range(tokens))


def test_stopping_leaves_no_hook(gated: skipviz.SkipModel) -> None:
    stop = threading.Event()
    shares: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        if share > 0.4:
            stop.set()

    with pytest.raises(skipviz.Stopped):
        skipviz.trace(gated, tiny.TEXT, progress=progress, stop=stop)
    assert 0.4 < shares[-1] < 0.8
    assert not any(module._forward_hooks for module in gated.model.modules())
    shares.clear()
    skipviz.trace(gated, tiny.TEXT, progress=shares.append)
    assert shares[-1] == pytest.approx(1.0)
    assert shares == sorted(shares)


def test_a_dense_model_has_no_sites(dense: skipviz.SkipModel) -> None:
    trace = skipviz.trace(dense, tiny.TEXT)
    assert trace.sites.height == 0
    assert trace.decisions.height == 0
    assert set(trace.tokens["layers_used"]) == {float(tiny.LAYERS)}


def test_statistics_can_be_left_out(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT, statistics=False)
    assert trace.tokens["nll"].null_count() == len(trace)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(text=st.text(min_size=1, max_size=30).filter(lambda t: t.strip()))
def test_spans_give_the_text_back(text: str) -> None:
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return
    model = skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer())
    tokens = skipviz.trace(model, text, statistics=False).tokens
    spans: dict[int, list[int]] = {}
    for span, start, end in tokens.select("span", "char_start", "char_end").iter_rows():
        bounds = spans.setdefault(span, [start, end])
        bounds[1] = max(bounds[1], end)
    assert "".join(text[start:end] for start, end in spans.values()) == text


def test_control_tokens_typed_by_a_user_stay_text(gated: skipviz.SkipModel) -> None:
    tokens = skipviz.trace(gated, "a <|im_start|> b").tokens
    special = set(gated.tokenizer.all_special_ids)
    assert not special & set(tokens["token_id"])


def test_numbers_that_are_none_are_named_with_layer_and_token() -> None:
    broken = tiny.backbone(seed=0)
    with torch.no_grad():
        broken.model.layers[2].mlp.down_proj.weight[0, 0] = torch.nan
    model = skipviz.from_parts(broken, tiny.tokenizer(), name="broken")
    with pytest.raises(skipviz.ModelError, match=r"broken gives NaN .* from layer 2 on, .*token 0"):
        skipviz.trace(model, tiny.TEXT)


def test_a_gate_that_gives_nan_is_named() -> None:
    broken = tiny.gated(seed=0)
    unit = list(gated_units(broken))[2][2]
    with torch.no_grad():
        unit.gate.up.bias.fill_(torch.nan)
    model = skipviz.from_parts(broken, tiny.tokenizer(), name="broken")
    with pytest.raises(skipviz.ModelError, match=r"gate L2\.attn of broken gives NaN .*'The'"):
        skipviz.trace(model, tiny.TEXT)


def test_a_model_in_training_mode_is_refused() -> None:
    model = skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer())
    made = skipviz.trace(model, tiny.TEXT)
    target = skipviz.Target(token=3)
    model.model.model.layers[2].train()  # one layer is enough
    asked: list[Callable[[], Any]] = [
        lambda: skipviz.trace(model, tiny.TEXT),
        lambda: skipviz.generate(model, tiny.TEXT, max_new_tokens=1),
        lambda: skipviz.audit(model, made),
        lambda: skipviz.what_if(model, made, threshold=0.1),
        lambda: skipviz.attribute(model, made, target),
        lambda: skipviz.attribute_depth(model, made),
        lambda: record_states(model, made, most=4),
        lambda: attention_paid(model, made, most=4),
    ]
    for ask in asked:
        with pytest.raises(skipviz.InputError, match="training mode, in which dropout"):
            ask()
    model.model.eval()
    assert skipviz.trace(model, tiny.TEXT).tokens["nll"].equals(made.tokens["nll"])


def test_words_that_are_forbidden_leave_an_entropy(dense: skipviz.SkipModel) -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    found = token_statistics(logits, torch.tensor([1]))
    chance = logits.softmax(-1)[0, :2]
    assert found.entropy.item() == pytest.approx(float(-(chance * chance.log()).sum()))
