"""Writes ``docs/architectures.md``: what works on which architecture, tried on tiny random models.

Run it from the repository: ``python -m docs.make_architectures``. Every "yes" is a figure
that equals that of the model's own forward.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import skipviz
from skipviz.experiments.hidden_states.attention_paid import attention_paid
from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates
from tests import architectures, tiny

PAGE = Path(__file__).with_name("architectures.md")
INTRODUCTION = """# Architectures

What works on models of each architecture, as `python -m docs.make_architectures` found it on tiny
random models of transformers {version}. "yes" means that figures equal those of the model's own
forward: losses within 1e-4 nats, audited decisions within 1e-3 nats of whole forwards in which one
decision is forced. Where skipviz cannot get the model's own figures it says so instead.

| architecture | traced | recorded | FLOPs known | gates can be put in | audited | attention paid |
|---|---|---|---|---|---|---|
"""
NOTES = """
- **traced**, **recorded**: losses, entropy and next tokens of any causal language model.
- **FLOPs known**: budgets and shares of compute are shown; elsewhere they are "unknown".
- **gates can be put in**: `skipviz train` works on it; gates of its own need a family.
- **audited**: every decision can be flipped.
- **attention paid**: needs queries, keys and values as Llama makes them.

**Versions of transformers.** 5.0 or later is supported. `make transformers-range` tests both ends,
5.0.0 and the newest (5.24.0 in 2026-11): the first two columns on all architectures with recorded
generation, and the tests of families and recording. Before 5.24 tokens that Mamba decodes from its
cache are recorded as a prompt's. pip installs no older version; tried by hand in 2026-11, tracing
and recording agreed on 24 of 25 architectures in 4.57.6 (not Gemma 3) and on 23 of 25 in 4.54.1
(nor GPT-2). In 4.52.4 and before, generation keeps its cache as tuples on more architectures, in
4.46.3 on all, which a recording does not follow; in 4.44.2 tracing fails.

BERT and other models whose tokens see what follows have no loss on the next token. `skipviz.record`
shows what they do; `skipviz.trace` and `skipviz.load` say why they do not.
"""
GATES = GatedConfig(first_layer=0, last_layer=2, gate_hidden=4, adapter_rank=2)
TEXT = tiny.TEXT[:40]


def page() -> str:
    """Return the whole page."""
    version = __import__("transformers").__version__.partition(".")[0]
    rows = [f"| {name} | {' | '.join(works(name))} |" for name in architectures.CAUSAL]
    return INTRODUCTION.format(version=version) + "\n".join(rows) + "\n" + NOTES


def works(name: str) -> list[str]:
    """Return what works on an architecture, in the order of the table's columns."""
    dense = skipviz.from_parts(architectures.causal_lm(name), tiny.tokenizer(), name=name)
    gated = _gated(name)
    trace = skipviz.trace(dense, TEXT)
    return [
        _said(lambda: _losses_are_own(dense, trace)),
        _said(lambda: _losses_are_own(dense, _recorded(dense, trace))),
        "no" if trace.run["mlp_flops"].item() is None else "yes",
        "no: not in the Llama layout" if gated is None else _said(lambda: _all_run(gated, trace)),
        "-" if gated is None else _said(lambda: _audit_is_exact(gated)),
        "-" if gated is None else _said(lambda: _attention_is_paid(gated)),
    ]


def _said(check: Callable[[], None]) -> str:
    try:
        check()
    except skipviz.SkipvizError as error:
        return "no: refused" if "own" in str(error) else f"no: {error}"
    return "yes"


def _equal(found: Any, wanted: Any, most: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=most)


def _gated(name: str) -> skipviz.SkipModel | None:
    model = architectures.causal_lm(name)
    try:
        install_gates(model, GATES)
    except skipviz.InputError:
        return None
    torch.manual_seed(1)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
        torch.nn.init.normal_(unit.gate.up.bias, std=0.2)
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    return skipviz.from_parts(model.eval(), tiny.tokenizer(), name=name)


def _ids(trace: skipviz.Trace) -> torch.Tensor:
    return torch.tensor([trace.tokens["token_id"].to_list()])


@torch.inference_mode()
def _own_losses(model: skipviz.SkipModel, ids: torch.Tensor) -> Any:
    logits = model.model(input_ids=ids).logits[0].double()
    return F.cross_entropy(logits[:-1], ids[0, 1:], reduction="none").numpy()


def _losses_are_own(model: skipviz.SkipModel, trace: skipviz.Trace) -> None:
    _equal(trace.tokens["nll"].to_numpy()[:-1], _own_losses(model, _ids(trace)), 1e-4)


@torch.inference_mode()
def _recorded(model: skipviz.SkipModel, trace: skipviz.Trace) -> skipviz.Trace:
    with skipviz.record(model) as recording:
        model.model(input_ids=_ids(trace))
    return recording.trace


def _all_run(gated: skipviz.SkipModel, dense: skipviz.Trace) -> None:
    """Check that with every gate open the model is the dense one."""
    every = skipviz.Plan(np.ones((len(dense), len(gated.family.sites(gated.model))), dtype=bool))
    open_ = skipviz.trace(gated, TEXT, plan=every)
    _equal(open_.tokens["nll"].to_numpy()[:-1], dense.tokens["nll"].to_numpy()[:-1], 1e-4)


def _audit_is_exact(gated: skipviz.SkipModel) -> None:
    """Check flips against whole forwards in which one decision is forced."""
    trace = skipviz.trace(gated, TEXT)
    length, sites = len(trace) - 1, trace.sites.height
    spread = np.linspace(0, length * sites - 1, 12).astype(int)
    cells = [divmod(int(cell), sites) for cell in spread]
    for row in skipviz.audit(gated, trace, cells=cells, horizon=None).rows(named=True):
        execute = trace.matrix("exec_count") > 0
        execute[row["token"], row["site"]] ^= True
        with gated.family.force(gated.model, skipviz.Plan(execute)):
            whole = _own_losses(gated, _ids(trace))
        _equal(row["flipped_nll"], whole[row["token"] :].sum(), 1e-3)


def _attention_is_paid(gated: skipviz.SkipModel) -> None:
    attention_paid(gated, skipviz.trace(gated, TEXT))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
