"""Loads the tiny model in a worker, which imports this by its name."""

from __future__ import annotations

import torch

import skipviz
from tests import tiny


def tiny_gated() -> skipviz.SkipModel:
    torch.set_num_threads(1)
    return skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer(), name="tiny-gated")
