"""Has a model write a text, and records every step of it."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from skipviz.errors import InputError, Stopped
from skipviz.families.causal_lm import layer_list
from skipviz.families.hooks import before, hooked
from skipviz.families.powers import layer_count_of, traits_of
from skipviz.models import SkipModel
from skipviz.models.handle import check_evaluating
from skipviz.progress import Meter, Progress, check_seed, check_stop, no_progress
from skipviz.recording.build import UNFINISHED, texts_within, whole_characters
from skipviz.recording.inputs import prompt_ids
from skipviz.recording.recorder import Recording, id_set, record
from skipviz.recording.tracing import drawing_from
from skipviz.schema import site_frame
from skipviz.text.arguments import checked
from skipviz.text.documents import storable
from skipviz.traces import Trace, depth_columns

Phase = Literal["prefill", "decode"]
Ended = Literal["end token", "stop string", "max_new_tokens", "context", "stopped"]
LONGEST_CHARACTER = 8
"""Tokens that are waited for to make a character whole."""
SOURCE = "generated text"
LEAST_TEMPERATURE = 1e-6
"""Below it logits divided by it are no numbers any more."""
LONGEST_STOP_STRING = 1000


@dataclass(frozen=True, kw_only=True)
class StreamedToken:
    """One token of a text that is being written.

    Attributes
    ----------
    position
        Its place in the text, from 0.
    token_id
        The token.
    text
        The characters that it adds. A character of several tokens comes with the last of them, and
        the token with which the model ends a text adds none.
    phase
        ``prefill`` for the tokens of the prompt, ``decode`` for those that were written.
    layers_used
        As in the trace; None where it was not run, as the last token, which nothing reads.

    Examples
    --------
    >>> generation = skipviz.generate(model, "The quick brown", max_new_tokens=2)
    >>> generation.tokens[0].text, generation.tokens[0].phase, generation.tokens[-1].layers_used
    ('The', 'prefill', None)
    """

    position: int
    token_id: int
    text: str
    phase: Phase
    layers_used: float | None


OnToken = Callable[[StreamedToken], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Generation:
    """What a model wrote, and how.

    Attributes
    ----------
    tokens
        Every token, those of the prompt first.
    trace
        What was run: the prompt, and what was written but for the last token, which nothing reads.
        ``phase`` tells one from the other.
    ended
        Why it ended: the model wrote its ``end token``; it wrote a ``stop string``; there were
        ``max_new_tokens``; the ``context`` was full; or it was ``stopped``.
    seconds_to_first
        From the beginning to the first token, in seconds: the prefill.
    seconds_after
        From the first token to the last, in seconds. What ``on_token`` took is left out.

    Examples
    --------
    >>> generation = skipviz.generate(model, "The quick brown", max_new_tokens=8)
    >>> generation.ended, len(generation.written), generation.tokens_per_second > 0
    ('max_new_tokens', 8, True)
    >>> [generation.trace.tokens.filter(phase=phase).height for phase in ("prefill", "decode")]
    [6, 7]
    """

    tokens: tuple[StreamedToken, ...]
    trace: Trace
    ended: Ended
    seconds_to_first: float
    seconds_after: float

    def __repr__(self) -> str:
        start = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"Generation({start!r}, {len(self.written)} tokens, ended={self.ended!r})"

    @property
    def read(self) -> tuple[StreamedToken, ...]:
        """The tokens of the prompt."""
        return tuple(token for token in self.tokens if token.phase == "prefill")

    @property
    def written(self) -> tuple[StreamedToken, ...]:
        """The tokens that the model wrote."""
        return tuple(token for token in self.tokens if token.phase == "decode")

    @property
    def prompt(self) -> str:
        """What it was given, with what a chat template adds."""
        return "".join(token.text for token in self.read)

    @property
    def text(self) -> str:
        """What it wrote after the prompt."""
        return "".join(token.text for token in self.written)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens written per second after the first one, in this run; None for a single token."""
        steps = len(self.written) - 1
        return steps / self.seconds_after if steps and self.seconds_after > 0 else None

    def mean_layers(self, phase: Phase) -> float | None:
        """Return the mean of layers used by the tokens of one phase.

        Parameters
        ----------
        phase
            ``prefill`` for the tokens of the prompt, ``decode`` for those that were written.

        Returns
        -------
        float | None
            0 to the layers that there are; None where no token of the phase was run.
        """
        used = self.trace.tokens.filter(pl.col("phase") == phase)["layers_used"]
        return None if used.is_empty() else float(used.to_numpy().mean())


