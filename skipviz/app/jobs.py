"""One worker runs the model for every session; results are kept by what was asked.

The same text, model and settings are run once: a second request joins the first, and a finished
one is found among the results. Streamlit does not stop a function that makes no Streamlit calls,
so the work lives in its own thread (``worker``) and the page asks how far it is.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import polars as pl

from skipviz.app.costs import Costs, Effort
from skipviz.app.memory import hand_back, held_bytes, share_one_heap
from skipviz.app.served import (
    check_token_count,
    gates_proposed,
    identity,
    load_described,
    load_served,
    most_tokens,
)
from skipviz.app.sessions import is_open
from skipviz.app.worker import Job, Work, Worker
from skipviz.errors import InputError, ModelError, Stopped
from skipviz.folders import model_folder
from skipviz.progress import Progress
from skipviz.text.documents import Document
from skipviz.traces import Trace

if TYPE_CHECKING:  # models bring torch, and a page is there before it
    from skipviz.families.powers import Traits
    from skipviz.models import SkipModel

Result = TypeVar("Result")
SEED = 0
"""Of every random draw on the pages: a page shows the same figures each time."""
RESULT_BYTES = 512 * 2**20
"""Of traces and what was made of them; the one not looked at for longest goes first."""
ENTRY_BYTES = 4096
"""That any result takes beside its arrays."""
MODEL_BYTES = 2 * 2**30
"""Of models kept beside the one in use."""
REQUESTS = 500
"""Remembered, so that a page's address finds what it names though the trace is no longer kept."""
REQUEST_CHARACTERS = 64 * 2**20
"""Of all their texts and token ids together; the last one is remembered however long it is."""
ID_CHARACTERS = 36
"""As many characters as a token id takes in memory: a Python integer, and a reference to it."""
ADDRESS_DIGITS = 16
"""Of a request's key, in a page's address."""


@dataclass(frozen=True)
class TokenIds:
    """Token ids of texts, which requests share that differ in something else.

    Attributes
    ----------
    texts
        Those of each text.
    """

    texts: tuple[tuple[int, ...], ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(ids) for ids in self.texts)

    @cached_property
    def digest(self) -> str:
        """A digest of all of them, which takes long."""
        return hashlib.sha256(repr(self.texts).encode()).hexdigest()


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
    setup
        SHA-256 of what else decided in that run, as a trace has it; None if it may be any.
    stored
        SHA-256 of the file that the trace came from; None if it is run here.
    gates
        A description of the model's gates in YAML; None where skipviz knows them.
    ids
        Token ids of each text where they are known, as of a trace that was made elsewhere or of a
        text that the model wrote: read anew, a text may become other tokens.
    """

    model: str
    documents: tuple[Document, ...]
    budget: float | None = None
    policy: str | None = None
    limit: float | None = None
    weights: str | None = None
    setup: str | None = None
    stored: str | None = None
    gates: str | None = None
    ids: TokenIds = field(default=TokenIds(), repr=False)

    @property
    def effort(self) -> Effort:
        """What it costs to trace."""
        return self.effort_of("trace")

    def effort_of(self, kind: str) -> Effort:
        """Return what a run of a kind on its texts costs; characters are known before tokens."""
        return Effort(f"{kind} {self.model}", self.characters)

    @property
    def characters(self) -> int:
        """How many its texts have."""
        return sum(document.characters for document in self.documents)

    @property
    def held(self) -> int:
        """What it takes in memory, in characters."""
        return self.characters + ID_CHARACTERS * self.ids.count

    @property
    def address(self) -> str:
        """What names it in a page's address."""
        return self.key[:ADDRESS_DIGITS]

    @property
    def key(self) -> str:
        """A digest of everything the result depends on."""
        # The model is asked for each time: its files may be others by now.
        return hashlib.sha256(
            f"{self.budget} {self.policy} {self.limit} {self.weights} {self.setup} "
            f"{self.stored} {self._gates_and_texts} "
            f"{identity(self.model)}".encode()
        ).hexdigest()

    @cached_property
    def _gates_and_texts(self) -> str:
        """A digest of what takes long to read, and never changes."""
        digest = hashlib.sha256(repr((self.gates, self.ids.digest)).encode())
        for document in self.documents:
            for part in (document.source, document.text, repr(document.messages)):
                digest.update(
                    len(part).to_bytes(8, "little") + part.encode("utf-8", "surrogatepass")
                )
        return digest.hexdigest()


