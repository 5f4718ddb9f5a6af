"""Records what a model does while a program of the user runs it.

Hooks go in when a recording starts and come out when it ends, however it ends. They only read.
A recording hears the forwards of the thread that opened it, so recordings in other threads, and
recordings inside it, keep apart.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from skipviz.errors import RecordingError
from skipviz.families.hooks import after, before, guarded, hooked
from skipviz.families.powers import layer_count_of, traits_of
from skipviz.models import SkipModel
from skipviz.recording.build import TokenColumns, build_trace, whole_characters
from skipviz.recording.drafts import (
    REJECTED,
    DraftedGeneration,
    DraftedRows,
    around_generate,
)
from skipviz.recording.events import GateEvents
from skipviz.recording.replacing import Call, replace_method
from skipviz.recording.statistics import TokenStatistics, concatenate, token_statistics
from skipviz.recording.text_class import TextClass, logits_in, text_classes
from skipviz.schema import TOP_K
from skipviz.text.arguments import checked
from skipviz.traces import Trace


@checked
@contextmanager
def record(model: SkipModel, *, statistics: bool = True) -> Iterator[Recording]:
    """Record every forward of the model in this thread, your own or ``generate``'s.

    Each forward without a cache starts new sequences, unless it is the last one and a token more,
    as in generating without a cache; one with a cache continues those that filled it. Padding, as
    the attention mask has it, is left out, and so is what a batch is filled with after a text has
    ended. Beam search reorders the cache behind the model's back, and assisted decoding cuts it;
    neither can be recorded. Sample or decode greedily. Drafts by the model's own first layers
    (``assistant_early_exit``) are recorded where the family is
    ``skipviz.families.published.layer_skip.LayerSkip``.

    Your own run is never disturbed: what cannot be recorded is said when the block ends, and what
    was recorded before stays in ``Recording.trace``.

    Parameters
    ----------
    model
        What ``skipviz.load`` returned; run ``model.model`` inside the block.
    statistics
        Whether to keep loss, entropy and the five most likely next tokens of every position whose
        logits the model returned; of a model that predicts a class of a text, this class.

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
            lambda _, args, kwargs: recording.noting(recording.before_forward, args, kwargs),
            with_kwargs=True,
        ),
        after(
            model.model, lambda _, args, output: recording.noting(recording.after_forward, output)
        ),
    ]
    try:
        with recording.around_generations(), hooked(hooks), ExitStack() as stack:
            with guarded(recording.noting):
                stack.enter_context(model.family.observe(model.model, recording.events))
            yield recording
    finally:
        recording.release()
    recording.finish()


BEAMS = (
    "Beam search changes the order of texts in the cache, which a recording cannot follow. Sample "
    "or decode greedily."
)
CUTS = (
    "The cache was cut, as assisted decoding does with drafts it rejects; a recording cannot "
    "follow that. Decode without an assistant; drafts by the model's own first layers "
    "(assistant_early_exit) are recorded with from_parts(..., family=LayerSkip()) of "
    "skipviz.families.published.layer_skip."
)
UNDRAFTED = (
    "The family layerskip records drafts, and there were none: call the model's own "
    "generate(..., assistant_early_exit=E) inside the block, with a text to write of two tokens or "
    "more. Leave family out to record other runs."
)
MOVED = (
    "Texts were taken out of the cache, put into another order or repeated, which a recording "
    "cannot follow. Fill a cache of its own for each text."
)
CACHE_CHANGES = {
    "reorder_cache": BEAMS,
    "crop": CUTS,
    "batch_select_indices": MOVED,
    "batch_repeat_interleave": MOVED,
}
"""What changes the texts of a cache, and what is then said."""


CARRIED = ("cache", "past_key_values", "cache_params", "state", "mems", "past_buckets_states")
"""What models call that which a forward leaves to the next: keys and values, or a state."""


def _carried(get: Callable[[str], Any]) -> Any:
    """Return what a forward was given of earlier ones, or leaves to later ones; None without any.

    Raises
    ------
    RecordingError
        If it is of a kind that cannot be followed: a list, or a tuple.
    """
    found = next((each for name in CARRIED if (each := get(name)) is not None), None)
    if found is not None and not hasattr(found, "__weakref__"):
        raise RecordingError(
            f"This model carries its text on in a {type(found).__name__}, which a recording cannot "
            "follow from one forward to the next. Run it without: use_cache=False."
        )
    return found


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


