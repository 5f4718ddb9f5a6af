"""One thread that does the work of every session, and one that sees who still waits for it.

Streamlit does not stop a function that makes no Streamlit calls, and does not tell it that its
session has ended. So the work lives in a thread of its own, and another looks every quarter of a
second whether somebody still waits for what runs, and whether the first thread is alive.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import torch

from skipviz.errors import SkipvizError, Stopped

_LOG = logging.getLogger("skipviz")
TICK = 0.25
"""Seconds between two looks at who waits."""
GRACE = 0.75
"""Seconds that a session may be away, as when its connection breaks and is made again."""
CLOSING = 2.0
"""Seconds that a run has to stop in when the server ends."""
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
    """

    future: Future[Result] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)
    share: float = 0.0
    stage: str = "Waiting"
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
        """Where somebody waits for it."""
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
            self.future.set_result(work(self))
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End it with an error, which keeps nothing of the run alive."""
        if not isinstance(error, SkipvizError):  # a page says so, and where to look
            _LOG.error("A run of the app failed.", exc_info=error)
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
    """Does jobs one after the other.

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
        self._hand: threading.Thread | None = None
        self._eye: threading.Thread | None = None
        atexit.register(self.close)

    def add(self, job: Job[Any], work: Work) -> None:
        """Put a job at the end of the queue."""
        with self._change:
            self._waiting.append((job, work))
            self._revive()
            self._change.notify_all()

    def before(self, job: Job[Any]) -> int:
        """Return how many runs come before one that waits."""
        with self._change:
            self._revive()  # whoever waits asks, so that both threads' end is noticed too
            queue = [self._running, *(each for each, _ in self._waiting)]
        live = [each for each in queue if each is not None and not each.future.done()]
        return live.index(job) if job in live else 0

    def close(self) -> None:
        """Stop everything; a run that does not stop in time is left behind."""
        with self._change:
            self._closed = True
            jobs = self._unfinished()
            self._change.notify_all()
            threads = [each for each in (self._hand, self._eye) if each is not None]
        for job in jobs:
            job.halt()
        for thread in threads:
            thread.join(CLOSING)
        atexit.unregister(self.close)

    def _unfinished(self) -> list[Job[Any]]:
        running = [] if self._running is None else [self._running]
        jobs = running + [job for job, _ in self._waiting]
        return [job for job in jobs if not job.future.done()]

    def _revive(self) -> None:
        """See that both threads are there: one that was killed must leave no page waiting."""
        if self._closed:
            return
        if self._hand is None or not self._hand.is_alive():
            lost, self._running = self._running, None
            if lost is not None and not lost.future.done():
                lost.fail(RuntimeError("The thread that ran it has ended."))
            self._hand = threading.Thread(target=self._do, name="skipviz worker", daemon=True)
            self._hand.start()
        if self._eye is None or not self._eye.is_alive():
            self._eye = threading.Thread(target=self._look, name="skipviz watch", daemon=True)
            self._eye.start()

    def _do(self) -> None:
        _leave_a_core()
        while True:
            with self._change:
                self._running = None
                self._change.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                self._running = self._waiting[0][0]
                job, work = self._waiting.popleft()
            job.done_by(work)
            del job, work  # what they hold need not stay until there is more to do

    def _look(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._unfinished())
                if self._closed:
                    return
                self._revive()
                jobs = self._unfinished()
            sessions = {session for job in jobs for session in job.sessions}
            gone = self._gone(sessions)
            for job in jobs:
                job.leave_with(gone)
            time.sleep(TICK)

    def _gone(self, sessions: set[str]) -> set[str]:
        """Return the sessions that have been away for longer than a broken connection."""
        now = time.monotonic()
        away = {session for session in sessions if not self._present(session)}
        self._away_since = {session: self._away_since.get(session, now) for session in away}
        return {session for session in away if now - self._away_since[session] >= GRACE}


def _without_frames(error: BaseException) -> BaseException:
    """Take the tracebacks off an error: their frames hold models and states."""
    seen: BaseException | None = error
    passed: set[int] = set()
    while seen is not None and id(seen) not in passed:
        passed.add(id(seen))
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error


def _leave_a_core() -> None:
    """Keep the page quick while the model runs."""
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
