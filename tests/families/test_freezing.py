from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from skipviz.families.freezing import freeze
from tests import tiny


@pytest.mark.parametrize("cut", [False, True])
def test_a_frozen_head_multiplies_the_last_token_at_once(cut: bool) -> None:
    model = tiny.backbone(seed=0)
    states = torch.randn(1, 7, int(model.config.hidden_size))
    given = states[:, -1:] if cut else states
    with torch.inference_mode():
        learning = model.lm_head(given)
        model.requires_grad_(False)
        assert "aten::bmm" in _ran(model, given) or not cut  # what freezing alone does
        freeze(model)
        assert "aten::bmm" not in _ran(model, given)
        assert torch.equal(model.lm_head(given), learning)
    assert not any(each.requires_grad for each in model.parameters())


def _ran(model: torch.nn.Module, given: torch.Tensor) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model.lm_head(given)
    return {event.name for event in seen.events()}