@dataclass(eq=False)
class _Part:
    """What one forward gave, a row per token."""

    sequence: npt.NDArray[Any]
    position: npt.NDArray[Any]
    token_id: npt.NDArray[Any]
    decode: npt.NDArray[Any]
    matrices: dict[str, npt.NDArray[Any]]
    statistics: TokenStatistics | None
    drafted: DraftedRows | None = None
    """Where tokens were drafted, more of what is known of them."""
    classes: list[TextClass | None] | None = None
    """What was predicted of each token's text, if a class is."""


@dataclass(eq=False)
class _Uncached:
    """The last forward without a cache, and how long its prompt was."""

    ids: Int[Tensor, "b t"]
    sequences: list[int]
    prompt: int
    part: _Part


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
        traits = traits_of(model.family, model.model)
        self._statistics = statistics and traits.predicts
        self._reads_whole = not traits.predicts
        self._keeps_classes = statistics and self._reads_whole
        self._sites = len(model.family.sites(model.model))
        self._silent = traits.silent
        self._parts: list[_Part] = []
        self._lengths: list[int] = []
        self._cached: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()
        self._undo: weakref.WeakKeyDictionary[Any, list[Callable[[], None]]] = (
            weakref.WeakKeyDictionary()
        )
        self._pending: dict[int, _Pending] = {}
        self._inputs: _Inputs | None = None
        self._trace: Trace | None = None
        self._problem: Exception | None = None
        self._uncached: _Uncached | None = None
        self._ended: set[int] = set()
        self._drafts = traits.drafts
        self._layers = layer_count_of(model.family, model.model)  # fewer while it drafts
        self._generation: DraftedGeneration | None = None
        self._sources: dict[int, str] = {}
        generation = getattr(model.model, "generation_config", None) or model.model.config
        self._ends = id_set(getattr(generation, "eos_token_id", None))
        self._pads = self._ends | id_set(getattr(generation, "pad_token_id", None))

    def noting(self, work: Callable[..., None], *given: Any) -> None:
        """Do work beside the user's forward, which goes on whatever becomes of it."""
        if self._problem is None:
            try:
                work(*given)
            except Exception as error:
                self._problem = error

    @property
    def decisions(self) -> dict[str, npt.NDArray[Any]]:
        """What was recorded as arrays, also where no trace could be made of it.

        ``sequence``, ``position`` and ``token_id`` of each token, [tokens]; the matrices of a
        trace, [tokens, sites].
        """
        names = ("sequence", "position", "token_id")
        if not self._parts:
            raise RecordingError("Nothing was recorded, so there are no decisions.")
        found = {
            name: np.concatenate([getattr(part, name) for part in self._parts]) for name in names
        }
        matrices = self._parts[0].matrices
        return found | {
            name: np.concatenate([part.matrices[name] for part in self._parts]) for name in matrices
        }

    @property
    def latest(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The places of the last forward's tokens, [tokens], and what ran for each.

        That is how often each unit ran, [tokens, sites]. Both are empty before any forward.
        """
        if not self._parts:
            return np.zeros(0, dtype=np.int64), np.zeros((0, self._sites), dtype=np.uint8)
        return self._parts[-1].position, self._parts[-1].matrices["exec_count"]

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

    def around_generations(self) -> AbstractContextManager[None]:
        """Follow each ``generate`` of this block, where the family drafts."""
        return around_generate(self._model.model, self._write) if self._drafts else nullcontext()

    def before_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the model is given; its cache will have grown when it returns."""
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            raise RecordingError(
                "The model was called without input_ids; embeddings have no tokens to record."
            )
        cache = _carried(kwargs.get)
        self.events.clear()
        self._inputs = _Inputs(
            ids=ids,
            attention_mask=kwargs.get("attention_mask"),
            cached=0 if cache is None else self._held(cache),
            cache=cache,
        )

    def after_forward(self, output: Any) -> None:
        """Keep the forward that has just ended."""
        inputs, self._inputs = self._inputs, None
        if inputs is None:  # the recording was opened inside this forward
            return
        if self._drafts:
            self._draft(inputs, output)
            return
        before = self._before(inputs)
        sequences = before.sequences if before else self._sequences(inputs, output)
        keep = self._texts(inputs, sequences)
        counts = keep.sum(dim=1).tolist()
        starts = [self._lengths[sequence] for sequence in sequences]
        for sequence, count in zip(sequences, counts, strict=True):
            self._lengths[sequence] += count
        part = _Part(
            sequence=np.repeat(np.array(sequences), counts),
            position=np.concatenate(
                [np.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
            ),
            token_id=inputs.ids[keep].cpu().numpy(),
            decode=self._decoded(inputs, keep, before),
            matrices=self.events.matrices(self._sites, keep, silent=self._silent),
            statistics=None,
        )
        if self._statistics:
            part.statistics = self._reduce(
                output.logits.detach(), inputs.ids, keep, sequences, again=before is not None
            )
        if self._keeps_classes:
            of_texts = text_classes(self._model.model, logits_in(output))
            part.classes = [
                each for each, count in zip(of_texts, counts, strict=True) for _ in range(count)
            ]
        if before:
            _keep_earlier(part, self._parts.pop())
        self._parts.append(part)
        self.events.clear()
        if inputs.cache is None:
            prompt = before.prompt if before else inputs.ids.shape[1]
            self._uncached = _Uncached(inputs.ids, sequences, prompt, part)

    def release(self) -> None:
        """Leave the caches that were recorded as they were."""
        for undo in [each for undos in self._undo.values() for each in undos]:
            undo()
        self._undo.clear()

    def finish(self) -> None:
        """Assemble the trace from what was recorded."""
        problem = self._problem
        if self._parts:
            try:
                self._assemble()
            except Exception as error:
                raise RecordingError(
                    f"No trace can be made of what was recorded ({type(error).__name__}: "
                    f"{error!s:.200}). The decisions are in `recording.decisions`."
                ) from error
        if problem is not None:
            said = str(problem) if isinstance(problem, RecordingError) else (
                f"A forward could not be recorded ({type(problem).__name__}: {problem!s:.200})."
            )  # fmt: skip
            kept = sum(len(part.token_id) for part in self._parts)
            rest = f" What was recorded before, {kept:,} tokens, is in `recording.trace`."
            raise RecordingError(said + (rest if kept else "")) from problem
        if not self._parts:
            raise RecordingError(
                "The model did not run in this thread while it was recorded. Call it, or its "
                "generate(), inside the `with` block and in the same thread."
            )

    def _assemble(self) -> None:
        sequence = np.concatenate([part.sequence for part in self._parts])
        position = np.concatenate([part.position for part in self._parts])
        order = np.lexsort((position, sequence))

        def joined(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
            return np.concatenate(arrays)[order]

        token_id = joined([part.token_id for part in self._parts])
        drafted = [part.drafted for part in self._parts if part.drafted is not None]
        context, together = position[order] + 1, sequence[order]
        if self._reads_whole:  # each token sees all others
            context = np.array(self._lengths)[together]
        if drafted:
            context = joined([rows.context for rows in drafted])
            runs = joined([rows.run for rows in drafted])
            together = np.unique(np.stack([together, runs]), axis=1, return_inverse=True)[1].ravel()
        texts, span = whole_characters(self._model.tokenizer, token_id, together)
        unknown = np.full(len(order), -1)
        statistics = [part.statistics for part in self._parts if part.statistics is not None]
        self._trace = build_trace(
            self._model,
            TokenColumns(
                source=[
                    self._sources.get(number, f"sequence {number}")
                    for number in sequence[order].tolist()
                ],
                sequence=sequence[order],
                position=position[order],
                token_id=token_id,
                text=texts,
                char_start=unknown,
                char_end=unknown,
                span=span,
                context=context,
                decode=joined([part.decode for part in self._parts]),
                draft=joined([np.array(rows.phase) == "draft" for rows in drafted])
                if drafted
                else None,
            ),
            {
                name: joined([part.matrices[name] for part in self._parts])
                for name in self._parts[0].matrices
            },
            statistics=concatenate(statistics).rows(torch.from_numpy(order))
            if statistics
            else None,
            policy=self._model.policy,
            classes=self._classes_in(order),
        )

    def _classes_in(self, order: npt.NDArray[Any]) -> list[TextClass | None] | None:
        """Return what was predicted of each token's text, in the order of the trace."""
        parts = [part.classes for part in self._parts if part.classes is not None]
        told = [each for part in parts for each in part]
        return [told[place] for place in order] if parts else None

    def _write(self, generate: Call, *args: Any, **kwargs: Any) -> Any:
        """Follow one ``generate``; one from within it drafts."""
        if self._generation is not None:
            self.noting(self._check_exit)
            self._generation.drafting = True
            try:
                return generate(*args, **kwargs)
            finally:
                self._generation.drafting = False
        self._generation = DraftedGeneration(statistics=self._statistics)
        try:
            made = generate(*args, **kwargs)
            self.noting(self._keep_generation, made)
            return made
        except BaseException:
            self._problem = self._problem or RecordingError(
                "A generation was broken off, so that it is not known what its text is."
            )
            raise
        finally:
            self._generation = None

    def _check_exit(self) -> None:
        layers = self._layers
        if self._model.model.config.num_hidden_layers >= layers:
            raise RecordingError(
                f"Drafts by all {layers} layers would look like verification; give an "
                f"assistant_early_exit from 1 to {layers - 1}."
            )

    def _draft(self, inputs: _Inputs, output: Any) -> None:
        """Keep a forward of a generation that drafts."""
        if self._generation is None:
            raise RecordingError(UNDRAFTED)
        keep = inputs.keep()
        if inputs.ids.shape[0] > 1 or not keep.all():
            raise RecordingError(
                "Drafts are recorded of one text at once, without padding; generate each alone."
            )
        self._generation.add(
            inputs.ids[keep].tolist(),
            held=inputs.cached,
            matrices=self.events.matrices(self._sites, keep, silent=self._silent),
            logits=output.logits,
        )
        self.events.clear()

    def _keep_generation(self, made: Any) -> None:
        """Keep a generation that has ended: its text, and the drafts that were rejected."""
        generation = self._generation
        if generation is None or not generation.drafts_seen:
            raise RecordingError(UNDRAFTED)
        text, rejected = generation.finish(getattr(made, "sequences", made)[0].tolist())
        name = f"sequence {len(self._lengths)}"
        for rows, source in ((text, name), (rejected, f"{name}, {REJECTED}")):
            if rows is None:
                continue
            sequence, count = len(self._lengths), len(rows.token_id)
            self._sources[sequence] = source
            self._lengths.append(count)
            self._parts.append(
                _Part(
                    sequence=np.full(count, sequence),
                    position=np.arange(count),
                    token_id=rows.token_id,
                    decode=np.array([phase != "prefill" for phase in rows.phase]),
                    matrices=rows.matrices,
                    statistics=rows.statistics if self._statistics else None,
                    drafted=rows,
                )
            )

    def _before(self, inputs: _Inputs) -> _Uncached | None:
        """Return the last forward if this is it and a token more, without a cache."""
        last = self._uncached
        if last is None or inputs.cache is not None or not self._parts:
            return None
        if self._parts[-1] is not last.part or inputs.ids.shape[1] != last.ids.shape[1] + 1:
            return None
        if inputs.ids.shape[0] != last.ids.shape[0]:
            return None
        if not torch.equal(inputs.ids[:, :-1], last.ids):
            return None
        for sequence in last.sequences:
            self._lengths[sequence] = 0
        return last

    def _texts(self, inputs: _Inputs, sequences: list[int]) -> Bool[Tensor, "b t"]:
        """Return False where a token is padding, before a text or after its end."""
        keep = inputs.keep().clone()
        if inputs.cached and inputs.ids.shape[1] == 1:
            for row, (sequence, token) in enumerate(
                zip(sequences, inputs.ids[:, 0].tolist(), strict=True)
            ):
                if sequence in self._ended and token in self._pads:
                    keep[row] = False
                elif token in self._ends:
                    self._ended.add(sequence)
        return keep

    def _decoded(
        self, inputs: _Inputs, keep: Bool[Tensor, "b t"], before: _Uncached | None
    ) -> npt.NDArray[np.bool_]:
        """Return which tokens were generated one by one."""
        if inputs.cached:
            return np.full(int(keep.sum()), inputs.ids.shape[1] == 1)
        prompt = before.prompt if before else inputs.ids.shape[1]
        later = torch.arange(inputs.ids.shape[1], device=keep.device) >= prompt
        found: npt.NDArray[np.bool_] = later.expand_as(keep)[keep].cpu().numpy()
        return found

    def _sequences(self, inputs: _Inputs, output: Any) -> list[int]:
        cache_after = _carried(lambda name: getattr(output, name, None))
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
            if cache not in self._cached:
                self._watch(cache)
            self._cached[cache] = known
        return known

    def _held(self, cache: Any) -> int:
        """Return how many tokens a cache holds."""
        try:
            return int(cache.get_seq_length())
        except (AttributeError, ValueError):  # it has no keys, as Mamba's
            known = self._cached.get(cache, [])
            return max((self._lengths[sequence] for sequence in known), default=0)

    def _watch(self, cache: Any) -> None:
        """Note when a cache's texts change; its owner goes on."""

        def noticing(name: str, said: str) -> Call:
            def call(method: Call, *given: Any, **named: Any) -> Any:
                cuts_nothing = name == "crop" and not any((*given, *named.values()))
                if not cuts_nothing:
                    self._problem = self._problem or RecordingError(said)
                return method(*given, **named)

            return call

        self._undo[cache] = [
            replace_method(cache, name, noticing(name, said))
            for name, said in CACHE_CHANGES.items()
            if hasattr(cache, name)
        ]

    def _reduce(
        self,
        logits: Tensor,
        ids: Int[Tensor, "b t"],
        keep: Bool[Tensor, "b t"],
        sequences: list[int],
        *,
        again: bool,
    ) -> TokenStatistics:
        """Reduce the logits the model returned; positions without any stay NaN."""
        row, column = keep.nonzero(as_tuple=True)
        tokens = ids[keep]
        targets = torch.full_like(tokens, -1)
        same_row = row[1:] == row[:-1]
        targets[:-1][same_row] = tokens[1:][same_row]
        self._settle_pending(tokens, row, sequences, again=again)
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

    def _settle_pending(
        self, tokens: Tensor, row: Tensor, sequences: list[int], *, again: bool
    ) -> None:
        """Give each earlier last prediction its loss, now that the next token is known.

        It comes first, or last where all that came before has been run again.
        """
        next_ = torch.ones_like(row, dtype=torch.bool)
        differs = row[1:] != row[:-1]
        if again:
            next_[:-1] = differs
        else:
            next_[1:] = differs
        for index in next_.nonzero().flatten().tolist():
            pending = self._pending.pop(sequences[int(row[index])], None)
            if pending is not None:
                settled = token_statistics(pending.logits[None], tokens[index : index + 1])
                pending.statistics.nll[pending.row] = settled.nll[0]


def _keep_earlier(part: _Part, earlier: _Part) -> None:
    """Take what this forward gave no logits for from the one before, a token shorter."""
    if part.statistics is None or earlier.statistics is None:
        return
    place = {key: index for index, key in enumerate(zip(part.sequence, part.position, strict=True))}
    here = torch.tensor(
        [place[key] for key in zip(earlier.sequence, earlier.position, strict=True)]
    )
    for name in ("nll", "entropy", "top_ids", "top_probs"):
        mine, other = getattr(part.statistics, name), getattr(earlier.statistics, name)
        missing = part.statistics.entropy[here].isnan() if name != "nll" else mine[here].isnan()
        mine[here[missing]] = other[missing]


def id_set(value: Any) -> set[int]:
    """Return the ids that a generation's configuration holds: none, one or several."""
    if value is None:
        return set()
    return {int(each) for each in (value if isinstance(value, list | tuple) else [value])}
