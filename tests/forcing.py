"""What only some families can do, asked of a model whose family can."""

from __future__ import annotations

from contextlib import AbstractContextManager

import skipviz
from skipviz.families.powers import CanDrawPlans, CanForce


def forced(model: skipviz.SkipModel, plan: skipviz.Plan) -> AbstractContextManager[None]:
    """A block in which a plan decides."""
    assert isinstance(model.family, CanForce)
    return model.family.force(model.model, plan)


def drawn(model: skipviz.SkipModel, *, tokens: int, seed: int) -> skipviz.Plan:
    """A plan for one text, at random."""
    assert isinstance(model.family, CanDrawPlans)
    return model.family.draw_plan(model.model, texts=1, tokens=tokens, seed=seed)