@checked
def generate(
    model: SkipModel,
    prompt: Any,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop_strings: Sequence[str] = (),
    seed: int = 0,
    on_token: OnToken | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Generation:
    """Have a model go on from a prompt, and return what it wrote with a trace of every step.

    The text is that of transformers' own ``generate`` with the same settings. What the model's
    generation configuration asks beside them, such as a penalty for repetitions, holds.

    Parameters
    ----------
    model
        What ``skipviz.load`` returned.
    prompt
        A text; a conversation, as a list of messages with ``role`` and ``content``, to which the
        chat template opens an answer; or token ids. Names of control tokens in a text or a message
        are text.
    max_new_tokens
        Tokens to write at most, from 1. There are fewer where the model's context is full before.
    temperature
        0: the most likely token each time. Above 0: tokens are drawn, the more evenly the higher.
    top_p, top_k
        Draw among the most likely tokens only: so many that their probabilities come to ``top_p``,
        above 0 and at most 1; the first ``top_k``, 0 for all.
    stop_strings
        End where the text has one of these, which stays in it.
    seed
        Of the draws.
    on_token
        Called with each ``StreamedToken`` once it has been run, those of the prompt first, and the
        last one at the end. It may raise ``skipviz.Stopped`` to end here.
    progress
        Called with the share of ``max_new_tokens`` that is written, 0 to 1.
    stop
        Set it from another thread to end here. What was written stays.

    Returns
    -------
    Generation
        The text, its trace, why it ended, and how long it took.

    Raises
    ------
    InputError
        If a setting is out of range, the prompt is longer than the context, it is a conversation
        and there is no chat template, or the model cannot write.
    Stopped
        If it was stopped before a token was written.

    Examples
    --------
    >>> written = []
    >>> keep = lambda token: written.append(token.text)
    >>> generation = skipviz.generate(model, "The quick brown", max_new_tokens=8, on_token=keep)
    >>> "".join(written) == "The quick brown" + generation.text
    True
    """
    check_evaluating(model)
    if not traits_of(model.family, model.model).predicts:
        raise InputError(
            f"{model.name} reads a text as a whole and predicts no next token, so it cannot write. "
            "Give a model that predicts one."
        )
    ids = prompt_ids(model, prompt)
    _check_settings(max_new_tokens, temperature, top_p, top_k, stop_strings)
    check_seed(seed)
    room = model.context - len(ids) + 1  # the last token is written and never read
    if room < 1:
        raise InputError(
            f"The prompt has {len(ids):,} tokens, and {model.name} sees at most "
            f"{model.context:,} at once. Give a shorter one."
        )
    if not all(hasattr(model.model, name) for name in ("generate", "generation_config")):
        raise InputError(
            f"{type(model.model).__name__} has no generate() of transformers, so it cannot write. "
            "Give a transformers causal LM."
        )
    for name in ("assistant_early_exit", "prompt_lookup_num_tokens"):
        if (value := getattr(model.model.generation_config, name, None)) is not None:
            raise InputError(
                f"The generation configuration of {model.name} asks for drafts ({name}={value}), "
                "which change nothing of what is written. Set it to None; skipviz.record can "
                "record drafts by early exit."
            )
    limit = min(max_new_tokens, room)
    given = torch.tensor([ids], device=model.device)
    strings = _stopping(model, stop_strings)
    options: dict[str, Any] = {
        "generation_config": _configuration(model, limit, temperature, top_p, top_k),
        "stopping_criteria": strings,
    }
    layers = [] if stop is None else list(layer_list(model.model) or ())
    stopped = False
    with (
        torch.inference_mode(),
        drawing_from(seed),
        hooked(before(layer, lambda *_: check_stop(stop)) for layer in layers),
        record(model) as recording,
    ):
        writer = _Writer(model, recording, ids, on_token, Meter(limit, progress, stop))
        try:
            model.model.generate(
                given, attention_mask=torch.ones_like(given), streamer=writer, **options
            )
        except Stopped:
            stopped = True
            if not writer.written:
                raise
    return Generation(
        tokens=tuple(writer.tokens(recording.trace)),
        trace=_named(recording.trace, seed),
        ended=_why(model, writer, stopped, limit, max_new_tokens, strings),
        seconds_to_first=writer.seconds_to_first,
        seconds_after=writer.seconds_after,
    )


def _named(trace: Trace, seed: int) -> Trace:
    """Say in a trace what it is of, and what its gates drew from where they draw."""
    draws = (trace.sites["rule"] == "sample").any()
    return replace(
        trace,
        run=trace.run.with_columns(seed=pl.lit(seed, pl.Int64)) if draws else trace.run,
        tokens=trace.tokens.with_columns(source=pl.lit(SOURCE)),
    )


class _Writer:
    """What transformers' ``generate`` hands the prompt and then each token; its streamer."""

    def __init__(
        self,
        model: SkipModel,
        recording: Recording,
        ids: list[int],
        on_token: OnToken | None,
        meter: Meter,
    ) -> None:
        self._recording = recording
        self._on_token = on_token
        self._meter = meter
        self._sites = site_frame(model.family.sites(model.model))
        self._layers = layer_count_of(model.family, model.model)
        self._characters = _Characters(model.tokenizer)
        self._ends = _end_ids(model)
        numbers = np.array(ids, dtype=np.int64)
        texts, span = whole_characters(model.tokenizer, numbers, np.zeros_like(numbers))
        first = np.diff(span, prepend=-1) > 0
        self.ids = ids
        self.prompt_pieces = [
            text if begins else "" for text, begins in zip(texts, first, strict=True)
        ]
        self.written: list[int] = []
        self.pieces: list[str] = []
        self._told = 0
        self._prompt_is_through = False
        self._began = time.perf_counter()
        self._first = self._last = self._began
        self._elsewhere = 0.0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, and then a token at a time, each after the forward that it is from."""
        if not self._prompt_is_through:
            self._prompt_is_through = True
            self._began = time.perf_counter()
            return
        token = int(value.item())
        self._last = time.perf_counter() - self._elsewhere
        if not self.written:
            self._first = self._last
        self.written.append(token)
        ends = token in self._ends
        self.pieces.append(self._characters.rest() if ends else self._characters.add(token))
        self._tell(len(self.ids) + len(self.written) - 1)
        self._meter.advance()

    def end(self) -> None:
        """Take it that no token follows."""
        self.pieces[-1] += self._characters.rest()
        self._tell(len(self.ids) + len(self.written))

    @property
    def seconds_to_first(self) -> float:
        """From the beginning to the first token."""
        return self._first - self._began

    @property
    def seconds_after(self) -> float:
        """From the first token to the last."""
        return self._last - self._first

    def _tell(self, stop: int) -> None:
        """Tell of the tokens up to one, which have been run."""
        if self._on_token is None:
            return
        began = time.perf_counter()
        places, counts = self._recording.latest
        layers, _ = depth_columns(self._sites, counts, layers=self._layers)
        used = dict(zip(places.tolist(), layers.tolist(), strict=True))
        for place in range(self._told, stop):
            self._told = place + 1
            self._on_token(self._token(place, used.get(place)))
        self._elsewhere += time.perf_counter() - began

    def tokens(self, trace: Trace) -> Iterator[StreamedToken]:
        """Yield every token of the prompt and of what was written, with its layers in a trace."""
        self.pieces[-1] += self._characters.rest()
        used = dict(trace.tokens.select("position", "layers_used").iter_rows())
        for place in range(len(self.ids) + len(self.written)):
            yield self._token(place, used.get(place))

    def _token(self, place: int, layers_used: float | None) -> StreamedToken:
        read, after = place < len(self.ids), place - len(self.ids)
        return StreamedToken(
            position=place,
            token_id=self.ids[place] if read else self.written[after],
            text=self.prompt_pieces[place] if read else self.pieces[after],
            phase="prefill" if read else "decode",
            layers_used=layers_used,
        )


class _Characters:
    """Makes characters of tokens as they come."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._open: list[int] = []

    def add(self, token: int) -> str:
        """Return the characters that are whole with this token."""
        self._open.append(token)
        text = self._text()
        if text.endswith(UNFINISHED) and len(self._open) < LONGEST_CHARACTER:
            return ""
        self._open.clear()
        return text

    def rest(self) -> str:
        """Return what is left of a character that was not finished."""
        text = self._text() if self._open else ""
        self._open.clear()
        return text

    def _text(self) -> str:
        (text,) = texts_within(self._tokenizer, [self._open])
        return text


def _check_settings(
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    stop_strings: Sequence[str],
) -> None:
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens} writes nothing; give at least 1.")
    if temperature != 0 and not LEAST_TEMPERATURE <= temperature < float("inf"):
        raise InputError(
            f"temperature={temperature} must be 0, for the most likely token each time, or a "
            f"number from {LEAST_TEMPERATURE}."
        )
    if not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p} must be above 0 and at most 1.")
    if top_k < 0:
        raise InputError(f"top_k={top_k} must be 0, for all tokens, or a number from 1.")
    if not all(stop_strings):
        raise InputError("A stop string is empty; leave it out.")
    for each in stop_strings:
        if len(each) > LONGEST_STOP_STRING:
            raise InputError(
                f"A stop string has {len(each):,} characters; {LONGEST_STOP_STRING} are the most."
            )
        if storable(each) != each:
            raise InputError(f"The stop string {each!r} has half a character; leave it out.")


