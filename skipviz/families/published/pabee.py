"""PABEE: a text leaves an encoder once so many classifiers in a row agree.

Zhou et al., "BERT loses patience", 2006.04152; read from the reference code (huggingface/
transformers, ``examples/research_projects/bert-loses-patience/pabee/modeling_pabee_bert.py`` at
063bc98; of BERT, whose layers are not shared as ALBERT's are). A classifier stands behind every
layer. It agrees with the one before where the class is the same for every text of the batch, or,
where one number is predicted, where the two lie closer than a threshold. With a patience of 0
every layer runs. What ran is told by the calls of layers; the score is how many agreed in a row. A
plan decides by the patience that this number is compared with: for the thread that forces it is
equal to it, or not, as the plan says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import states_made
from skipviz.families.powers import Traits
from skipviz.families.published.sequence_exits import (
    OF_ENCODERS,
    asked,
    exit_sites,
    leaving_by_lot,
    one_exit,
    reached,
)
from skipviz.schema import Site


class PABEE:
    """Exits behind the layers of an encoder, by patience."""

    name = "pabee"

    def detect(self, model: nn.Module) -> bool:
        """Say whether an encoder has patience, and a classifier for each layer."""
        layers = _layers(model)
        classifiers = getattr(model, "classifiers", None)
        return isinstance(classifiers, nn.ModuleList) and len(classifiers) == len(layers) > 1

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every layer behind the first; the more agreed, the sooner a text leaves."""
        return exit_sites(len(_layers(model)), rule="patience", polarity=-1, scope="batch")

    def layer_count(self, model: nn.Module) -> int:
        """Return the number of layers."""
        return len(_layers(model))

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of encoders."""
        return OF_ENCODERS

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return a plan by which each text leaves somewhere, or at the end."""
        return leaving_by_lot(len(_layers(model)) - 1, texts=texts, tokens=tokens, seed=seed)

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Have the text leave where ``plan`` says.

        Raises
        ------
        InputError
            If there is no patience to be lost; or the plan has another number of sites, tokens that
            differ, or lets a text come back.
        """
        patient: Any = _patient(model)
        if patient.patience == 0:
            raise InputError(
                "With a patience of 0 no text leaves; set it to 1 or more to force it."
            )
        runs, forced = one_exit(plan, len(_layers(model)) - 1)
        with _LOCK:
            if not isinstance(patient.patience, _Patience):
                patient.patience = _Patience(patient.patience)
            patience = patient.patience
            patience.blocks += 1

        def settle(*_: Any) -> None:
            patience.here.leaves = None
            patience.here.forced = frozenset(i for i, here in enumerate(forced) if here)

        def decide(number: int) -> Hook:
            def hook(*_: Any) -> None:
                patience.here.leaves = not runs[number] if forced[number] else None

            return after(_classifiers(model)[number], hook)

        try:
            with hooked([before(patient, settle), *(decide(n) for n in range(len(runs)))]):
                yield
        finally:
            patience.here.leaves, patience.here.forced = None, frozenset()
            with _LOCK:
                patience.blocks -= 1
                if not patience.blocks:
                    patient.patience = int(patience)

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell which layers are reached, and how many classifiers had agreed before them."""
        patient: Any = _patient(model)
        layers, run = _layers(model), _Agreement(patient, sink)
        exits: list[Hook] = [before(patient, run.begin)]
        for number, layer in enumerate(layers[:-1]):
            exits.append(after(layer, run.note_shape))
            exits.append(after(_classifiers(model)[number], run.ask(number)))
        with hooked([*reached(layers, sink), *exits]):
            yield


@dataclass
class _Agreement:
    """How many classifiers in a row have agreed in the forward under way."""

    patient: Any
    sink: EventSink
    agreed: int = 0
    earlier: Tensor | None = None
    shape: tuple[int, int] = (0, 0)

    def begin(self, *_: Any) -> None:
        self.agreed, self.earlier = 0, None

    def note_shape(self, module: nn.Module, args: Any, result: Any) -> None:
        texts, tokens, _ = states_made(result).shape
        self.shape = (texts, tokens)

    def ask(self, layer: int) -> Any:
        def hook(module: nn.Module, args: Any, logits: Tensor) -> None:
            self.agreed = self.agreed + 1 if self._same(logits.detach()) else 0
            self.earlier = logits.detach()
            score = torch.full((self.shape[0],), float(self.agreed), device=logits.device)
            limit = torch.as_tensor(float(self.patient.patience))
            now = self.patient.patience
            forced = isinstance(now, _Patience) and layer in now.here.forced
            asked(self.sink, layer, score, limit, shape=self.shape, forced=forced)

        return hook

    def _same(self, logits: Tensor) -> bool:
        if self.earlier is None:
            return False
        if logits.shape[-1] == 1:
            near = (self.earlier - logits).abs() < self.patient.regression_threshold
            return bool(near.all())
        return bool(torch.equal(logits.argmax(dim=1), self.earlier.argmax(dim=1)))


class _Plan(threading.local):
    """What a plan of this thread decides at the exit that has just been asked."""

    def __init__(self) -> None:
        self.leaves: bool | None = None
        self.forced: frozenset[int] = frozenset()


class _Patience(int):
    """A patience that is lost, or not, where a plan of this thread says so."""

    here: _Plan
    blocks: int

    def __new__(cls, value: int) -> _Patience:
        made = super().__new__(cls, value)
        made.here, made.blocks = _Plan(), 0
        return made

    def __eq__(self, other: object) -> bool:
        leaves, self.here.leaves = self.here.leaves, None
        return int(self) == other if leaves is None else leaves

    def __hash__(self) -> int:
        return hash(int(self))


_LOCK = threading.Lock()


def _patient(model: nn.Module) -> nn.Module | None:
    for module in model.children():
        if hasattr(module, "patience") and hasattr(module, "regression_threshold"):
            return module
    return None


def _layers(model: nn.Module) -> list[nn.Module]:
    encoder = getattr(_patient(model), "encoder", None)
    layers = getattr(encoder, "layer", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


def _classifiers(model: Any) -> list[nn.Module]:
    return list(model.classifiers)
