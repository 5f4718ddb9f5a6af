from __future__ import annotations

from pathlib import Path

import torch

from skipviz.families.causal_lm import has_logits_apart
from skipviz.training.teacher import Teacher
from tests import tiny


def windows() -> torch.Tensor:
    return torch.randint(3, 260, (4, 9), generator=torch.Generator().manual_seed(1))


def test_kept_states_give_the_dense_models_logits(tmp_path: Path) -> None:
    model = tiny.backbone(seed=0)
    found = Teacher(model, windows(), tmp_path / "states").logits(torch.tensor([2, 1]))
    with torch.no_grad():
        wanted = model(windows()[[2, 1], :-1]).logits
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)


def test_states_are_read_and_not_run_again(tmp_path: Path) -> None:
    first = Teacher(tiny.backbone(seed=0), windows(), tmp_path / "states").logits(torch.arange(2))
    other = tiny.backbone(seed=0)
    assert has_logits_apart(other)  # tried once on every model
    other.model.forward = None
    again = Teacher(other, windows(), tmp_path / "states")
    assert torch.equal(again.logits(torch.arange(2)), first)


def test_a_file_of_other_windows_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "states").write_bytes(b"other")
    Teacher(tiny.backbone(seed=0), windows(), tmp_path / "states").logits(torch.arange(4))
    assert (tmp_path / "states").stat().st_size == 4 * 8 * 32 * 2
