"""What goes wrong becomes one sentence on standard error, and a bug is told from a user's slip.

Every error of ``skipviz.errors`` is a sentence that says what to do, and what the file system
refuses becomes one. Anything else is a fault of skipviz or of a library, and is called so.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from skipviz.cli.inputs import visible
from skipviz.errors import InputError, SkipvizError
from skipviz.log import LOG, start_log

FAILED, BUG, STOPPED = 1, 70, 130
"""Exit status of an error the user can mend, of a bug, and of a run that Ctrl-C stopped."""
REFUSED = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.ENOSPC,
    errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What a file system answers for reasons that lie with the machine, and not with skipviz."""


class Sentences(TyperGroup):
    """Runs a command, and says in a sentence what went wrong."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            _write_any_letter()
            start_log()
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _say(
                "Stopped. Run the command again: training, a corpus, and what a store holds, go on "
                "where they were; anything else begins anew."
            )
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if hasattr(error, "format_message"):  # the command line's own, as an unknown option
                raise
            found = _of_the_machine(error)
            if os.environ.get(LOG):
                logging.getLogger("skipviz").error("%s", found, exc_info=error)
            if ctx.params["traceback"]:
                traceback.print_exception(error)
            else:
                _say(str(found) if isinstance(found, SkipvizError) else _fault(error))
            raise typer.Exit(FAILED if isinstance(found, SkipvizError) else BUG) from None


def _write_any_letter() -> None:
    """Have letters spelt out that the terminal's encoding lacks, as of one that is not UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _of_the_machine(error: Exception) -> Exception:
    """Return what the file system refused as an error that the user can mend, else the same."""
    if not isinstance(error, OSError) or error.errno not in REFUSED:
        return error
    file = "A file" if error.filename is None else os.fsdecode(error.filename)
    return InputError(
        f"{file} cannot be read or written ({error.strerror}). Check its permissions and the free "
        "space on its disk, or name another file."
    )


def _fault(error: Exception) -> str:
    found = traceback.format_exception_only(error)[-1].strip()
    return (
        f"This is a fault in skipviz, not in your text or settings ({found}). Put --traceback "
        f"after skipviz to see where, or set {LOG}=FILE to keep that in a file, and report it."
    )


def _say(sentence: str) -> None:
    typer.secho(visible(sentence), fg="red", err=True)