Experiment: TypeAlias = "Callable[[SkipModel, Progress, threading.Event], Result]"
"""Takes the model, who is told of progress, and what is set to stop."""
Analysis: TypeAlias = Callable[[Progress], Result]


Writes: TypeAlias = "Callable[[SkipModel, Callable[[], SkipModel], Job[Any]], Result]"
"""Takes the model, what loads the dense model under it, and the job."""


class ForgottenError(InputError):
    """A result that is no longer kept."""

    def __init__(self) -> None:
        super().__init__(
            "This result is no longer kept: others have taken the memory that results may take. "
            "Press the button to run it again."
        )


class Jobs:
    """Runs requests one after the other and remembers what came out."""

    def __init__(self, present: Callable[[str], bool] = is_open) -> None:
        share_one_heap()
        self._worker = Worker(present)
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job[Any]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._models: OrderedDict[str, SkipModel] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self.costs = Costs()
        self.runs = 0

    def close(self) -> None:
        """Stop whatever runs."""
        self._worker.close()

    @property
    def kept_bytes(self) -> int:
        """How much memory the results take that are kept."""
        with self._lock:
            return sum(self._sizes.values())

    def before(self, job: Job[Any]) -> int:
        """Return how many runs come before one that waits."""
        return self._worker.before(job)

    def submit(self, request: Request) -> Job[Trace]:
        """Start a request, or find the job that already does it."""
        with self._lock:
            self._requests[request.address] = request
            self._requests.move_to_end(request.address)
            left = sum(each.held for each in self._requests.values())
            while len(self._requests) > 1 and (
                len(self._requests) > REQUESTS or left > REQUEST_CHARACTERS
            ):
                left -= self._requests.popitem(last=False)[1].held
        return self._start(request.key, lambda job: self._trace(request, job))

    def named(self, address: str) -> Request | None:
        """Return the request that an address names, if it was asked for here."""
        with self._lock:
            return self._requests.get(address)

    def load(self, model: str) -> None:
        """Load a model that will be asked for, if it is not there."""
        self._model(model, None)

    def traits(self, request: Request) -> Traits | None:
        """Return what holds of the way a request's model skips; None where it is not loaded."""
        with self._lock:
            model = self._models.get(_model_key(request.model, request.gates))
        if model is None:
            return None
        from skipviz.families.powers import traits_of

        return traits_of(model.family, model.model)

    def keep(self, request: Request, traced: Trace) -> None:
        """Take in a trace made elsewhere as what a request came to."""
        self.made(request.key, lambda: traced)

    def kept(self, request: Request) -> Trace | None:
        """Return the trace that a request came to, where it is kept."""
        with self._lock:
            job = self._jobs.get(request.key)
        return None if job is None else cast("Trace | None", kept_result(job))

    def made(self, key: str, make: Callable[[], Result]) -> Result:
        """Return what is kept under a key; what is not is made here and now, and kept.

        Parameters
        ----------
        key
            Of everything that the result depends on.
        make
            Makes it, quickly.
        """
        with self._lock:
            job = self._jobs.get(key)
        if job is not None and (done := kept_result(job)) is not None:
            self.look_at(job)
            return cast(Result, done)
        result = make()
        job = Job()
        job.future.set_result(result)
        with self._lock:
            self._jobs[key] = job
        self._keep(key, job)
        return result

    def look_at(self, job: Job[Any]) -> None:
        """Note that a result is in use: what was looked at longest ago is forgotten first."""
        with self._lock:
            key = next((key for key, each in self._jobs.items() if each is job), None)
            if key is not None:
                self._jobs.move_to_end(key)

    def experiment(
        self,
        request: Request,
        name: str,
        run: Experiment[Result],
    ) -> Job[Result]:
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
            return self._learnt(job, run(self._ready(request, job), _shown_by(job), job.stop))

        return self._start(f"{name} {request.key}", work)

    def analysis(self, request: Request, name: str, run: Analysis[Result]) -> Job[Result]:
        """Start work on a request's trace that needs no model; the rest is as for experiments."""

        def work(job: Job[Any]) -> Result:
            job.begin("Computing")
            shown = _shown_by(job)

            def progress(share: float) -> None:
                if job.stop.is_set():
                    raise Stopped
                shown(share)

            return self._learnt(job, run(progress))

        return self._start(f"{name} {request.key}", work)

    def writing(self, request: Request, name: str, run: Writes[Result]) -> Job[Result]:
        """Start a run that has a model write a text, and shows what there is meanwhile.

        Parameters
        ----------
        request
            The model, and the prompt as its document.
        name
            Of this run alone: it takes its own time, and may be ended early.
        run
            Does it.
        """

        def work(job: Job[Any]) -> Result:
            model = self._ready(request, job)
            return run(model, lambda: self._backbone(model), job)

        return self._start(f"{name} {request.key}", work)

    def proposal(self, model: str) -> Job[str]:
        """Look for the gates of a model that skipviz does not know; describe them in YAML."""

        def work(job: Job[Any]) -> str:
            job.begin(f"Looking for gates in {model}")
            return gates_proposed(model)

        return self._start(f"gates of {identity(model)}", work)

    def _learnt(self, job: Job[Any], result: Result) -> Result:
        """Take in what a run took, where it is known what it cost, and return what came out."""
        if job.effort is not None:
            self.costs.learn(job.effort, job.seconds)
        return result

    def _start(self, key: str, work: Work) -> Job[Any]:
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and _of_use(known):
                self._jobs.move_to_end(key)
                return known
            job: Job[Any] = Job()
            self._jobs[key] = job
        job.future.add_done_callback(lambda _: self._keep(key, job))
        self._worker.add(job, work)
        return job

    def _keep(self, key: str, job: Job[Any]) -> None:
        """Count what a job that is done holds; forget it if that is nothing of use."""
        left = job.seconds_left
        if isinstance(job.problem, Stopped) and job.effort is not None and left is not None:
            self.costs.learn(job.effort, job.seconds + left)  # what it would have taken
        result = kept_result(job)
        size = ENTRY_BYTES + held_bytes(result)
        with self._lock:
            if self._jobs.get(key) is not job:  # asked for again since
                return
            if result is None:
                del self._jobs[key]
                return
            self._sizes[key] = size
            self._jobs.move_to_end(key)
            self._forget()
        hand_back()

    def _forget(self) -> None:
        """Keep to the bytes that results may take; what came last stays, however large."""
        total = sum(self._sizes.values())
        for key in list(self._jobs)[:-1]:
            if total <= RESULT_BYTES:
                return
            if key in self._sizes:
                total -= self._sizes.pop(key)
                self._jobs.pop(key).release(ForgottenError())

    def _trace(self, request: Request, job: Job[Trace]) -> Trace:
        from skipviz.recording.tracing import trace

        if request.stored is not None and request.weights is None:
            raise InputError(
                "This trace came from a file that does not say which weights ran, and it is no "
                "longer kept: it cannot be made again. Upload the file again."
            )
        model = self._ready(request, job)
        self.runs += 1
        alone = len(request.ids.texts) == 1
        texts = list(request.ids.texts[0]) if alone else list(request.documents)
        result = trace(model, texts, progress=_shown_by(job), stop=job.stop)
        self.costs.learn(request.effort, job.seconds)
        if alone:
            return _named(result, request.documents[0].source)
        if request.ids.texts and request.ids != ids_of(result):
            raise InputError(
                "These texts are no longer kept, and read anew they become other tokens than those "
                "that were traced. Upload their file again, or trace the texts."
            )
        return result

    def _ready(self, request: Request, job: Job[Any]) -> SkipModel:
        from skipviz.models.hashes import run_setup_sha256
        from skipviz.models.own_thresholds import with_own
        from skipviz.recording.inputs import encoded

        job.begin(f"Loading {request.model}")
        model = self._model(request.model, request.gates)
        if job.stop.is_set():
            raise Stopped
        if most_tokens() is not None:
            texts = encoded(model, list(request.documents), bos=None)[1]
            check_token_count(sum(len(each.ids) for each in texts))
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
        if None not in (request.setup, setup := run_setup_sha256(model)) and request.setup != setup:
            raise ModelError(
                f"The trace was made with another configuration, tokenizer or thresholds of "
                f"{request.model} than those here. It can be shown, but nothing more can be run on "
                "it. Trace the text again."
            )
        job.begin(f"Running {request.model}")
        return model

    def _model(self, name: str, gates: str | None) -> SkipModel:
        key = _model_key(name, gates)
        if gates is None:
            return self._loaded(key, lambda: load_served(name))
        return self._loaded(key, lambda: load_described(name, gates))

    def _backbone(self, model: SkipModel) -> SkipModel:
        """Return the dense model under a model's gates, which may be run wherever those may."""
        from skipviz.models import load

        if model.settings is None:
            raise InputError(
                f"Which dense model is under {model.name} is not known, so it cannot be run beside "
                "it. Choose a model whose gates skipviz trained."
            )
        name = model.settings.backbone
        return self._loaded(identity(name), lambda: load(name))

    def _loaded(self, key: str, make: Callable[[], SkipModel]) -> SkipModel:
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # a run that was left behind while it loaded may still be at it
            with self._lock:
                model = self._models.pop(key, None)
            if model is None:
                self._make_room()
                model = make()
            with self._lock:
                self._models[key] = model
        return model

    def _make_room(self) -> None:
        """Let go of models until those beside the next one take no more than they may."""
        with self._lock:
            sizes = {key: _weight_bytes(model) for key, model in self._models.items()}
            total = sum(sizes.values())
            for key in list(self._models):
                if total <= MODEL_BYTES:
                    return
                total -= sizes[key]
                del self._models[key], self._loading[key]
        if sizes:
            gc.collect()  # modules refer to each other in circles


