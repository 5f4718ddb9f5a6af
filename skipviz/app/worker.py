"""One thread that has the work of every session done, and sees who still waits for it.

Streamlit does not stop a function that makes no Streamlit calls, and does not tell it that its
session has ended. So each run has a thread of its own, and another looks ten times a second
whether someone still waits for it, and whether it is alive.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar

from skipviz.app.costs import Effort
from skipviz.errors import SkipvizError, Stopped

_LOG = logging.getLogger("skipviz")
TICK = 0.1
"""Seconds between two looks at who waits."""
GRACE = 0.5
"""Seconds that a session may be away, as when its connection breaks and is made again."""
PATIENCE = 0.7
"""Seconds that a run may take to stop before it is left behind."""
ENDED = "The thread that ran it has ended."
THREADS_HAVE_PRIORITIES = sys.platform == "linux"
"""Elsewhere a priority is a whole program's."""
BEHIND_PAGES = 5
"""By how much a thread that runs a model comes after those that draw pages, of 20."""
LEAST_SECONDS, LEAST_SHARE = 2.0, 0.02
"""A run's remaining time is not told from less than this."""

Result = TypeVar("Result")
Work: TypeAlias = Callable[["Job[Any]"], Any]
"""Does what a job is for, and tells it how far it is."""


@dataclass(eq=False)
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
    effort
        What it costs, if how long it took is to be learned.
    partial
        What there is of the result while it is under way, of runs that show it.
    """

    future: Future[Result] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)
    share: float = 0.0
    stage: str = "Waiting"
    effort: Effort | None = None
    partial: Any = None
    _began: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _followers: set[tuple[str, str]] = field(default_factory=set)

    def follow(self, session: str, name: str) -> bool:
        """Add who waits, a session and its name for the run; return whether it still goes on."""
        with self._lock:
            self._followers.add((session, name))
            return not self.stop.is_set()

    def leave(self, session: str, name: str) -> None:
        """Remove who waited; the job is halted when none is left."""
        self._leave({(session, name)})

    def leave_with(self, sessions: set[str]) -> None:
        """Remove all that waited in some sessions."""
        with self._lock:
            gone = {follower for follower in self._followers if follower[0] in sessions}
        self._leave(gone)

    @property
    def sessions(self) -> set[str]:
        """Where someone waits for it."""
        with self._lock:
            return {session for session, _ in self._followers}

    def _leave(self, gone: set[tuple[str, str]]) -> None:
        with self._lock:
            left = self._followers - gone
            alone = not left and left != self._followers
            self._followers = left
            if alone and not self.future.done():
                self.halt()

    def halt(self) -> None:
        """Stop it where it is, or at once if it has not begun."""
        self.stop.set()
        if self.future.cancel():
            self.stage = "Stopped"

    def begin(self, stage: str) -> None:
        """Say at what it is from now on; the share that is done counts from here."""
        self.stage = stage
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it last began something."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def seconds_left(self) -> float | None:
        """By what it took so far; None while that says little."""
        share, seconds = self.share, self.seconds
        if share < LEAST_SHARE or seconds < LEAST_SECONDS:
            return None
        return seconds * (1 - share) / share

    def done_by(self, work: Work) -> None:
        """Do the work, unless it was halted before."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        try:
            result = work(self)
        except BaseException as error:
            self.fail(error)
        else:
            with suppress(InvalidStateError):  # it was left behind
                self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """End it with an error, which keeps nothing of the run alive."""
        if not isinstance(error, SkipvizError):  # a page says so, and where to look
            _LOG.error("A run of the app failed.", exc_info=error)
        with suppress(InvalidStateError):
            self.future.set_exception(_without_frames(error))

    @property
    def problem(self) -> BaseException | None:
        """What went wrong with a job that is done."""
        future = self.future
        return Stopped() if future.cancelled() else future.exception()

    def release(self, why: SkipvizError) -> None:
        """Let go of the result of a job that is done; the reason takes its place."""
        gone: Future[Result] = Future()
        gone.set_exception(why)
        self.future = gone


