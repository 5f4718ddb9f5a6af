"""What goes wrong becomes one sentence on standard error, and a bug is told from a user's slip.

Every error of ``skipviz.errors`` is a sentence that says what to do. Anything else is a fault of
skipviz or of a library, and is called so.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from skipviz.errors import InputError, SkipvizError

LOG = "SKIPVIZ_LOG"
"""The environment variable that names a file for a log with tracebacks."""
FAILED, BUG, STOPPED = 1, 70, 130
"""Exit status of an error the user can mend, of a bug, and of a run that Ctrl-C stopped."""


class Sentences(TyperGroup):
    """Runs a command, and says in a sentence what went wrong."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            _start_log()
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _say(
                "Stopped. Run the command again: training, and what a store holds, go on where "
                "they were; anything else begins anew."
            )
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if hasattr(error, "format_message"):  # the command line's own, as an unknown option
                raise
            _log(error)
            if ctx.params["traceback"]:
                traceback.print_exception(error)
            elif isinstance(error, SkipvizError):
                _say(str(error))
            else:
                found = traceback.format_exception_only(error)[-1].strip()
                _say(
                    f"This is a bug in skipviz, not a fault of yours: {found}. Put --traceback "
                    f"after skipviz to see where, or set {LOG}=FILE to keep it, and report it."
                )
            raise typer.Exit(FAILED if isinstance(error, SkipvizError) else BUG) from None


def _say(sentence: str) -> None:
    typer.secho(sentence, fg="red", err=True)


def _start_log() -> None:
    if not (file := os.environ.get(LOG)):
        return
    import logging

    import skipviz

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
    log.info("skipviz %s: %s", skipviz.__version__, " ".join(sys.argv[1:]))


def _log(error: Exception) -> None:
    if os.environ.get(LOG):
        import logging

        logging.getLogger("skipviz").error("%s", error, exc_info=error)
