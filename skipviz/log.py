"""The log: a file that the user names, with the tracebacks of what went wrong."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version

from skipviz.errors import InputError

LOG = "SKIPVIZ_LOG"
"""The environment variable that names the file."""


def start_log() -> None:
    """Write what is logged to the file that ``SKIPVIZ_LOG`` names, if it names one.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    if not (file := os.environ.get(LOG)):
        return
    try:
        handler = logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{LOG}={file} cannot be written ({error.strerror}); name another file."
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("skipviz")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.info("skipviz %s: %s", version("skipviz"), " ".join(sys.argv[1:]))