class Worker:
    """Does jobs one after the other, each in a thread of its own.

    A run that is told to stop and does not, as where a library computes or fetches for long without
    looking up, is left behind, so that the next one can begin.

    Parameters
    ----------
    present
        Says whether a session is still there.
    """

    def __init__(self, present: Callable[[str], bool]) -> None:
        self._present = present
        self._change = threading.Condition()
        self._waiting: deque[tuple[Job[Any], Work]] = deque()
        self._running: Job[Any] | None = None
        self._closed = False
        self._away_since: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        atexit.register(self.close)

    def add(self, job: Job[Any], work: Work) -> None:
        """Put a job at the end of the queue."""
        with self._change:
            self._waiting.append((job, work))
            self._change.notify_all()
        self._revive()

    def before(self, job: Job[Any]) -> int:
        """Return how many runs come before one that waits."""
        self._revive()  # whoever waits asks, so that an end of the thread is noticed
        unfinished = self._unfinished()
        return unfinished.index(job) if job in unfinished else 0

    def close(self) -> None:
        """Stop everything; a run that does not stop in time is left behind."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for job in self._unfinished():
            job.halt()
        if self._thread is not None:
            self._thread.join(2 * PATIENCE)
        atexit.unregister(self.close)

    def _unfinished(self) -> list[Job[Any]]:
        with self._change:
            jobs = [self._running, *(job for job, _ in self._waiting)]
        return [job for job in jobs if job is not None and not job.future.done()]

    def _revive(self) -> None:
        """See that the thread is there: one that was killed must leave no page waiting."""
        with self._change:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            lost, self._running = self._running, None
            self._thread = threading.Thread(target=self._do, name="skipviz worker", daemon=True)
            self._thread.start()
        if lost is not None and not lost.future.done():
            lost.fail(RuntimeError(ENDED))  # first: told to stop, it says only that
            lost.stop.set()

    def _do(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                self._running = self._waiting[0][0]
                job, work = self._waiting.popleft()
            self._see_through(job, work)
            with self._change:
                self._running = None
            del job, work  # what they hold need not stay until there is more to do

    def _see_through(self, job: Job[Any], work: Work) -> None:
        if job.future.done():  # it was stopped while it waited
            return

        def run() -> None:
            import torch

            torch.set_num_threads(_run_threads())
            _let_pages_go_first()
            job.done_by(work)

        hand = threading.Thread(target=run, name="skipviz run", daemon=True)
        hand.start()
        future, told = job.future, None
        while not future.done():
            wait([future], TICK)
            self._drop_absent()
            if job.stop.is_set():
                told = time.monotonic() if told is None else told
                if time.monotonic() - told >= PATIENCE:
                    job.fail(Stopped())
            if not hand.is_alive() and not future.done():
                job.fail(RuntimeError(ENDED))

    def _drop_absent(self) -> None:
        """Let go of sessions that have been away for longer than a broken connection."""
        jobs, now = self._unfinished(), time.monotonic()
        sessions = {session for job in jobs for session in job.sessions}
        away = {session for session in sessions if not self._present(session)}
        self._away_since = {session: self._away_since.get(session, now) for session in away}
        gone = {session for session in away if now - self._away_since[session] >= GRACE}
        for job in jobs:
            job.leave_with(gone)


@cache
def _run_threads() -> int:
    """Return how many threads a run may have: all, where pages go first, else one is theirs."""
    import torch  # which takes seconds, and no page waits for it

    threads = torch.get_num_threads()
    return threads if THREADS_HAVE_PRIORITIES else max(1, threads - 1)


def _let_pages_go_first() -> None:
    """Lower the priority of this thread and of those it starts, so that pages stay quick."""
    if THREADS_HAVE_PRIORITIES:
        thread = threading.get_native_id()
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, own + BEHIND_PAGES)


def _without_frames(error: BaseException) -> BaseException:
    """Take the tracebacks off an error: their frames hold models and states."""
    seen: BaseException | None = error
    passed: set[int] = set()
    while seen is not None and id(seen) not in passed:
        passed.add(id(seen))
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error
