"""Fills the table of families in ``docs/families.md``: read, forced and checked on tiny models.

Run it from the repository: ``python -m docs.make_families``. The models have random weights, and
modules, shapes and rules as the methods' reference code has them (``tests/published.py`` and the
files beside it).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import skipviz
from skipviz.families.powers import CanForce
from tests import encoders, halting, published, recursions, tiny, wrapped_units
from tests.families.published import test_calm, test_skip_decode

PAGE = Path(__file__).with_name("families.md")
BEGIN = "<!-- written by python -m docs.make_families -->\n"
END = "<!-- end -->\n"
HEAD = """
| model | family | decides | decisions equal | forced | check-up: issues | check-up: tips |
|---|---|---|---|---|---|---|
"""
LEFT_OUT = ("SKV012",)
"""bfloat16: how often random weights flip by rounding says nothing of trained ones."""
ROUTED = skipviz.GateSpec(
    module="model.layers.{layer}.router",
    activation="sigmoid",
    threshold=0.5,
    skip_path="identity",
    kv="computed",
    computed_anyway=True,
)
SCHEDULE = test_skip_decode.SCHEDULES["from all layers"]
MODELS: dict[str, Callable[[], Any]] = {
    "FlexiDepth": published.flexidepth,
    "SkipGPT": published.skipgpt,
    "Mixture-of-Depths": published.mixture_of_depths,
    "Router-Tuning, attention by token": published.router_tuning,
    "Router-Tuning, MLP by token": lambda: published.router_tuning(target="mlp"),
    "Router-Tuning, block by text": lambda: published.router_tuning(
        target="block", level="sequence"
    ),
    "Dr.LLM": published.dr_llm,
    "HRM-Text": published.hrm_text,
    "Mixture-of-Recursions, expert choice": recursions.mixture_of_recursions,
    "Mixture-of-Recursions, token choice": lambda: recursions.mixture_of_recursions("token"),
    "Ouro": wrapped_units.ouro,
    "GateSkip": wrapped_units.gateskip,
    "CALM by softmax": lambda: test_calm.with_calm(test_calm.RULES["softmax, falling"]),
    "CALM by state": lambda: test_calm.with_calm(test_calm.RULES["state"]),
    "CALM by classifier": lambda: test_calm.with_calm(test_calm.RULES["classifier"]),
    "SkipDecode": lambda: test_skip_decode.scheduled(SCHEDULE),
    "ACT": halting.act,
    "PonderNet": halting.pondernet,
    "DeeBERT": encoders.deebert,
    "PABEE": encoders.pabee,
    "a router of no known method": published.routed,
}


def _rounds(model: Any, tokens: int) -> npt.NDArray[Any]:
    last = model.truth[0].numpy()[:, None]
    return np.repeat(np.arange(wrapped_units.ROUNDS)[None] <= last, len(model.model.layers), axis=1)


def _reached(model: Any, tokens: int) -> npt.NDArray[Any]:
    return np.tile(np.arange(1, encoders.LAYERS) < model.truth, (tokens, 1))


def _steps(model: Any, tokens: int) -> npt.NDArray[Any]:
    return np.arange(halting.STEPS)[None] < model.model.truth[0].numpy()[:, None]


def _by_calm(model: Any, tokens: int) -> npt.NDArray[Any]:
    """Return what a loop over tokens and layers in plain Python gives, apart from the model."""
    return test_calm.by_hand(model.calm.rule)[1][:, model.calm.first + 1 :]


WHOLE_NOTES: dict[str, Callable[[Any, int], npt.NDArray[Any]]] = {
    "mixture-of-recursions": lambda model, _: (
        np.repeat(recursions.truth_of(model).numpy(), recursions.SHARED, axis=0).T
    ),
    "ouro": _rounds,
    "act": _steps,
    "pondernet": _steps,
    "calm": _by_calm,
    "skip-decode": lambda model, _: test_skip_decode.by_hand(SCHEDULE)[1][
        :, list(model.skip_decode.skippable())
    ],
    "gateskip": lambda model, _: wrapped_units.gateskip_truth(model).numpy(),
    "deebert": _reached,
    "pabee": _reached,
}
"""What is noted of all sites of a model at once, apart from hooks, by family: [tokens, sites]."""


def table() -> str:
    """Return the table, a row per model."""
    return HEAD + "\n".join(row(name) for name in MODELS) + "\n\n"


def row(name: str) -> str:
    """Return what holds of one model."""
    made = MODELS[name]()
    spec = ROUTED if name.startswith("a router") else None
    model = skipviz.from_parts(made, tiny.tokenizer(), name=name, family=spec)
    sites = model.family.sites(model.model)
    decides = {f"{site.unit}, `{site.rule}`, by {site.scope}" for site in sites}
    found = skipviz.check(model, ignore=LEFT_OUT).findings
    named = {
        outcome: ", ".join(each.code for each in found if each.outcome == outcome) or "-"
        for outcome in ("issue", "tip")
    }
    family = "`GateSpec`" if spec else f"`{model.family.name}`"
    forced = "yes" if isinstance(model.family, CanForce) else "no"
    cells = [name, family, "; ".join(sorted(decides)), _equal(model), forced, *named.values()]
    return f"| {' | '.join(cells)} |"


def _equal(model: skipviz.SkipModel) -> str:
    """Return how many recorded decisions are those that the layers note themselves."""
    ids = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    torch.manual_seed(3)
    with torch.inference_mode(), skipviz.record(model) as recording:
        model.model(ids)
    ran = recording.trace.matrix("exec_count")
    return f"{int((ran == _noted(model, len(ran))).sum()):,} of {ran.size:,}"


def _noted(model: skipviz.SkipModel, tokens: int) -> npt.NDArray[Any]:
    if model.family.name in ("dr-llm", "looped"):
        loop = model.family.name == "looped"
        times = published.HRM_RUNS if loop else model.model.model.truth
        return np.array([times] * tokens)
    if model.family.name in WHOLE_NOTES:
        found: npt.NDArray[Any] = WHOLE_NOTES[model.family.name](model.model, tokens)
        return found.astype(np.uint8)
    noted = published.truth_of(model.model)
    places = [(site.layer, site.unit) for site in model.family.sites(model.model)]
    return np.stack([noted[place][0].numpy() for place in places], axis=1).astype(np.uint8)


def filled(page: str) -> str:
    """Return the page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
