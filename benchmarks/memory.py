"""The server's memory over many runs of different texts: what the app keeps is bounded by bytes.

Every text is traced by the worker of the app as for a session of its own, laid out for the page,
and its decisions are written as for a download. One run in ten is stopped half way, one fails.
Printed is the resident memory of this process, and how much of it the kept results take.
"""

from __future__ import annotations

import argparse
import gc
import io
import time
from collections.abc import Iterator
from pathlib import Path

from skipviz.app import jobs
from skipviz.app.components.canvas_payload import payload
from skipviz.app.jobs import Jobs, Request
from skipviz.corpora.held_out import BROWN_REPORTING, held_out
from skipviz.errors import InputError
from skipviz.text.documents import Document

PAGE_BYTES = 4096


def resident() -> float:
    """Return the resident memory of this process in MiB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


def requests(model: str, *, chars: int) -> Iterator[Request]:
    """Yield requests of different texts, without end."""
    text = held_out(BROWN_REPORTING[:1], chars=chars)[0].text
    number = 0
    while True:
        number += 1
        yield Request(model=model, documents=(Document("text", f"{number}. {text}"),))


def one(worker: Jobs, request: Request, *, number: int) -> None:
    """Have a text traced and looked at by a session that ends then."""
    session = str(number)
    job = worker.submit(request)
    job.follow(session, "paths")
    if number % 10 == 9:
        while job.share < 0.5 and not job.future.done():
            time.sleep(0.005)
        job.leave(session, "paths")
        job.future.exception()
        return
    trace = job.future.result()
    worker.made(f"view {request.key}", lambda: payload(trace, key=request.key))
    trace.write_csv(io.BytesIO())
    trace.save(io.BytesIO())
    if number % 10 == 5:

        def fails(*_: object) -> None:
            raise InputError(f"Run {number} fails.")

        worker.experiment(request, "fails", fails).future.exception()


def main() -> None:
    """Print a line for every twentieth run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--chars", type=int, default=2000)
    parser.add_argument("--model", default="smollm2-gated")
    parser.add_argument("--keep", type=int, default=16, help="MiB of results that are kept")
    options = parser.parse_args()
    jobs.RESULT_BYTES = options.keep * 2**20
    worker = Jobs(lambda session: True)
    texts = requests(options.model, chars=options.chars)
    for number in range(options.runs):
        one(worker, next(texts), number=number)
        if (number + 1) % 20 == 0:
            gc.collect()  # what is left is held by something
            kept = worker.kept_bytes / 2**20
            print(
                f"{number + 1:4} runs: {resident():7.1f} MiB resident, {kept:5.1f} MiB of results",
                flush=True,
            )
    worker.close()


if __name__ == "__main__":
    main()
