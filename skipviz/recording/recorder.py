"""Records what a model does while a program of the user runs it.

Hooks go in when a recording starts and come out when it ends, however it ends. They only read.
A recording hears the forwards of the thread that opened it, so recordings in other threads, and
recordings inside it, keep apart.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from skipviz.errors import RecordingError
from skipviz.families.hooks import after, before, hooked
from skipviz.models import SkipModel
from skipviz.recording.build import TokenColumns, build_trace, token_texts
from skipviz.recording.events import GateEvents
from skipviz.recording.statistics import TokenStatistics, concatenate, token_statistics
from skipviz.schema import TOP_K
from skipviz.traces import Trace


@contextmanager
def record(model: SkipModel, *, statistics: bool = True) -> Iterator[Recording]:
    """Record every forward of the model in this thread, your own or ``generate``'s.

    Each forward without a cache starts new sequences; one with a cache continues those that
    filled it. Padding, as the attention mask has it, is left out. Beam search reorders the cache
    behind the model's back, and assisted decoding cuts it; neither can be recorded. Sample or
    decode greedily.

    Parameters
    ----------
    model
        What ``skipviz.load`` returned; run ``model.model`` inside the block.
    statistics
        Whether to keep loss, entropy and the five most likely next tokens of every position whose
        logits the model returned.

    Yields
    ------
    Recording
        Its ``trace`` is ready when the block has ended.

    Examples
    --------
    >>> inputs = model.tokenizer("The fox", return_tensors="pt")
    >>> with skipviz.record(model) as recording:
    ...     _ = model.model(**inputs)
    >>> recording.trace.tokens["text"].to_list()
    ['The', ' fo', 'x']
    """
    recording = Recording(model, statistics=statistics)
    hooks = [
        before(
            model.model,
            lambda _, args, kwargs: recording.before_forward(args, kwargs),
            with_kwargs=True,
        ),
        after(model.model, lambda _, args, output: recording.after_forward(output)),
    ]
    try:
        with hooked(hooks), model.family.observe(model.model, recording.events):
            yield recording
    finally:
        recording.release()
    recording.finish()


def _refuse_beams(*_: Any) -> None:
    raise RecordingError(
        "Beam search changes the order of texts in the cache, which a recording cannot follow. "
        "Sample or decode greedily."
    )


def _refuse_cuts(tokens: int) -> None:
    if tokens:
        raise RecordingError(
            "The cache is being cut, as assisted decoding does with drafts it rejects; a recording "
            "cannot follow that. Decode without an assistant."
        )


@dataclass
class _Inputs:
    """What a forward was given."""

    ids: Int[Tensor, "b t"]
    attention_mask: Tensor | None
    cached: int
    cache: Any

    def keep(self) -> Bool[Tensor, "b t"]:
        """Return False where a token is padding."""
        if self.attention_mask is None or self.attention_mask.ndim != 2:
            return torch.ones_like(self.ids, dtype=torch.bool)
        return self.attention_mask[:, -self.ids.shape[1] :].bool()


@dataclass
class _Part:
    """What one forward gave, a row per token."""

    sequence: npt.NDArray[Any]
    position: npt.NDArray[Any]
    token_id: npt.NDArray[Any]
    decode: npt.NDArray[Any]
    matrices: dict[str, npt.NDArray[Any]]
    statistics: TokenStatistics | None


@dataclass
class _Pending:
    """A prediction whose next token has not been seen yet."""

    statistics: TokenStatistics
    row: int
    logits: Tensor


class Recording:
    """What has been recorded; ``trace`` is ready when the ``with`` block has ended.

    Parameters
    ----------
    model
        The model that is recorded.
    statistics
        Whether to keep figures of the model's predictions.

    Examples
    --------
    >>> with skipviz.record(model) as recording:
    ...     _ = model.model(**model.tokenizer("The fox", return_tensors="pt"))
    >>> len(recording.trace)
    3
    """

    def __init__(self, model: SkipModel, *, statistics: bool) -> None:
        self.events = GateEvents()
        self._model = model
        self._statistics = statistics
        self._sites = len(model.family.sites(model.model))
        self._parts: list[_Part] = []
        self._lengths: list[int] = []
        self._cached: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()
        self._pending: dict[int, _Pending] = {}
        self._inputs: _Inputs | None = None
        self._trace: Trace | None = None

    @property
    def trace(self) -> Trace:
        """What was recorded.

        Raises
        ------
        RecordingError
            While the recording is under way.
        """
        if self._trace is None:
            raise RecordingError("The trace is ready when the `with skipviz.record()` block ends.")
        return self._trace

    def before_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the model is given; its cache will have grown when it returns."""
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            raise RecordingError(
                "The model was called without input_ids; embeddings have no tokens to record."
            )
        cache = kwargs.get("past_key_values")
        self.events.clear()
        self._inputs = _Inputs(
            ids=ids,
            attention_mask=kwargs.get("attention_mask"),
            cached=0 if cache is None else int(cache.get_seq_length()),
            cache=cache,
        )

    def after_forward(self, output: Any) -> None:
        """Keep the forward that has just ended."""
        inputs, self._inputs = self._inputs, None
        if inputs is None:  # the recording was opened inside this forward
            return
        keep = inputs.keep()
        counts = keep.sum(dim=1).tolist()
        sequences = self._sequences(inputs, getattr(output, "past_key_values", None))
        starts = [self._lengths[sequence] for sequence in sequences]
        for sequence, count in zip(sequences, counts, strict=True):
            self._lengths[sequence] += count
        part = _Part(
            sequence=np.repeat(np.array(sequences), counts),
            position=np.concatenate(
                [np.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
            ),
            token_id=inputs.ids[keep].cpu().numpy(),
            decode=np.full(sum(counts), inputs.cached > 0 and inputs.ids.shape[1] == 1),
            matrices=self.events.matrices(self._sites, keep),
            statistics=None,
        )
        if self._statistics:
            part.statistics = self._reduce(output.logits.detach(), inputs.ids, keep, sequences)
        self._parts.append(part)
        self.events.clear()

    def release(self) -> None:
        """Leave the caches that were recorded as they were."""
        for cache in self._cached:
            for name in ("reorder_cache", "crop"):
                vars(cache).pop(name, None)

    def finish(self) -> None:
        """Assemble the trace from what was recorded."""
        if not self._parts:
            raise RecordingError(
                "The model did not run in this thread while it was recorded. Call it, or its "
                "generate(), inside the `with` block and in the same thread."
            )
        sequence = np.concatenate([part.sequence for part in self._parts])
        position = np.concatenate([part.position for part in self._parts])
        order = np.lexsort((position, sequence))

        def joined(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
            return np.concatenate(arrays)[order]

        token_id = joined([part.token_id for part in self._parts])
        texts = token_texts(self._model.tokenizer, token_id)
        unknown = np.full(len(order), -1)
        statistics = [part.statistics for part in self._parts if part.statistics is not None]
        self._trace = build_trace(
            self._model,
            TokenColumns(
                source=[f"sequence {number}" for number in sequence[order]],
                sequence=sequence[order],
                position=position[order],
                token_id=token_id,
                text=texts,
                char_start=unknown,
                char_end=unknown,
                span=np.arange(len(order)),
                context=position[order] + 1,
                decode=joined([part.decode for part in self._parts]),
            ),
            {
                name: joined([part.matrices[name] for part in self._parts])
                for name in self._parts[0].matrices
            },
            statistics=concatenate(statistics).rows(torch.from_numpy(order))
            if statistics
            else None,
            policy=self._model.policy,
        )

    def _sequences(self, inputs: _Inputs, cache_after: Any) -> list[int]:
        rows = inputs.ids.shape[0]
        known = self._cached.get(inputs.cache) if inputs.cache is not None else None
        if inputs.cached and known is None:
            raise RecordingError(
                f"The model continued a cache of {inputs.cached} tokens that was filled before "
                "the recording began. Record the prefill too."
            )
        if known is None or not inputs.cached:
            known = list(range(len(self._lengths), len(self._lengths) + rows))
            self._lengths += [0] * rows
        cache = inputs.cache if inputs.cache is not None else cache_after
        if cache is not None:
            self._cached[cache] = known
            cache.reorder_cache = _refuse_beams
            cache.crop = _refuse_cuts
        return known

    def _reduce(
        self,
        logits: Tensor,
        ids: Int[Tensor, "b t"],
        keep: Bool[Tensor, "b t"],
        sequences: list[int],
    ) -> TokenStatistics:
        """Reduce the logits the model returned; positions without any stay NaN."""
        row, column = keep.nonzero(as_tuple=True)
        tokens = ids[keep]
        targets = torch.full_like(tokens, -1)
        same_row = row[1:] == row[:-1]
        targets[:-1][same_row] = tokens[1:][same_row]
        self._settle_pending(tokens, row, sequences)
        # generate() asks for the logits of the last position only.
        has = column >= ids.shape[1] - logits.shape[1]
        whole = len(tokens) == logits.shape[0] * logits.shape[1]
        kept = (
            logits.flatten(0, 1)  # a view; picking rows would copy 200 kB a token
            if whole
            else logits[row[has], column[has] - (ids.shape[1] - logits.shape[1])]
        )
        found = token_statistics(kept, targets[has])
        statistics = TokenStatistics(
            nll=torch.full((len(tokens),), torch.nan, device=logits.device),
            entropy=torch.full((len(tokens),), torch.nan, device=logits.device),
            top_ids=torch.full((len(tokens), TOP_K), -1, device=logits.device),
            top_probs=torch.full((len(tokens), TOP_K), torch.nan, device=logits.device),
        )
        for name in ("nll", "entropy", "top_ids", "top_probs"):
            getattr(statistics, name)[has] = getattr(found, name)
        last = torch.ones_like(has)
        last[:-1] = ~same_row
        where = torch.cumsum(has, 0) - 1
        for index in (last & has).nonzero().flatten().tolist():
            self._pending[sequences[int(row[index])]] = _Pending(
                statistics, index, kept[int(where[index])].clone()
            )
        return statistics

    def _settle_pending(self, tokens: Tensor, row: Tensor, sequences: list[int]) -> None:
        """Give each earlier last prediction its loss, now that the next token is known."""
        first = torch.ones_like(row, dtype=torch.bool)
        first[1:] = row[1:] != row[:-1]
        for index in first.nonzero().flatten().tolist():
            pending = self._pending.pop(sequences[int(row[index])], None)
            if pending is not None:
                settled = token_statistics(pending.logits[None], tokens[index : index + 1])
                pending.statistics.nll[pending.row] = settled.nll[0]