def _configuration(
    model: SkipModel, limit: int, temperature: float, top_p: float, top_k: int
) -> Any:
    """Return the model's own configuration of generating, with what was asked put in."""
    config = copy.deepcopy(model.model.generation_config)
    config.max_new_tokens, config.max_length = limit, None
    config.num_beams, config.num_return_sequences = 1, 1
    config.return_dict_in_generate = False
    config.do_sample = temperature > 0
    drawn = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    for name, value in drawn.items():
        setattr(config, name, value if config.do_sample else None)
    if config.pad_token_id is None:  # there is no padding, and transformers would warn of that
        config.pad_token_id = next(iter(_end_ids(model)), 0)
    return config


def _stopping(model: SkipModel, stop_strings: Sequence[str]) -> Any:
    from transformers import StoppingCriteriaList, StopStringCriteria

    found = StoppingCriteriaList()
    if stop_strings:
        found.append(StopStringCriteria(model.tokenizer, list(stop_strings)))
    return found


def _end_ids(model: SkipModel) -> set[int]:
    """Return the tokens with which the model ends a text."""
    return id_set(getattr(model.model.generation_config, "eos_token_id", None))


def _why(
    model: SkipModel, writer: _Writer, stopped: bool, limit: int, max_new_tokens: int, strings: Any
) -> Ended:
    """Return why a text ended."""
    if stopped:
        return "stopped"
    if writer.written[-1] in _end_ids(model):
        return "end token"
    ids = torch.tensor([writer.ids + writer.written], device=model.device)
    if len(strings) and bool(strings(ids, None).any()):
        return "stop string"
    return "max_new_tokens" if limit == max_new_tokens else "context"
