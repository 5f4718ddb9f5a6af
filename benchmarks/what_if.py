"""How long a question about other decisions takes, as a share of a full trace of the same text.

A changed cell at mid-depth, at several places in a text of 300 tokens; runs alternate. The first
question about a trace also runs the text once, to keep its hidden states; its time stands apart. A
question asked again, and a threshold moved for all sites, stand below.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import skipviz
from skipviz.corpora.held_out import BROWN_REPORTING, held_out
from skipviz.text.spans import encode


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print medians of alternating runs, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    model = skipviz.load("smollm2-gated")
    document = held_out(BROWN_REPORTING[:1], chars=8 * options.tokens)[0]
    ids = encode(model.tokenizer, document.text).ids[: options.tokens]
    text = model.tokenizer.decode(ids)
    trace = skipviz.trace(model, text)
    executed = trace.matrix("exec_count") > 0
    middle = trace.run["layers"].item() // 2
    site = trace.sites["layer"].to_list().index(middle)
    first = seconds(lambda: ask(model, trace, 0, site, not executed[0, site]))
    print(
        f"{len(trace)} tokens, {trace.sites.height} sites; {trace.sites['label'][site]} is changed"
    )
    whole = statistics.median(seconds(lambda: skipviz.trace(model, text)) for _ in range(3))
    print(f"first question about the trace: {first / whole:.2f} of a full trace ({whole:.3f} s)")
    for share in (0.0, 0.25, 0.5, 0.75):
        token = int(share * len(trace))
        # Each run asks about a cell of its own, or it would be answered at once.
        tokens = itertools.count(token)

        def changed(tokens: itertools.count[int] = tokens) -> None:
            at = next(tokens)
            ask(model, trace, at, site, not executed[at, site])

        changed()
        report(f"a cell at token {token}", changed, model, text, runs=options.runs)
    steps = itertools.count(1)
    threshold = float(trace.matrix("threshold")[0, 0])
    report(
        "a threshold moved for all sites",
        lambda: skipviz.what_if(model, trace, threshold=threshold + next(steps) * 1e-3),
        model, text, runs=options.runs,
    )  # fmt: skip
    report(
        "a question asked again",
        lambda: skipviz.what_if(model, trace, threshold=threshold + 1e-3),
        model, text, runs=options.runs,
    )  # fmt: skip


def ask(model: skipviz.SkipModel, trace: skipviz.Trace, token: int, site: int, run: bool) -> None:
    skipviz.what_if(model, trace, sites={(token, trace.sites["label"][site]): bool(run)})


def report(
    name: str, question: Callable[[], object], model: skipviz.SkipModel, text: str, *, runs: int
) -> None:
    """Print a question's time over that of a full trace."""
    pairs = [(seconds(question), seconds(lambda: skipviz.trace(model, text))) for _ in range(runs)]
    ratios = [asked / whole for asked, whole in pairs]
    print(
        f"{name}: {statistics.median(ratios):.2f} of a full trace "
        f"({min(ratios):.2f} to {max(ratios):.2f}), {statistics.median(p[0] for p in pairs):.3f} s"
    )


if __name__ == "__main__":
    main()
