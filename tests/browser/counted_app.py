"""The app, which says beside how often any model was run."""

from __future__ import annotations

from typing import Any

import streamlit as st
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import PreTrainedModel

from skipviz.app.main import run


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
