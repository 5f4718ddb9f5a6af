from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from skipviz.training.losses import ROWS_IN_CACHE, distillation_loss


def logits(seed: int, rows: int = 2 * ROWS_IN_CACHE + 3) -> Tensor:
    return 3 * torch.randn(rows, 50, generator=torch.Generator().manual_seed(seed))


def by_autograd(
    student: Tensor, teacher: Tensor, targets: Tensor, kl: float, ce: float
) -> tuple[Tensor, Tensor, Tensor]:
    log_student = F.log_softmax(student.float(), dim=-1)
    log_teacher = F.log_softmax(teacher.float(), dim=-1)
    divergence = F.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    cross_entropy = F.nll_loss(log_student, targets)
    return kl * divergence + ce * cross_entropy, divergence, cross_entropy


@pytest.mark.parametrize(("kl", "ce"), [(0.5, 0.5), (1.0, 0.0), (0.3, 1.2)])
def test_values_and_gradient_are_those_of_autograd(kl: float, ce: float) -> None:
    teacher, targets = logits(1), torch.arange(2 * ROWS_IN_CACHE + 3) % 50
    one, other = (logits(0).requires_grad_() for _ in range(2))
    found = distillation_loss(one, teacher, targets, kl_weight=kl, ce_weight=ce)
    wanted = by_autograd(other, teacher, targets, kl, ce)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    (2 * found[0]).backward()
    (2 * wanted[0]).backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-7)  # type: ignore[arg-type]
    assert not found[1].requires_grad
    assert not found[2].requires_grad


def test_the_inputs_are_left_as_they_were() -> None:
    student, teacher = logits(0), logits(1)
    distillation_loss(
        student, teacher, torch.zeros(len(student), dtype=torch.int64), kl_weight=1.0, ce_weight=1.0
    )
    assert torch.equal(student, logits(0))
    assert torch.equal(teacher, logits(1))


def test_distillation_from_itself_costs_nothing() -> None:
    same = logits(0)
    targets = torch.arange(len(same)) % 50
    objective, divergence, _ = distillation_loss(same, same, targets, kl_weight=1.0, ce_weight=0.0)
    assert objective.item() == divergence.item() == pytest.approx(0, abs=1e-6)
