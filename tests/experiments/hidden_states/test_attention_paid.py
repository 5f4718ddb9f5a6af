"""Attention to skipping tokens against loops over layers, heads and tokens."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.experiments.hidden_states.attention_paid import attention_paid
from skipviz.families.gated.modules import GatedUnit, gated_units, install_gates
from skipviz.text.spans import encode
from tests import tiny
from tests.families.exits.test_family import with_exits

TEXT = tiny.TEXT[:40]


def gated_of(kind: str) -> skipviz.SkipModel:
    made = tiny.of_kind(kind)
    install_gates(made, tiny.GATES)
    for _, _, unit in gated_units(made):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
        torch.nn.init.zeros_(unit.gate.up.bias)
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    return skipviz.from_parts(made, tiny.tokenizer(), name=f"tiny-{kind}")


def weights_of(model: skipviz.SkipModel, trace: skipviz.Trace) -> list[npt.NDArray[np.float32]]:
    """Attention of every layer by transformers itself, [heads, tokens, tokens]."""
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model.model(ids, output_attentions=True, use_cache=False).attentions
    model.model.set_attn_implementation("sdpa")
    return [each[0].numpy() for each in found]


def ran_of(trace: skipviz.Trace, layer: int) -> npt.NDArray[np.bool_]:
    site = trace.sites.filter(layer=layer)["site"][0]
    ran: npt.NDArray[np.bool_] = trace.matrix("exec_count")[:, site] > 0
    return ran


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
def test_shares_are_those_of_the_models_own_weights(kind: str) -> None:
    model = gated_of(kind)
    trace = skipviz.trace(model, TEXT)
    layers = attention_paid(model, trace, seed=0).layers
    weights = weights_of(model, trace)
    assert layers["layer"].to_list() == [1, 2, 3, 4]
    for row in layers.rows(named=True):
        ran = ran_of(trace, row["layer"])
        first, own, earlier, paid, blind = [], [], [], 0.0, 0.0
        for token in range(2, len(trace)):
            if not ran[token]:
                continue
            mean = weights[row["layer"]].mean(axis=0)[token]
            first.append(mean[0])
            own.append(mean[token])
            earlier.append(sum(mean[1:token]))
            paid += sum(mean[other] for other in range(1, token) if not ran[other])
            blind += earlier[-1] * np.mean([not ran[other] for other in range(1, token)])
        assert row["tokens"] == len(first)
        assert row["first"] == pytest.approx(np.mean(first), abs=1e-5)
        assert row["own"] == pytest.approx(np.mean(own), abs=1e-5)
        assert row["earlier"] == pytest.approx(np.mean(earlier), abs=1e-5)
        assert row["paid"] == pytest.approx(paid / sum(earlier), abs=1e-5)
        assert row["blind"] == pytest.approx(blind / sum(earlier), abs=1e-5)
    assert (layers["paid"] > 0).all()


def by_hand(model: Any, trace: skipviz.Trace, *, hidden: bool) -> tuple[list[float], list[Tensor]]:
    """Losses of a Llama, one token and head after another, and what each attention gave."""
    ids = torch.tensor(trace.tokens["token_id"].to_list())
    length, decided = len(ids), trace.matrix("exec_count") > 0
    state = model.model.embed_tokens(ids)
    cosine, sine = model.model.rotary_emb(state[None], torch.arange(length)[None])
    outputs, site = [], 0
    for layer in model.model.layers:
        for name, norm in (("self_attn", "input_layernorm"), ("mlp", "post_attention_layernorm")):
            module, normed = getattr(layer, name), getattr(layer, norm)(state)
            gated = isinstance(module, GatedUnit)
            ran = decided[:, site] if gated else np.ones(length, dtype=bool)
            unit = module.unit if gated else module
            if name == "mlp":
                output = unit(normed)
            else:
                gone = [token for token in range(1, length) if not ran[token] and hidden]
                output = attend(unit, normed, cosine[0], sine[0], gone)
                outputs.append(output)
            keep = torch.from_numpy(ran)[:, None]
            state = state + (torch.where(keep, output, module.adapter(normed)) if gated else output)
            site += gated
    log = model.lm_head(model.model.norm(state)).log_softmax(-1)
    return [-float(log[i, ids[i + 1]]) for i in range(length - 1)], outputs


def attend(unit: Any, normed: Tensor, cosine: Tensor, sine: Tensor, gone: list[int]) -> Tensor:
    def turned(heads: Tensor) -> Tensor:
        left, right = heads.chunk(2, dim=-1)
        return heads * cosine[:, None] + torch.cat([-right, left], -1) * sine[:, None]

    width = unit.head_dim
    query = turned(unit.q_proj(normed).view(len(normed), -1, width))
    key = turned(unit.k_proj(normed).view(len(normed), -1, width))
    value = unit.v_proj(normed).view(len(normed), -1, width)
    each = query.shape[1] // key.shape[1]
    rows = []
    for token in range(len(normed)):
        others = [other for other in range(token + 1) if other == token or other not in gone]
        heads = []
        for head in range(query.shape[1]):
            scores = key[others, head // each] @ query[token, head] / width**0.5
            heads.append(scores.softmax(0) @ value[others, head // each])
        rows.append(torch.cat(heads))
    found: Tensor = unit.o_proj(torch.stack(rows))
    return found


def test_losses_and_changes_are_those_of_a_loop_by_hand() -> None:
    model = gated_of("Llama")
    trace = skipviz.trace(model, TEXT)
    found = attention_paid(model, trace, seed=0)
    with torch.no_grad():
        nll, outputs = by_hand(model.model, trace, hidden=False)
        hidden_nll, _ = by_hand(model.model, trace, hidden=True)
        assert found.losses["token"].to_list() == list(range(len(trace) - 1))
        assert found.losses["nll"].to_numpy() == pytest.approx(np.array(nll), abs=1e-4)
        assert found.losses["hidden_nll"].to_numpy() == pytest.approx(
            np.array(hidden_nll), abs=1e-4
        )
        assert np.abs(np.subtract(nll, hidden_nll)).max() > 0.01
        # Only at the first gated layer is all before it as it was.
        row = found.layers.row(0, named=True)
        ran = ran_of(trace, 1)
        _, without = by_hand(model.model, trace, hidden=True)
        change = (without[1] - outputs[1]).norm(dim=-1) / outputs[1].norm(dim=-1)
        wanted = change.numpy()[[t for t in range(2, len(trace)) if ran[t]]].mean()
        assert row["changed"] == pytest.approx(wanted, abs=1e-4)
        assert wanted > 0.01


def test_each_text_and_each_window_is_for_itself(gated: skipviz.SkipModel) -> None:
    texts = [tiny.TEXT, TEXT]
    trace = skipviz.trace(gated, texts)
    together = attention_paid(gated, trace, seed=0).losses
    texts_of = trace.tokens["sequence"].gather(together["token"])
    assert together["sequence"].to_list() == texts_of.to_list()
    assert together["sequence"].n_unique() == 2
    apart = [attention_paid(gated, skipviz.trace(gated, text), seed=0).losses for text in texts]
    wanted = np.concatenate([each["hidden_nll"].to_numpy() for each in apart])
    assert together["hidden_nll"].to_numpy() == pytest.approx(wanted, abs=1e-4)
    trace = skipviz.trace(gated, tiny.TEXT, window=16, overlap=6)
    found = attention_paid(gated, trace, seed=0)
    assert found.losses["token"].to_list() == list(range(len(trace) - 1))
    known = trace.tokens["nll"].drop_nulls().to_numpy()
    assert found.losses["nll"].to_numpy() == pytest.approx(known, abs=1e-4)
    assert found.layers["tokens"].max() <= len(trace) - 2


def test_nothing_changes_where_nothing_is_skipped(gated: skipviz.SkipModel) -> None:
    for _, _, unit in gated_units(gated.model):
        unit.decide.threshold.fill_(-1e9)
    found = attention_paid(gated, skipviz.trace(gated, TEXT), seed=0)
    assert (found.losses["nll"] == found.losses["hidden_nll"]).all()
    assert (found.layers["paid"] == 0).all()
    assert (found.layers["changed"] == 0).all()


def test_layers_that_no_token_runs_are_left_out(gated: skipviz.SkipModel) -> None:
    for layer, _, unit in gated_units(gated.model):
        unit.decide.threshold.fill_(1e9 if layer == 2 else 0.0)
    found = attention_paid(gated, skipviz.trace(gated, TEXT), seed=0)
    assert 2 not in found.layers["layer"].to_list()
    assert np.isfinite(found.losses["hidden_nll"].to_numpy()).all()


def test_tokens_that_left_are_seen_by_those_that_stay() -> None:
    model = skipviz.from_parts(with_exits(), tiny.tokenizer(), name="tiny-exits")
    trace = skipviz.trace(model, tiny.TEXT)
    found = attention_paid(model, trace, seed=0)
    weights = weights_of(model, trace)
    row = found.layers.row(0, named=True)
    assert row["layer"] == 2
    ran = ran_of(trace, 2)
    mean = weights[2].mean(axis=0)
    rows = [token for token in range(2, len(trace)) if ran[token]]
    paid = sum(mean[t, o] for t in rows for o in range(1, t) if not ran[o])
    earlier = sum(mean[t, o] for t in rows for o in range(1, t))
    assert row["paid"] == pytest.approx(paid / earlier, abs=1e-5)
    assert (found.losses["nll"] - found.losses["hidden_nll"]).abs().max() > 1e-4


def test_of_many_tokens_some_are_looked_at(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    found = attention_paid(gated, trace, most=9, seed=0)
    assert found.layers["tokens"].max() <= 9
    assert found.losses.height == len(trace) - 1


def test_what_cannot_be_looked_at_is_refused(
    dense: skipviz.SkipModel, gated: skipviz.SkipModel
) -> None:
    with pytest.raises(ValueError, match="No attention of tiny-dense can be skipped"):
        attention_paid(dense, skipviz.trace(dense, TEXT), seed=0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(skipviz.Stopped):
        attention_paid(gated, skipviz.trace(gated, TEXT), seed=0, stop=stop)


def test_a_model_that_decides_otherwise_is_refused(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    with torch.no_grad():
        for _, _, unit in gated_units(gated.model):
            unit.gate.up.bias.sub_(100)
    with pytest.raises(ValueError, match=r"decisions came out otherwise.*tiny-gated"):
        attention_paid(gated, trace, seed=0)


def test_a_single_token_has_nothing_before_it(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, "a")
    assert len(encode(tiny.tokenizer(), "a").ids) == 1
    found = attention_paid(gated, trace, seed=0)
    assert found.layers.is_empty()
    assert found.losses.is_empty()
