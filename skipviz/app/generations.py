"""A text that the page has a model write: what is asked, what there is so far, what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from skipviz.app.components.run_button import PATHS, follow, jobs
from skipviz.app.frame.stored import documents_of
from skipviz.app.jobs import Request, ids_of
from skipviz.app.served import check_token_count
from skipviz.app.state import state
from skipviz.app.worker import Job
from skipviz.errors import SkipvizError, Stopped
from skipviz.families.powers import layer_count_of
from skipviz.models import SkipModel
from skipviz.models.handle import Runtime
from skipviz.models.runtimes import with_runtime
from skipviz.plots.style.palette import possible_layers
from skipviz.recording.generating import Generation, StreamedToken, generate
from skipviz.recording.inputs import prompt_ids
from skipviz.schema import site_frame

Side = Literal["own", "dense"]
WARM_UP = 16, 2
"""Tokens of the prompt that a model reads, and tokens that it writes, before it is timed: the first
run of a model sets up what later ones need."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What is asked beside model and prompt.

    Attributes
    ----------
    max_new_tokens, temperature, top_p, top_k, seed, stop_strings
        As ``skipviz.generate`` takes them.
    runtime
        Masked or gathered.
    beside_dense
        Whether the dense model writes too, after the same prompt and from the same seed.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop_strings: tuple[str, ...]
    runtime: Runtime
    beside_dense: bool


@dataclass
class Written:
    """What there is of the texts so far; the run adds to it, and the page looks at it.

    Attributes
    ----------
    ends
        The fewest and the most layers that a token can use.
    tokens
        Of the model's text, and of the dense model's.
    enough
        Set by the page when the text is to end here.
    """

    ends: tuple[float, float]
    tokens: dict[Side, list[StreamedToken]] = field(
        default_factory=lambda: {"own": [], "dense": []}
    )
    enough: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether a token was written, so that there is something to keep."""
        return any(token.phase == "decode" for token in self.tokens["own"])

    def told(self, side: Side) -> Callable[[StreamedToken], None]:
        """Return what takes the tokens of a text as they come."""

        def on_token(token: StreamedToken) -> None:
            self.tokens[side].append(token)
            if self.enough and token.phase == "decode":
                raise Stopped

        return on_token


@dataclass(frozen=True, kw_only=True, eq=False)
class WrittenTexts:
    """What came out.

    Attributes
    ----------
    own, dense
        The model's text, and the dense model's, if it was asked for.
    ends
        As of ``Written``.
    why_no_dense
        Why the dense model wrote nothing though it was asked to; None where it was stopped.
    """

    own: Generation
    dense: Generation | None
    ends: tuple[float, float]
    why_no_dense: str | None = None


def write(
    model: SkipModel,
    backbone: Callable[[], SkipModel],
    job: Job[Any],
    *,
    request: Request,
    asked: Writing,
) -> WrittenTexts:
    """Have a model write, and the dense one after it where that is asked.

    Parameters
    ----------
    model, backbone, job
        As ``Jobs.writing`` gives them.
    request, asked
        The prompt is the request's document.
    """
    model = with_runtime(model, asked.runtime)
    sites = site_frame(model.family.sites(model.model))
    ends = possible_layers(sites, layers=layer_count_of(model.family, model.model))
    live = job.partial = Written(ends)
    ids = prompt_ids(model, request.documents[0])
    check_token_count(len(ids) + asked.max_new_tokens)
    sides = 2 if asked.beside_dense else 1

    def warm(writer: SkipModel) -> SkipModel:
        read, written = WARM_UP
        generate(writer, ids[:read], max_new_tokens=written, stop=job.stop)
        return writer

    def of(writer: SkipModel, side: Side) -> Generation:
        def progress(share: float) -> None:
            job.share = (share + (side == "dense")) / sides

        return generate(
            writer, ids, max_new_tokens=asked.max_new_tokens, temperature=asked.temperature,
            top_p=asked.top_p, top_k=asked.top_k, stop_strings=asked.stop_strings,
            seed=asked.seed, on_token=live.told(side), progress=progress, stop=job.stop,
        )  # fmt: skip

    stage, why_no_dense = job.stage, None
    job.stage = "A short run first, which is not timed"
    beside: SkipModel | None = None
    if asked.beside_dense:
        try:
            beside = warm(backbone())
        except Stopped:
            raise
        except SkipvizError as error:  # the other text is written all the same
            why_no_dense = str(error)
    warm(model)
    job.begin(stage)
    own = of(model, "own")
    if beside is None or own.ended == "stopped":
        return WrittenTexts(own=own, dense=None, ends=ends, why_no_dense=why_no_dense)
    job.stage = "Running the dense model"
    try:
        return WrittenTexts(own=own, dense=of(beside, "dense"), ends=ends)
    except Stopped:  # before it wrote anything
        return WrittenTexts(own=own, dense=None, ends=ends)
    except SkipvizError as error:  # the text that there is stays
        return WrittenTexts(own=own, dense=None, ends=ends, why_no_dense=str(error))


def make_current(request: Request, asked: object, generation: Generation) -> None:
    """Let a text that was written be the one that all other pages show."""
    run = generation.trace.run.row(0, named=True)
    current = replace(
        request,
        documents=tuple(documents_of(generation.trace)),
        weights=run["weights_sha256"],
        setup=run["setup_sha256"],
        stored=_digest(asked),
        ids=ids_of(generation.trace),
    )
    jobs().keep(current, generation.trace)
    follow(PATHS, lambda: jobs().submit(current), asked=current.key, request=current)
    state().documents = current.documents


def is_current(asked: object) -> bool:
    """Say whether all other pages show the text that this came to."""
    run = state().runs.get(PATHS)
    return run is not None and run.finished is run and run.request.stored == _digest(asked)


def _digest(asked: object) -> str:
    return hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).hexdigest()
