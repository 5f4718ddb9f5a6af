"""One worker runs the model for every session; results are kept by what was asked.

The same text, model and settings are run once: a second request joins the first, and a finished
one is found among the results. Streamlit does not stop a function that makes no Streamlit calls,
so the work lives in its own thread and the page asks how far it is.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar

import torch

from skipviz.errors import ModelError, SkipvizError, Stopped
from skipviz.folders import model_folder
from skipviz.models import SkipModel, at_budget, at_limit, load, with_policy
from skipviz.models.own_thresholds import OWN_FILE, with_own
from skipviz.progress import Progress
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace

_LOG = logging.getLogger("skipviz")
SEED = 0
"""Of every random draw on the pages: a page shows the same figures each time."""
RESULTS = 24
"""Traces and what was made of them kept; the one not looked at for longest goes first."""
MODELS = 2


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes
    ----------
    model
        Sample model or folder.
    documents
        Texts, in order.
    budget
        One of the model's budgets; None for its own choice, or for a model without any.
    policy
        One of the model's policies; None for its own choice.
    limit
        The nats over dense that the guarded policy may lose; None for any other.
    weights
        SHA-256 of the weights that it must be run on, as for a stored trace; None if it may be any.
    stored
        SHA-256 of the file that the trace came from; None if it is run here.
    """

    model: str
    documents: tuple[Document, ...]
    budget: float | None = None
    policy: str | None = None
    limit: float | None = None
    weights: str | None = None
    stored: str | None = None

    @property
    def key(self) -> str:
        """A digest of everything the result depends on."""
        digest = hashlib.sha256(
            f"{self.budget} {self.policy} {self.limit} {self.weights} {self.stored} "
            f"{_stamped(self.model)}".encode()
        )
        for document in self.documents:
            for part in (document.source, document.text):
                digest.update(
                    len(part).to_bytes(8, "little") + part.encode("utf-8", "surrogatepass")
                )
        return digest.hexdigest()


Result = TypeVar("Result")
Experiment: TypeAlias = Callable[[SkipModel, Progress, threading.Event], Result]
"""Takes the model, who is told of progress, and what is set to stop."""
Analysis: TypeAlias = Callable[[Progress], Result]


