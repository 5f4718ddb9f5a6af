"""Signs that a model skips in a way that no family knows, so that it is not called dense.

A module is a sign if it is named as routers, gates, exits or halting units are and was put into a
model whose own code does not have it; so is a module of a class that neither torch nor
transformers has, and a forward that was replaced on a module.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from torch import nn

GATE_NAMES = re.compile(
    r"(?:.*_)?(?:routers?|gates?|exits?|highways?|halt\w*|skip\w*|mor\w*|depth\w*)(?:_\w+)?"
)
NOT_GATES = re.compile(r"gate_(?:up_)?proj\w*|shared_expert_gate|(?:gate|up|down)_proj\w*")
LIBRARIES = (
    "torch", "transformers", "peft", "bitsandbytes", "torchao", "accelerate", "optimum",
    "auto_gptq", "gptqmodel", "awq", "compressed_tensors", "hqq", "quanto", "skipviz",
)  # fmt: skip
"""Whose modules are no sign: they quantise, adapt or shard a model."""
SHOWN = 6


def signs_of_skipping(model: nn.Module) -> list[str]:
    """Return what of a model looks like skipping, as names of modules with a word on each.

    Parameters
    ----------
    model
        A model that no family recognises.
    """
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        parent = model.get_submodule(name.rpartition(".")[0]) if name else model
        sign = _sign(name.rpartition(".")[2], module, parent)
        if sign:
            found.setdefault(re.sub(r"(?<=\.)\d+(?=\.|$)", "{layer}", name), sign)
    return [f"{name or 'the model itself'} ({sign})" for name, sign in found.items()]


def is_named_like_a_gate(name: str) -> bool:
    """Return whether the last part of a module's name is that of a router, gate or exit."""
    lower = name.lower()
    return bool(GATE_NAMES.fullmatch(lower)) and not NOT_GATES.fullmatch(lower)


def _sign(name: str, module: nn.Module, parent: nn.Module) -> str | None:
    if _library(module) not in LIBRARIES:
        return f"a {type(module).__name__}, of code of its own"
    # accelerate replaces forwards too, and says so.
    if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
        return "its forward was replaced"
    if not is_named_like_a_gate(name) or module is parent or _has_by_itself(type(parent), name):
        return None
    return "named like a gate"


def _library(module: nn.Module) -> str:
    return type(module).__module__.partition(".")[0]


def _has_by_itself(kind: Any, name: str) -> bool:
    """Return whether a class gives itself a part of this name, as mixtures of experts do."""
    for each in kind.__mro__:
        if each in (nn.Module, object):
            break
        try:
            if re.search(rf"self\.{re.escape(name)}\b", inspect.getsource(each)):
                return True
        except (OSError, TypeError):
            continue
    return False


def unknown_model(model: nn.Module, signs: list[str]) -> str:
    """Return a sentence on a model that looks as if it skipped."""
    more = f" and {len(signs) - SHOWN} more" if len(signs) > SHOWN else ""
    return (
        f"This {type(model).__name__} looks like a skipping model that skipviz does not know: it "
        f"has {', '.join(signs[:SHOWN])}{more}. Describe its gates with a skipviz.GateSpec "
        "(`skipviz.inspect` proposes one), or record it where it runs (docs/trace_format.md). If "
        "it runs every layer for every token, give family=skipviz.families.dense.Dense(), or "
        "skipviz.families.looped.Looped() where layers run several times."
    )
