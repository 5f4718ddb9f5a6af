"""One run at a time in a folder of an object store.

A store has no lock that ends with a process, so a run keeps an object there and rewrites it again
and again. A run that finds one watches it: if no one rewrites it, the run that made it is gone. No
clock is compared with another's.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from skipviz.errors import InputError

LEASE_SECONDS = 60.0
"""That a lock stands without being rewritten, before another run takes it."""
BEAT_SECONDS = 15.0
"""Between two times that it is rewritten."""
LOOK_AGAIN_SECONDS = 3.0
SETTLING_SECONDS = 0.5
"""Before a lock that was made counts."""


class ObjectLock:
    """Holds a folder of an object store, from when it is made until it is released.

    Parameters
    ----------
    system, path
        The file system, and the object in it that is the lock.
    called
        What the folder is called in an error.

    Raises
    ------
    InputError
        If another run holds it.
    OSError
        If the store refuses.
    """

    def __init__(self, system: Any, path: str, *, called: str) -> None:
        self._system, self._path, self._called = system, path, called
        self._own = uuid.uuid4().hex
        self._beats = 0
        self._taken_by: str | None = None
        self._take()
        self._kept = time.monotonic()
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Make sure that the folder is held still, as after a machine has slept.

        Raises
        ------
        InputError
            If another run took it, or the store does not answer after so long a time.
        """
        if time.monotonic() - self._kept > LEASE_SECONDS:
            try:
                self._keep()
            except Exception as error:  # a store has errors of its own, which are no OSError
                raise InputError(
                    f"This run could not renew its lock on {self._called} "
                    f"({type(error).__name__}: {error!s:.200}), so another run may write there. "
                    "What is done is there. Run the same command again: it goes on."
                ) from error
        if self._taken_by is not None:
            raise InputError(
                f"This run stood still, and {self._taken_by} writes to {self._called} now. What is "
                "done is there. Run the same command again when that has ended: it goes on."
            )

    def release(self) -> None:
        """Let another run begin."""
        self._ended.set()
        self._beating.join(timeout=LEASE_SECONDS)
        try:
            if self._is_own(self._read()):
                self._system.rm_file(self._path)
        except Exception:  # of any library; the next run waits until clearly no one rewrites it
            return

    def _take(self) -> None:
        """Make the lock; where there is one, wait until it is rewritten or clearly left."""
        before = self._read()
        seen = time.monotonic()
        while not self._made():
            found = self._read()
            if found is not None and before not in (None, found):
                raise InputError(
                    f"Another run, {_holder(found)}, is writing to {self._called}. Wait for it, or "
                    "name another folder."
                )
            if before is None:
                before, seen = found, time.monotonic()
            if found is not None and time.monotonic() - seen > LEASE_SECONDS:
                self._system.rm_file(self._path)
                before = None
            else:
                time.sleep(LOOK_AGAIN_SECONDS)

    def _made(self) -> bool:
        """Make the lock where there is none; return whether it is this run's."""
        try:
            self._system.pipe_file(self._path, self._content(), mode="create")
        except OSError:  # FileExistsError, or the store's own word for it
            if self._read() is None and not self._system.exists(self._path):
                raise
            return False
        # One that had found the lock before this left as well may have deleted this one.
        time.sleep(SETTLING_SECONDS)
        return self._is_own(self._read())

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self._keep()
            except Exception:  # of any library: tried again; a run that cannot write says so itself
                continue

    def _keep(self) -> None:
        """Rewrite the lock, unless another run has taken it."""
        found = self._read()
        if not self._is_own(found):
            self._taken_by = _holder(found)
            return
        self._beats += 1
        self._system.pipe_file(self._path, self._content())
        self._kept = time.monotonic()

    def _content(self) -> bytes:
        said = {
            "run": self._own, "beat": self._beats, "machine": socket.gethostname(),
            "process": os.getpid(),
        }  # fmt: skip
        return json.dumps(said).encode()

    def _read(self) -> bytes | None:
        try:
            found: bytes = self._system.cat_file(self._path)
        except FileNotFoundError:
            return None
        return found

    def _is_own(self, content: bytes | None) -> bool:
        return content is not None and self._own.encode() in content


def _holder(content: bytes | None) -> str:
    """Return who holds a lock, as its object says."""
    try:
        said = json.loads(content or b"")
        return f"process {said['process']} on {said['machine']!s:.80}"
    except (ValueError, KeyError, TypeError):
        return "one that does not say which it is"