@dataclass
class Job(Generic[Result]):
    """A run that waits, is under way or done.

    Attributes
    ----------
    future
        What comes out.
    stop
        Set when it is no longer wanted.
    share, stage
        How far it is, 0 to 1, and at what.
    """

    future: Future[Result] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)
    share: float = 0.0
    stage: str = "Waiting for an earlier run"
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _followers: set[str] = field(default_factory=set)

    def follow(self, who: str) -> bool:
        """Add a follower; return whether the job still goes on."""
        with self._lock:
            self._followers.add(who)
            return not self.stop.is_set()

    def leave(self, who: str) -> None:
        """Remove a follower; the job is halted when none is left."""
        with self._lock:
            self._followers.discard(who)
            if not self._followers and not self.future.done():
                self.halt()

    def halt(self) -> None:
        """Stop it where it is, or at once if it has not begun."""
        self.stop.set()
        if self.future.cancel():
            self.stage = "Stopped"

    def done_by(self, work: Callable[[Job[Any]], Any]) -> None:
        """Do the work, unless it was halted before."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(work(self))
        except BaseException as error:
            if not isinstance(error, SkipvizError):  # a page says so, and where to look
                _LOG.error("A run of the app failed.", exc_info=error)
            self.future.set_exception(error)

    @property
    def problem(self) -> BaseException | None:
        """What went wrong with a job that is done."""
        return Stopped() if self.future.cancelled() else self.future.exception()


class Jobs:
    """Runs requests one after the other and remembers what came out."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="skipviz", initializer=_leave_a_core
        )
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job[Any]] = OrderedDict()
        self._models: OrderedDict[str, SkipModel] = OrderedDict()
        self.runs = 0
        self.tokens_per_second: float | None = None

    def submit(self, request: Request) -> Job[Trace]:
        """Start a request, or find the job that already does it."""
        return self._start(request.key, lambda job: self._trace(request, job))

    def keep(self, request: Request, traced: Trace) -> None:
        """Take in a trace made elsewhere as what a request came to."""
        job: Job[Trace] = Job()
        job.future.set_result(traced)
        with self._lock:
            self._jobs[request.key] = job
            self._forget()

    def experiment(self, request: Request, name: str, run: Experiment[Result]) -> Job[Result]:
        """Start an experiment on a request's model, or find the job that already does it.

        Parameters
        ----------
        request
            What was traced.
        name
            What is done, and every setting that the result depends on beside the request.
        run
            Does it.
        """

        def work(job: Job[Any]) -> Result:
            return run(self._ready(request, job), _shown_by(job), job.stop)

        return self._start(f"{name} {request.key}", work)

    def analysis(self, request: Request, name: str, run: Analysis[Result]) -> Job[Result]:
        """Start work on a request's trace that needs no model; the rest is as for experiments."""

        def work(job: Job[Any]) -> Result:
            job.stage = "Computing"
            shown = _shown_by(job)

            def progress(share: float) -> None:
                if job.stop.is_set():
                    raise Stopped
                shown(share)

            return run(progress)

        return self._start(f"{name} {request.key}", work)

    def _start(self, key: str, work: Callable[[Job[Any]], Any]) -> Job[Any]:
        with self._lock:
            job = self._jobs.get(key)
            failed = job is not None and job.future.done() and job.problem is not None
            if job is None or failed or job.stop.is_set():
                job = Job()
                self._jobs[key] = job
                self._pool.submit(job.done_by, work)
            self._jobs.move_to_end(key)
            self._forget()
            return job

    def _forget(self) -> None:
        for key, job in list(self._jobs.items()):
            if len(self._jobs) <= RESULTS:
                return
            if job.future.done():
                del self._jobs[key]

    def _trace(self, request: Request, job: Job[Trace]) -> Trace:
        model = self._ready(request, job)
        self.runs += 1
        began = time.monotonic()
        result = trace(model, list(request.documents), progress=_shown_by(job), stop=job.stop)
        self.tokens_per_second = len(result) / max(1e-3, time.monotonic() - began)
        return result

    def _ready(self, request: Request, job: Job[Any]) -> SkipModel:
        job.stage = f"Loading {request.model}"
        model = self._model(request.model)
        if job.stop.is_set():
            raise Stopped
        if request.weights not in (None, model.weights_sha256):
            raise ModelError(
                f"The trace was made with other weights of {request.model} than those here "
                f"({str(request.weights)[:12]} and {model.weights_sha256[:12]}). It can be shown, "
                "but nothing more can be run on it. Trace the text again."
            )
        if model.settings is not None:  # a user may have set thresholds of their own since
            own = with_own(model.settings, model_folder(request.model))
            model = replace(model, settings=own)
        model = _under(model, request)
        job.stage = f"Running {request.model}"
        return model

    def _model(self, name: str) -> SkipModel:
        key = _stamped(name)
        if key not in self._models:
            while len(self._models) >= MODELS:
                self._models.popitem(last=False)
            self._models[key] = load(name)
        self._models.move_to_end(key)
        return self._models[key]


def _stamped(name: str) -> str:
    """Return a model's name and when its folder was last written: it may be written again."""
    try:
        files = [p for p in model_folder(name).glob("*") if not p.name.startswith(OWN_FILE)]
        written = max((path.lstat().st_mtime for path in files), default=0.0)
    except OSError:
        written = 0.0  # no folder that can be read: loading the model says why
    return f"{name}@{written}"


def _shown_by(job: Job[Any]) -> Progress:
    def progress(share: float) -> None:
        job.share = share

    return progress


def _under(model: SkipModel, request: Request) -> SkipModel:
    """Return a handle under what was asked for, or under the model's own choice."""
    if request.limit is not None:
        return at_limit(model, request.limit)
    if request.policy is not None:
        return with_policy(model, request.policy, budget=request.budget)
    if model.settings is None:
        return model
    return at_budget(model, model.settings.budget if request.budget is None else request.budget)


def _leave_a_core() -> None:
    """Keep the page quick while the model runs."""
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
