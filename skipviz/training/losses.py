"""Distillation and cross-entropy over a large vocabulary, with their gradient in one pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# So few rows of 49,152 logits, and their float32 copies, stay in a core's cache.
ROWS_IN_CACHE = 16


def distillation_loss(
    student: Float[Tensor, "n v"],
    teacher: Float[Tensor, "n v"],
    targets: Int[Tensor, " n"],
    *,
    kl_weight: float,
    ce_weight: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Return what is minimised, the mean KL(teacher || student) and the mean cross-entropy.

    Parameters
    ----------
    student, teacher
        Logits; gradients flow into the student's only.
    targets
        The token that followed.
    kl_weight, ce_weight
        Weights of the two means in the first result, the only one with a gradient.

    Returns
    -------
    tuple of Tensor
        Scalars in nats per token.

    Notes
    -----
    Autograd would keep and pass over the vocabulary some fifteen times; the gradient is
    ``(kl_weight + ce_weight) softmax(student) - kl_weight softmax(teacher) - ce_weight onehot``.
    """
    # A torch.autograd.Function's apply has no types.
    result: tuple[Tensor, Tensor, Tensor] = _Distillation.apply(  # type: ignore[no-untyped-call]
        student, teacher, targets, kl_weight, ce_weight
    )
    return result


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        kl_weight: float,
        ce_weight: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = len(targets)
        gradient = torch.empty_like(student)
        divergence = cross_entropy = torch.zeros((), device=student.device)
        for first in range(0, count, ROWS_IN_CACHE):
            rows = slice(first, first + ROWS_IN_CACHE)
            log_student = F.log_softmax(student[rows].float(), dim=-1)
            log_teacher = F.log_softmax(teacher[rows].float(), dim=-1)
            target = targets[rows].unsqueeze(1)
            wanted = log_teacher.exp()
            divergence = divergence + (wanted * log_teacher.sub_(log_student)).sum()
            cross_entropy = cross_entropy - log_student.gather(1, target).sum()
            slope = log_student.exp_().mul_(kl_weight + ce_weight).sub_(wanted, alpha=kl_weight)
            slope.scatter_add_(1, target, slope.new_full(target.shape, -ce_weight))
            gradient[rows] = slope.div_(count)
        ctx.save_for_backward(gradient)
        divergence, cross_entropy = divergence / count, cross_entropy / count
        ctx.mark_non_differentiable(divergence, cross_entropy)
        return kl_weight * divergence + ce_weight * cross_entropy, divergence, cross_entropy

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * slopes[0].to(gradient.dtype), None, None, None, None
