"""Gates that are described: what each field does, on planted modules whose decisions are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import skipviz
from skipviz.families.described.reading import read_gate, with_decisions
from skipviz.families.described.spec import gate_spec, gate_specs_in, read_gate_specs, to_fields
from tests import published, tiny

MODULE = "model.layers.{layer}.router"
SHAPE = (2, 5)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def ran(value: Tensor, **fields: Any) -> list[list[int]]:
    given = {name: fields.pop(name) for name in ("mask",) if name in fields}
    spec = skipviz.GateSpec(module=MODULE, **fields)
    found = read_gate(spec, value, shape=SHAPE, threshold=spec.threshold, k=spec.k, **given)
    listed: list[list[int]] = found.ran.int().tolist()
    return listed


def test_rules_decide_as_they_are_named() -> None:
    value = numbers(*SHAPE, 1)
    score = value[..., 0]
    assert ran(value) == (score > 0).int().tolist()
    assert ran(value, executes="low", threshold=0.3) == (score < 0.3).int().tolist()
    assert ran(value, activation="sigmoid", threshold=0.6) == (
        score.sigmoid() > 0.6
    ).int().tolist()  # fmt: skip
    assert ran(value, activation="tanh", threshold=-0.2) == (score.tanh() > -0.2).int().tolist()
    exact = torch.tensor([[[0.5], [0.4]], [[0.6], [0.5]]])
    spec = skipviz.GateSpec(module=MODULE, rule="ge", threshold=0.5)
    assert read_gate(spec, exact, shape=(2, 2), threshold=0.5).ran.tolist() == [
        [True, False],
        [True, True],
    ]


def test_one_of_several_numbers_is_the_score() -> None:
    value = numbers(*SHAPE, 3)
    assert ran(value, pick=2) == (value[..., 2] > 0).int().tolist()
    assert ran(value, rule="argmax", executes=1) == (value.argmax(-1) == 1).int().tolist()
    two = value[..., :2]
    assert ran(two, pick="difference") == (two[..., 1] > two[..., 0]).int().tolist()
    chance = read_gate(
        skipviz.GateSpec(module=MODULE, rule="argmax", executes=0, activation="softmax"),
        value, shape=SHAPE,
    ).p_execute  # fmt: skip
    assert chance is not None
    assert torch.allclose(chance, value.softmax(-1)[..., 0])


def test_ranked_tokens() -> None:
    value = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    apart = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0], [1.2, 1.1, 1.0, 0.1, 0.0]])
    assert ran(apart, rule="topk", k=2) == [[0, 0, 0, 1, 1], [1, 1, 0, 0, 0]]
    assert ran(apart, rule="topk", k=0.4) == [[0, 0, 0, 1, 1], [1, 1, 0, 0, 0]]
    assert ran(value, rule="topk", k=3, strict=True) == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert ran(value, rule="topk", k=1, strict=True) == [[0, 0, 0, 1, 0], [1, 1, 1, 0, 0]]
    assert ran(apart, rule="topk", k=2, executes="low") == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert ran(value, rule="topk", k=1.0) == [[1] * 5, [1] * 5]
    assert ran(value, rule="quantile", k=0.5) == (value > value.quantile(0.5)).int().tolist()


def test_a_mask_is_the_decision() -> None:
    value, mask = numbers(*SHAPE), torch.tensor([[1, 0, 2, 1, 0], [0, 0, 1, 1, 1]])
    spec = skipviz.GateSpec(module=MODULE, rule="sample", mask=":mask")
    assert read_gate(spec, value, shape=SHAPE, mask=mask).ran.tolist() == mask.tolist()
    skips = skipviz.GateSpec(module=MODULE, rule="sample", mask=":mask", mask_executes=0)
    kept = mask.clamp(max=1)
    assert read_gate(skips, value, shape=SHAPE, mask=kept).ran.tolist() == (1 - kept).tolist()


def test_a_mask_may_be_of_any_kind_but_holds_decisions() -> None:
    value, decided = numbers(*SHAPE), numbers(*SHAPE) > 0
    spec = skipviz.GateSpec(module=MODULE, mask=":mask")

    def read(mask: Any) -> Tensor:
        return read_gate(spec, value, shape=SHAPE, threshold=0.0, mask=mask).ran

    soft = value.sigmoid()
    through = decided.float() - soft + soft  # as where gradients pass through
    for mask in (decided, decided[..., None], decided.tolist(), through):
        assert torch.equal(read(mask).bool(), decided)
    for mask, said in (
        (soft, "not weights|Point to the decisions"),
        (-decided.float(), "how often the unit ran"),
        (torch.full(SHAPE, torch.nan), "how often the unit ran"),
        (torch.nn.functional.one_hot(decided.long()), r"shape \(2, 5, 2\)"),
        ("yes", "gives a str"),
    ):
        with pytest.raises(skipviz.RecordingError, match=said):
            read(mask)


@pytest.mark.parametrize("k", [0, -3, 2.0, float("nan"), None, "two"])
def test_a_path_to_nonsense_is_a_sentence(k: Any) -> None:
    spec = skipviz.GateSpec(module=MODULE, rule="topk", k=":k")
    with pytest.raises(skipviz.RecordingError, match=r"GateSpec\.k gives"):
        read_gate(spec, numbers(*SHAPE), shape=SHAPE, k=k)
    plain = skipviz.GateSpec(module=MODULE, threshold=":limit")
    with pytest.raises(skipviz.RecordingError, match=r"GateSpec\.threshold gives"):
        read_gate(plain, numbers(*SHAPE), shape=SHAPE, threshold=k if k is None else torch.nan)


def test_a_share_of_the_tokens_is_taken_as_it_is_written() -> None:
    value = numbers(1, 10)
    spec = skipviz.GateSpec(module=MODULE, rule="topk", k=0.7)
    assert read_gate(spec, value, shape=(1, 10), k=spec.k).ran.sum() == int(0.7 * 10) == 7


def test_a_threshold_between_scores_that_a_sigmoid_makes_alike_is_unknown() -> None:
    spec = skipviz.GateSpec(module=MODULE, rule="topk", k=2, activation="sigmoid")
    found = read_gate(spec, torch.tensor([[40.0, 30.0, 50.0, 20.0]]), shape=(1, 4), k=2)
    assert found.threshold is not None
    assert found.threshold.isnan().all()  # not infinity, above which nothing could have run


def test_layers_may_be_listed_in_any_way() -> None:
    for layers in ([1, 2], range(1, 3), (1, 2)):
        given: Any = layers
        assert skipviz.GateSpec(module=MODULE, layers=given).layers == (1, 2)


@torch.inference_mode()
@pytest.mark.parametrize("read", ["output.nowhere", ":nowhere"])
def test_a_description_that_is_wrong_leaves_the_users_run_alone(read: str) -> None:
    spec = skipviz.GateSpec(module="model.layers.{layer}.switch", read=read)
    model = skipviz.from_parts(own_model(), tiny.tokenizer(), family=spec)
    ids = torch.tensor([[5, 6, 7]])
    plain = model.model(ids).logits
    with pytest.raises(skipviz.RecordingError, match="no 'nowhere'"), skipviz.record(model):
        recorded = model.model(ids).logits
    assert torch.equal(plain, recorded)


def test_a_decision_for_a_text_holds_for_its_tokens() -> None:
    value = torch.tensor([[0.5], [-0.5]])
    assert ran(value, scope="sequence") == [[1] * 5, [0] * 5]


@pytest.mark.parametrize("high", [True, False])
@pytest.mark.parametrize("fields", [
    {"threshold": 0.2},
    {"activation": "sigmoid", "threshold": 0.4},
    {"executes": "low", "threshold": -0.1},
    {"rule": "ge", "threshold": 0.5, "probabilities": True},
    {"pick": 1, "numbers": 2},
    {"pick": "difference", "numbers": 2},
    {"pick": "difference", "numbers": 2, "executes": "low"},
    {"rule": "argmax", "executes": 2, "numbers": 3},
])  # fmt: skip
def test_what_is_emitted_instead_decides_as_wanted(fields: dict[str, Any], high: bool) -> None:
    fields = dict(fields)
    count, within = fields.pop("numbers", 1), fields.pop("probabilities", False)
    spec = skipviz.GateSpec(module=MODULE, **fields)
    value = numbers(*SHAPE, count)
    value = value.sigmoid() if within else value
    wanted = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) > 0.5
    change = torch.ones_like(wanted) if high else wanted
    made = with_decisions(spec, value, wanted, change=change, threshold=spec.threshold)
    found = read_gate(spec, made, shape=SHAPE, threshold=spec.threshold)
    assert torch.equal(found.ran[change], wanted[change])
    assert torch.equal(made[~change], value[~change])
    assert not within or ((made >= 0).all() and (made <= 1).all())


class OwnLayer(LlamaDecoderLayer):
    """A layer whose router gives a pair beside its decisions, a high score skipping."""

    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config, number)
        self.switch = Switch(config.hidden_size)
        self.truth: Tensor | None = None

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        skips = self.switch(hidden_states)["scores"][..., 1] > self.switch.limit
        self.truth = ~skips
        return torch.where(
            skips[..., None], hidden_states, super().forward(hidden_states, **kwargs)
        )


class Switch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)
        self.register_buffer("limit", torch.tensor(0.1))

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        return {"scores": self.linear(states)}


def own_model() -> Any:
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    model.model.layers = nn.ModuleList(OwnLayer(model.config, n) for n in range(tiny.LAYERS))
    return model.eval()


def test_a_model_nobody_prepared_is_read_by_a_few_words(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(
        "module: model.layers.{layer}.switch\nread: output.scores\npick: 1\nexecutes: low\n"
        'threshold: ":limit"\nskip_path: identity\nlayers: [0, 2, 3]\n'
    )
    specs = read_gate_specs(path)
    model = skipviz.from_parts(own_model(), tiny.tokenizer(), family=specs)
    trace = skipviz.trace(model, tiny.TEXT)
    noted = published.truth_of(model.model)
    wanted = np.stack([noted[layer, "block"][0].numpy() for layer in (0, 2, 3)], axis=1)
    assert np.array_equal(trace.matrix("exec_count") > 0, wanted)
    assert 0 < wanted.mean() < 1
    assert np.array_equal(trace.margin > 0, wanted)
    assert [gate_spec(to_fields(spec)) for spec in specs] == list(specs)


def test_a_model_that_looks_like_skipping_is_not_called_dense() -> None:
    with pytest.raises(skipviz.ModelError, match=r"model.layers.\{layer\}.switch"):
        skipviz.from_parts(own_model(), tiny.tokenizer())
    patched: Any = tiny.backbone(seed=0)
    patched.model.layers[2].exit_gate = nn.Linear(32, 1)
    with pytest.raises(skipviz.ModelError, match="looks like a skipping model"):
        skipviz.from_parts(patched, tiny.tokenizer())
    from skipviz.families.dense import Dense

    assert skipviz.from_parts(patched, tiny.tokenizer(), family=Dense()).family.name == "dense"


def test_stock_models_are_dense() -> None:
    for kind in ("Qwen3", "Gemma2", "Mixtral", "Olmoe", "Qwen3Moe"):
        model = tiny.of_kind(kind)
        assert skipviz.from_parts(model, tiny.tokenizer()).family.name == "dense"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "module is missing"),
        ({"module": "router"}, "must have {layer} in it once"),
        ({"module": MODULE, "rul": "gt"}, "did you mean rule"),
        ({"module": MODULE, "rule": "above"}, "rule='above' is not one of gt, ge"),
        ({"module": MODULE, "unit": "head"}, "unit='head' is not one of"),
        ({"module": MODULE, "threshold": float("nan")}, "threshold=nan must be finite"),
        ({"module": MODULE, "threshold": "0.5"}, "must be a number or a path"),
        ({"module": MODULE, "threshold": True}, "must be a number or a path"),
        ({"module": MODULE, "activation": "sigmoid", "threshold": 2}, "between 0 and 1"),
        ({"module": MODULE, "rule": "topk"}, "k=None must be"),
        ({"module": MODULE, "rule": "topk", "k": 1.5}, "k=1.5 must be"),
        ({"module": MODULE, "rule": "quantile", "k": 1}, "share of tokens that skip"),
        ({"module": MODULE, "rule": "sample"}, "mask is missing"),
        ({"module": MODULE, "rule": "argmax"}, "number of the class"),
        ({"module": MODULE, "executes": 1}, "must be high or low"),
        ({"module": MODULE, "activation": "softmax"}, "belongs to the rule argmax"),
        ({"module": MODULE, "layers": [1, -2]}, "list of layers"),
        ({"module": MODULE, "layers": "all"}, "list of layers"),
        ({"module": MODULE, "read": "weights"}, "must begin with output or input"),
        ({"module": MODULE, "mask": "weights"}, "path to the decisions"),
        ({"module": MODULE, "pick": "first"}, "pick='first'"),
        ("a router", "has fields such as"),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields: Any, message: str) -> None:
    with pytest.raises(skipviz.InputError, match=message):
        gate_spec(fields)


def test_gates_stand_in_the_order_in_which_they_run_whatever_that_of_their_descriptions() -> None:
    described = [
        skipviz.GateSpec(
            module=f"model.layers.{{layer}}.router_{name}", unit=unit, rule="argmax", executes=0
        )
        for name, unit in (("mlp", "mlp"), ("attention", "attn"))
    ]
    model = skipviz.from_parts(published.skipgpt(), tiny.tokenizer(), family=described)
    units = [(site.layer, site.unit) for site in model.family.sites(model.model)]
    assert units == [(layer, unit) for layer in range(tiny.LAYERS) for unit in ("attn", "mlp")]


def test_errors_name_modules_that_look_alike() -> None:
    spec = skipviz.GateSpec(module="model.layers.{layer}.swich")
    with pytest.raises(skipviz.InputError, match=r"model.layers.\{layer\}.switch"):
        skipviz.from_parts(own_model(), tiny.tokenizer(), family=spec)
    far = skipviz.GateSpec(module="model.layers.{layer}.switch", layers=(1, 9))
    with pytest.raises(skipviz.InputError, match="no module of layer 9"):
        skipviz.from_parts(own_model(), tiny.tokenizer(), family=far)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"read": "output"}, "gives a dict, not a tensor"),
        ({"read": "output.logits"}, "there is no 'logits'"),
        ({"read": "output.scores"}, "pick is missing"),
        ({"read": "output.scores", "pick": 7}, "pick=7 is not one of 2"),
        ({"read": "output.scores", "pick": 1, "threshold": ":no_such"}, "there is no 'no_such'"),
        ({"read": "output.scores", "rule": "argmax", "executes": 5}, "not one of 2 classes"),
    ],
)
def test_what_a_gate_does_not_emit_is_said(fields: dict[str, Any], message: str) -> None:
    spec = skipviz.GateSpec(module="model.layers.{layer}.switch", **fields)
    model = skipviz.from_parts(own_model(), tiny.tokenizer(), family=spec)
    with pytest.raises(skipviz.RecordingError, match=message):
        skipviz.trace(model, tiny.TEXT)


def test_a_file_that_is_not_yaml_is_a_sentence(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"a: [1", b"[]", b"- 3", b""):
        path = tmp_path / "gates.yaml"
        path.write_bytes(content)
        with pytest.raises(skipviz.InputError):
            read_gate_specs(path)
    with pytest.raises(skipviz.InputError, match="is no file"):
        read_gate_specs(tmp_path / "none.yaml")


LAUGHS = "x: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"x: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
"""A few lines that unfold to a thousand million words."""


@pytest.mark.timeout(30)
@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(skipviz.GateSpec)])
def test_no_field_is_of_any_size(field: str) -> None:
    unfolded = yaml.safe_load(f"{LAUGHS}{field}: *j")[field]
    for value in (unfolded, "{layer}" + "x" * 2_000_000, 10**400, -1e300, {"a": 1}, [[1]]):
        with pytest.raises(skipviz.InputError) as caught:
            gate_spec({"module": "m.{layer}", field: value})
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["module: 2020-13-45", "? [a]\n: b", "&a [*a]", "&a {module: *a}"])
def test_odd_yaml_is_a_sentence(text: str) -> None:
    with pytest.raises(skipviz.InputError):
        gate_specs_in(text, name="y")
