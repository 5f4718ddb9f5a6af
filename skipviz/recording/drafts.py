"""Follows a generation that drafts tokens, of which some are verified and the others rejected.

Drafts and verification have a cache each, and what is rejected is cut from both. So tokens are kept
as a tree: a token of another past is another token. What ``generate`` returns says in the end
which way through the tree is the text.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skipviz.errors import RecordingError
from skipviz.recording.replacing import Call, replace_method
from skipviz.recording.statistics import TokenStatistics, concatenate, token_statistics
from skipviz.schema import TOP_K

REJECTED = "rejected drafts"


@dataclass(frozen=True, eq=False)
class DraftedRows:
    """Tokens of one generation, in reading order: the text's, or the drafts that were rejected.

    Attributes
    ----------
    token_id, context
        Each token, and how many it could see, itself included.
    phase
        ``prefill``, ``decode``, or ``draft`` where it was drafted.
    run
        Neighbours in a text have the same number.
    matrices
        As of a trace, [tokens, sites].
    statistics
        Figures of the predictions of the verifying model.
    """

    token_id: npt.NDArray[np.int64]
    context: npt.NDArray[np.int64]
    phase: list[str]
    run: npt.NDArray[np.int64]
    matrices: dict[str, npt.NDArray[Any]]
    statistics: TokenStatistics


@dataclass(eq=False)
class _Node:
    """A token behind others."""

    token: int
    depth: int
    parent: _Node | None
    matrices: dict[str, npt.NDArray[Any]]
    drafted: bool = False
    statistics: TokenStatistics | None = None
    logits: Tensor | None = None
    following: dict[int, _Node] = field(default_factory=dict)


class DraftedGeneration:
    """One call of ``generate`` that drafts with the model itself.

    Parameters
    ----------
    statistics
        Whether to keep figures of predictions.
    """

    def __init__(self, *, statistics: bool) -> None:
        self.drafting = False
        self.drafts_seen = False
        self._statistics = statistics
        self._first: dict[int, _Node] = {}
        self._paths: dict[bool, list[_Node]] = {True: [], False: []}
        self._nodes: list[_Node] = []
        self._prompt: int | None = None
        self._pending: list[_Node] = []

    def add(
        self, ids: list[int], *, held: int, matrices: dict[str, npt.NDArray[Any]], logits: Tensor
    ) -> None:
        """Take one forward of the model.

        Parameters
        ----------
        ids
            The tokens that it was given.
        held
            How many came before them, in the cache.
        matrices
            Their decisions, as ``GateEvents.matrices`` has them.
        logits
            What it returned, of the last of them, [1, n, v].
        """
        if self._prompt is None:
            self._prompt = len(ids)
        path = self._paths[self.drafting][:held]
        if len(path) < held:
            raise RecordingError(
                f"The model continued a cache of {held} tokens that was filled before the "
                "generation began. Record the prefill too."
            )
        new = []
        for index, token in enumerate(ids):
            ran = {name: matrix[index] for name, matrix in matrices.items()}
            path.append(self._at(path[-1] if path else None, token, ran))
            new.append(path[-1])
        self._paths[self.drafting] = path
        if self.drafting:
            self.drafts_seen = True
            return
        for node in new[1:]:  # the first was known before; of the prompt all were
            node.drafted = node.depth >= self._prompt
        if self._statistics:
            self._settle(new[0])
            self._predict(new, logits[0].detach())

    def finish(self, final: list[int]) -> tuple[DraftedRows, DraftedRows | None]:
        """Return the text's tokens, and the drafts that were rejected or None.

        Parameters
        ----------
        final
            What ``generate`` returned, prompt and text.
        """
        text, following = [], self._first
        for token in final:
            if token not in following:
                break
            text.append(following[token])
            following = text[-1].following
        kept = set(map(id, text))
        others = [node for node in self._nodes if id(node) not in kept]
        for node, next_ in zip(text, [*text[1:], None], strict=True):
            if next_ is not None and node.logits is not None:
                self._lose(node, next_.token)
            if next_ is None:
                self._lose(node, -1)
        for node in others:
            self._lose(node, -1)
        return self._rows(text), self._rows(others) if others else None

    def _at(self, parent: _Node | None, token: int, ran: dict[str, npt.NDArray[Any]]) -> _Node:
        following = self._first if parent is None else parent.following
        node = following.get(token)
        if node is None:
            depth = 0 if parent is None else parent.depth + 1
            node = following[token] = _Node(token, depth, parent, ran)
            self._nodes.append(node)
        else:
            count = node.matrices["exec_count"].astype(np.int64) + ran["exec_count"]
            if count.max(initial=0) > np.iinfo(np.uint8).max:
                raise RecordingError(f"A layer ran {count.max()} times for a token; at most 255.")
            node.matrices = {**node.matrices, "exec_count": count.astype(np.uint8)}
        return node

    def _settle(self, next_: _Node) -> None:
        """Give the last prediction its loss, now that the next token is known."""
        if next_.parent is not None and next_.parent.logits is not None:
            self._lose(next_.parent, next_.token)
        for node in self._pending:
            node.logits = None
        self._pending = []

    def _predict(self, new: list[_Node], logits: Tensor) -> None:
        """Keep figures of predictions; the loss stays open where the next token may change."""
        told = new[-len(logits) :]
        found = token_statistics(
            logits, torch.tensor([*(node.token for node in told[1:]), -1], device=logits.device)
        ).to(torch.device("cpu"))
        for index, node in enumerate(told):
            node.statistics = found.rows(slice(index, index + 1))
            if index + 1 == len(told) or told[index + 1].drafted:
                node.logits = logits[index].clone()
                self._pending.append(node)

    def _lose(self, node: _Node, token: int) -> None:
        """Set the loss of a prediction on a token; -1: there is none."""
        if node.statistics is None:
            return
        if token < 0:
            node.statistics.nll[:] = torch.nan
        elif node.logits is not None:
            target = torch.tensor([token], device=node.logits.device)
            node.statistics.nll[:] = token_statistics(node.logits[None], target).nll.cpu()

    def _rows(self, nodes: list[_Node]) -> DraftedRows:
        last: _Node | None = None
        runs: list[int] = []
        for node in nodes:
            runs.append((runs[-1] if runs else 0) + (node.parent is not last))
            last = node
        return DraftedRows(
            token_id=np.array([node.token for node in nodes], dtype=np.int64),
            context=np.array([node.depth + 1 for node in nodes], dtype=np.int64),
            phase=[self._phase(node) for node in nodes],
            run=np.array(runs, dtype=np.int64),
            matrices={
                name: np.stack([node.matrices[name] for node in nodes])
                for name in nodes[0].matrices
            },
            statistics=concatenate([node.statistics or _unknown() for node in nodes]),
        )

    def _phase(self, node: _Node) -> str:
        if node.depth < (self._prompt or 0):
            return "prefill"
        return "draft" if node.drafted else "decode"


def _unknown() -> TokenStatistics:
    return TokenStatistics(
        nll=torch.full((1,), torch.nan),
        entropy=torch.full((1,), torch.nan),
        top_ids=torch.full((1, TOP_K), -1),
        top_probs=torch.full((1, TOP_K), torch.nan),
    )


@dataclass(eq=False)
class _Listeners:
    """Who follows the ``generate`` of a model, and the thread of each; the outermost first."""

    calls: list[tuple[int, Call]] = field(default_factory=list)
    undo: Callable[[], None] | None = None

    def generate(self, made: Call, *args: Any, **kwargs: Any) -> Any:
        thread = threading.get_ident()
        with _LOCK:
            here = [call for owner, call in self.calls if owner == thread]
        for call in here:
            made = functools.partial(call, made)
        return made(*args, **kwargs)


_LOCK = threading.Lock()
_LISTENERS: WeakKeyDictionary[nn.Module, _Listeners] = WeakKeyDictionary()


@contextmanager
def around_generate(model: Any, call: Call) -> Iterator[None]:
    """Have ``model.generate`` go through ``call(generate, *args, **kwargs)`` in this thread.

    Drafting calls it again, from within. Outside of the block and in other threads it is as it was.
    """
    listener = (threading.get_ident(), call)
    with _LOCK:
        listeners = _LISTENERS.setdefault(model, _Listeners())
        listeners.calls.append(listener)
        if listeners.undo is None:
            listeners.undo = replace_method(model, "generate", listeners.generate)
    try:
        yield
    finally:
        with _LOCK:
            listeners.calls.remove(listener)
            if not listeners.calls and listeners.undo is not None:
                listeners.undo()
                listeners.undo = None
