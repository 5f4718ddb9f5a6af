"""The app, which says beside how often any model was run."""

from __future__ import annotations

from typing import Any

import streamlit as st
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import PreTrainedModel

import skipviz.models.loading  # noqa: F401  # which the warm-up would import
from skipviz.app.frame.warm_up import WarmUp
from skipviz.app.main import run

# A model that is loaded meanwhile is tried on a few tokens, which are no runs of the page.
WarmUp.begin = lambda _: None  # type: ignore[method-assign]


@st.cache_resource
def counted() -> list[int]:
    """Return a list of one number that grows whenever a model is run."""
    runs = [0]

    def count(module: nn.Module, _: Any) -> None:
        runs[0] += isinstance(module, PreTrainedModel)

    register_module_forward_pre_hook(count)
    return runs


counted()
run()
st.caption(f"Model runs: {counted()[0]}")
