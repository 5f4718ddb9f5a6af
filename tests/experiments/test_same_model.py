from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import skipviz
from skipviz.experiments.hidden_states.attention_paid import attention_paid
from skipviz.experiments.hidden_states.states import record_states

TEXT = "The odd ship came back."
RUN_AGAIN: dict[str, Callable[[Any, Any], Any]] = {
    "audit": skipviz.audit,
    "attribute": lambda model, trace: skipviz.attribute(model, trace, skipviz.Target(token=1)),
    "attribute_depth": skipviz.attribute_depth,
    "record_states": record_states,
    "attention_paid": attention_paid,
}


@pytest.mark.parametrize("name", RUN_AGAIN)
def test_a_trace_of_other_weights_is_refused(name: str, gated: skipviz.SkipModel) -> None:
    mine = skipviz.from_parts(gated.model, gated.tokenizer, weights_sha256="a" * 64)
    other = skipviz.from_parts(gated.model, gated.tokenizer, weights_sha256="b" * 64)
    with pytest.raises(skipviz.InputError, match="made with other weights"):
        RUN_AGAIN[name](mine, skipviz.trace(other, TEXT))
