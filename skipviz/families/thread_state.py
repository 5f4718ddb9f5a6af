"""What a module remembers of a forward under way, in each thread apart."""

from __future__ import annotations

import threading
from typing import Any


class ThreadState(threading.local):
    """Attributes that every thread has its own of; a copy of a module begins with none."""

    def __deepcopy__(self, memo: dict[int, Any]) -> ThreadState:
        return ThreadState()
