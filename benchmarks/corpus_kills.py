"""Kills a run over a corpus at random moments until it ends, and compares what it wrote.

``PYTHONPATH=. python benchmarks/corpus_kills.py [--kills N] [--engine local|ray] [--seed N]``. A
run in a process of its own is killed at a random moment and begun again, so many times; with
``ray``, every second time a worker is killed and the run goes on. Then it runs to its end. Its
files must be those of a run that was never killed, to the last bit, and hold every document once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import torch

import skipviz
from skipviz.corpus.on_ray import Workers
from tests.corpus.loading import tiny_gated

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps. "
PART_CHARACTERS = 4_000


def write_texts(path: Path, documents: int) -> None:
    """Write documents of different lengths."""
    with path.open("w") as file:
        for number in range(documents):
            text = f"{number}. " + TEXT * (1 + number * 7 % 11)
            file.write(json.dumps({"text": text, "number": number}) + "\n")


def run(source: Path, out: Path, engine: str) -> None:
    """Trace the corpus."""
    torch.set_num_threads(1)
    skipviz.trace_corpus(
        tiny_gated,
        source,
        out=out,
        engine=engine,
        part_characters=PART_CHARACTERS,
        workers=Workers(count=2, cpus=0.5),
    )


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def begun_by(leader: int) -> list[psutil.Process]:
    """Return the processes that a run has begun; none where it has just ended."""
    try:
        begun: list[psutil.Process] = psutil.Process(leader).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return begun


def kill_a_worker(leader: int) -> bool:
    """Kill a worker that a leader's cluster runs; False where there is none."""
    found = []
    for each in begun_by(leader):
        with suppress(psutil.NoSuchProcess):
            if "PartActor" in " ".join(each.cmdline()):
                found.append(each)
    if not found:
        return False
    try:
        random.choice(found).kill()
    except psutil.NoSuchProcess:  # it ended first
        return False
    return True


def end(process: multiprocessing.process.BaseProcess) -> None:
    """Kill a run, and the cluster that it began."""
    own = begun_by(process.pid or 0)
    os.kill(process.pid or 0, signal.SIGKILL)
    for each in own:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.join()


def main() -> None:
    """Print how many kills there were, and whether the files agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["skipviz.corpus.run", "tests.corpus.loading"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source, out = folder / "texts.jsonl", folder / "killed"
        write_texts(source, options.documents)
        whole = context.Process(target=run, args=(source, folder / "whole", options.engine))
        whole.start()
        whole.join()
        # Seconds in which a run has begun, and has not got to its end.
        least, most = (0.2, 1.5) if options.engine == "local" else (6.0, 12.0)
        kills = ended = 0
        while kills < options.kills:
            process = context.Process(target=run, args=(source, out, options.engine))
            process.start()
            process.join(random.uniform(least, most))
            if process.is_alive() and options.engine == "ray" and kills % 2:
                kills += kill_a_worker(process.pid or 0)
                process.join(random.uniform(0.0, least))
            if process.is_alive():
                end(process)
                kills += 1
                continue
            ended += 1
            for path in sorted(out.glob("done/*"))[:: 1 + ended]:  # so that there is work again
                path.unlink()
        last = context.Process(target=run, args=(source, out, options.engine))
        last.start()
        last.join()
        same = contents(out) == contents(folder / "whole")
        about = json.loads((out / "manifest.json").read_text())
    print(
        f"{options.engine}: {kills} kills, {ended} runs between them came to their end; "
        f"{about['documents']} of {options.documents} documents"
    )
    print("The files are those of a run that was never killed." if same else "THE FILES DIFFER.")
    raise SystemExit(0 if same and about["documents"] == options.documents else 1)


if __name__ == "__main__":
    main()
