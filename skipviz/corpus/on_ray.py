"""Works on parts by the workers of a Ray cluster: what a lost worker had is done by another.

Workers are actors, each with a model of its own. They are given parts by reference and write the
parts' files; names are given by the process that leads alone, so a part that was worked on twice
is there once. Every wait ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from skipviz.corpus.analyses import check_analyses
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.parts import Part
from skipviz.corpus.work import CorpusSettings, PartResult, about_corpus, done_part
from skipviz.errors import InputError, MissingExtraError, SkipvizError
from skipviz.models import SkipModel
from skipviz.progress import check_stop

LOOK_SECONDS = 1.0
"""Between two looks whether a run was stopped, or a worker takes too long."""
START_SECONDS = 600.0
"""That all workers may take to load a model, when none works."""
PART_SECONDS = 3600.0
"""That a part may take; then its worker is given up."""
ANSWER_SECONDS = 60.0
"""That an answer which is there may take to come: it is small."""
MOST_LOSSES = 3
"""Workers that may be lost over one part: it may be what ends them."""
AHEAD = 2
"""Parts that a worker has, the one that it works on among them."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What a cluster gives to a run.

    Attributes
    ----------
    count
        Workers.
    cpus, gpus
        Of each.

    Examples
    --------
    >>> skipviz.Workers(count=8, gpus=1)
    Workers(count=8, cpus=1, gpus=1)
    """

    count: int = 1
    cpus: float | int = 1
    gpus: float | int = 0


@dataclass(eq=False)
class _Worker:
    """An actor, what it was given, and since when it has been at it."""

    actor: Any
    ready: Any
    given: dict[Any, Part] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class PartActor:
    """Holds a model in a process of the cluster.

    Parameters
    ----------
    load
        Returns the model.
    where, settings
        As of the run.
    """

    def __init__(self, load: Callable[[], SkipModel], where: str, settings: CorpusSettings) -> None:
        self._model = load()
        check_analyses(self._model, settings.analyses)
        self._about = about_corpus(self._model, settings)
        self._folder = DatasetFolder(where)
        self._settings = settings

    def ready(self) -> bool:
        """Answer, once the model is there."""
        return True

    def work(self, part: Part) -> PartResult:
        """Trace the documents of a part and write its files."""
        return done_part(self._model, part, self._folder, self._settings, about=self._about)


def ray_results(
    load: Callable[[], SkipModel],
    parts: Iterator[Part],
    *,
    folder: DatasetFolder,
    settings: CorpusSettings,
    workers: Workers,
    stop: threading.Event | None = None,
) -> Generator[PartResult, None, None]:
    """Yield what became of each part, in the order in which they end.

    Parameters
    ----------
    load
        Returns the model; every worker calls it.
    parts
        What is to be done.
    folder
        The dataset, on a disk that all machines share or in an object store.
    settings, workers
        As of the run.
    stop
        Set it from another thread to stop.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    InputError
        If no worker starts, or one part ends several.
    Stopped
        If ``stop`` was set.
    """
    ray = _imported()
    with _connected(ray):
        pool = _Pool(ray, load, folder=folder, settings=settings, workers=workers)
        try:
            yield from pool.results(parts, stop)
        finally:
            pool.close()


class _Pool:
    """Gives parts to workers, and replaces those that are lost."""

    def __init__(
        self,
        ray: Any,
        load: Callable[[], SkipModel],
        *,
        folder: DatasetFolder,
        settings: CorpusSettings,
        workers: Workers,
    ) -> None:
        self._ray = ray
        remote = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_restarts=0)(PartActor)
        self._new: Callable[[], Any] = lambda: remote.remote(load, folder.where, settings)
        self._starting: list[_Worker] = []
        self._working: list[_Worker] = []
        self._again: deque[Part] = deque()
        self._losses: dict[int, int] = {}
        self._heard = time.monotonic()
        for _ in range(workers.count):
            self._start()

    def results(self, parts: Iterator[Part], stop: threading.Event | None) -> Iterator[PartResult]:
        """Yield what became of the parts."""
        left = True
        while True:
            for worker in self._working:
                while len(worker.given) < AHEAD and (left or self._again):
                    part = self._again.popleft() if self._again else next(parts, None)
                    if part is None:
                        left = False
                        break
                    if not worker.given:
                        worker.since = time.monotonic()
                    worker.given[worker.actor.work.remote(self._ray.put(part))] = part
            if not left and not self._again and not any(each.given for each in self._working):
                return
            check_stop(stop)
            yield from self._heard_from()

    def close(self) -> None:
        """End the workers."""
        for worker in (*self._starting, *self._working):
            self._ray.kill(worker.actor)

    def _start(self) -> None:
        actor = self._new()
        self._starting.append(_Worker(actor, actor.ready.remote()))

    def _heard_from(self) -> Iterator[PartResult]:
        """Wait a moment, and yield what came."""
        asked = [each.ready for each in self._starting]
        asked += [reference for each in self._working for reference in each.given]
        came, _ = self._ray.wait(asked, num_returns=1, timeout=LOOK_SECONDS)
        for reference in came:
            for worker in list(self._starting):
                if worker.ready == reference:
                    self._starting.remove(worker)
                    if self._answer(worker, reference) is not None:
                        self._working.append(worker)
            for worker in list(self._working):
                if reference in worker.given:
                    result = self._answer(worker, reference)
                    if result is not None:
                        del worker.given[reference]
                        worker.since = time.monotonic()
                        yield result
        now = time.monotonic()
        if not self._working and now - self._heard > START_SECONDS:
            raise InputError(
                f"No worker of the Ray cluster was ready within {START_SECONDS:,.0f} seconds. See "
                "whether it has as many CPUs and GPUs free as the workers ask for."
            )
        for worker in list(self._working):
            if worker.given and now - worker.since > PART_SECONDS:
                self._lost(worker, "it took too long")

    def _answer(self, worker: _Worker, reference: Any) -> Any:
        """Return what a worker answered; None where it was lost."""
        try:
            answer = self._ray.get(reference, timeout=ANSWER_SECONDS)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, SkipvizError) else error) from None
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):  # the next would fail in the same way
                why = str(error).strip().rpartition("\n")[2]
                raise InputError(f"A worker could not load the model ({why:.300}).") from error
            self._lost(worker, str(error).partition("\n")[0])
            return None
        self._heard = time.monotonic()
        return answer

    def _lost(self, worker: _Worker, why: str) -> None:
        """Have another worker do what a lost one had."""
        if worker in self._working:  # one that ends while it starts puts off no end
            self._working.remove(worker)
            self._heard = time.monotonic()
        self._ray.kill(worker.actor)
        lost, worker.given = list(worker.given.values()), {}
        for part in lost[:1]:  # which it worked on; the others only waited
            self._losses[part.number] = self._losses.get(part.number, 0) + 1
            if self._losses[part.number] >= MOST_LOSSES:
                raise InputError(
                    f"{MOST_LOSSES} workers were lost over documents {part.first:,} to "
                    f"{part.first + len(part.entries) - 1:,} ({why:.200}). Their memory may not be "
                    "enough; give part_characters a smaller number."
                )
        self._again.extend(lost)
        self._start()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "engine='ray' needs Ray, which is not installed. Run: pip install 'skipviz[ray]'."
        ) from error
    return ray


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Use the cluster that is connected or that RAY_ADDRESS names, else this machine."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises its own kinds, and bare ones
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"No Ray cluster could be reached or started ({reason:.300}). Check RAY_ADDRESS and "
            "that the machine has memory and CPUs free, or use engine='local'."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