def _model_key(name: str, gates: str | None) -> str:
    return identity(name) if gates is None else f"{identity(name)}\n{gates}"


def ids_of(trace: Trace) -> TokenIds:
    """Return the token ids of each text of a trace."""
    by_text = trace.tokens.group_by("sequence", maintain_order=True).agg("token_id")
    return TokenIds(tuple(tuple(ids) for ids in by_text["token_id"].to_list()))


def _named(trace: Trace, source: str) -> Trace:
    """Return a trace with another name of its text."""
    return replace(trace, tokens=trace.tokens.with_columns(source=pl.lit(source)))


def _shown_by(job: Job[Any]) -> Progress:
    def progress(share: float) -> None:
        job.share = share

    return progress


def _under(model: SkipModel, request: Request) -> SkipModel:
    """Return a handle under what was asked for, or under the model's own choice."""
    from skipviz.models import at_budget, at_limit, with_policy

    if request.limit is not None:
        return at_limit(model, request.limit)
    if request.policy is not None:
        return with_policy(model, request.policy, budget=request.budget)
    if model.settings is None:
        return model
    return at_budget(model, model.settings.budget if request.budget is None else request.budget)


def kept_result(job: Job[Result]) -> Result | None:
    """Return the result of a job, or None while it has none, failed, or was forgotten."""
    future = job.future  # once: it is replaced when the result is forgotten
    if not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result()


def _of_use(job: Job[Any]) -> bool:
    """Say whether a job can be joined, or has a result."""
    return kept_result(job) is not None if job.future.done() else not job.stop.is_set()


def _weight_bytes(model: SkipModel) -> int:
    tensors = [*model.model.parameters(), *model.model.buffers()]
    return sum(tensor.nbytes for tensor in tensors)
