"""The description of gates in the guide is read, and its decisions are those that were made."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import skipviz
from skipviz.families.described.spec import read_gate_specs
from tests import published, tiny

GUIDE = Path(__file__).parents[2] / "docs" / "contributing" / "family.md"


class _Scores(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)
        nn.init.normal_(self.linear.weight)

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        return {"scores": self.linear(states)}


class _GuideLayer(LlamaDecoderLayer):
    """Attention skipped where a score is high; an MLP for the highest scores of a text."""

    def __init__(self, config: Any, number: int, *, gated: bool) -> None:
        super().__init__(config, number)
        self.attn_router = _Scores(config.hidden_size) if gated else None
        self.mlp_router = nn.Linear(config.hidden_size, 1)
        self.skipped: Tensor | None = None
        self.truth: dict[str, Tensor] = {}

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        made, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        if self.attn_router is not None:
            runs = torch.sigmoid(self.attn_router(hidden_states)["scores"][..., 1]) < 0.6
            self.truth["attn"], self.skipped = runs, 1 - runs.int()
            made = made * runs[..., None]
        states = hidden_states + made
        weights = self.mlp_router(states)[..., 0]
        runs = weights > weights.topk(int(0.5 * weights.shape[1]), dim=1).values[:, -1:]
        self.truth["mlp"] = runs
        after: Tensor = states + self.mlp(self.post_attention_layernorm(states)) * runs[..., None]
        return after


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The description in the guide, as a file."""
    made = tmp_path / "gates.yaml"
    written = GUIDE.read_text(encoding="utf-8").partition("```yaml\n")[2]
    made.write_text(written.partition("```")[0], encoding="utf-8")
    return made


def test_every_field_is_in_the_guide(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    for field in fields(skipviz.GateSpec):
        assert f" {field.name}: " in written, field.name


def test_the_guide_describes_a_model_truly(path: Path) -> None:
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    layers = [_GuideLayer(model.config, n, gated=n in (1, 2, 3)) for n in range(tiny.LAYERS)]
    model.model.layers = nn.ModuleList(layers)
    specs = read_gate_specs(path)
    mine = skipviz.from_parts(model, tiny.tokenizer(), family=specs)
    assert mine.family.name == "mine"
    trace = skipviz.trace(mine, tiny.TEXT)
    noted = published.truth_of(model)
    places = [(site.layer, site.unit) for site in mine.family.sites(model)]
    assert sorted(places) == sorted(noted)
    wanted = np.stack([noted[place][0].numpy() for place in places], axis=1)
    assert np.array_equal(trace.matrix("exec_count") > 0, wanted)
    assert (wanted.mean(axis=0) > 0).all()
    assert (wanted.mean(axis=0) < 1).all()
    found = {each.code: each.outcome for each in skipviz.check(mine).findings}
    assert found["SKV007"] == found["SKV008"] == "passed"
