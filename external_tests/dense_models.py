"""Traces and records dense models of many architectures, and compares with their own forward.

Run by `transformers_range.py` under each version of transformers. Prints a line per architecture.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional as F

import skipviz
from tests import architectures, tiny

MOST_APART = 1e-4
"""Nats by which a loss may differ."""
NEW = 8
NO_KEYS = ("Mamba",)
"""Before transformers 5.24 its cache has a name of its own, which is not read; tokens decoded from
it are recorded as a prompt's."""


def losses(model: Any, ids: Any) -> Any:
    with torch.inference_mode():
        logits = model.model(input_ids=ids).logits[0].double()
    return F.cross_entropy(logits[:-1], ids[0, 1:], reduction="none").numpy()


def compared(name: str) -> str:
    """Return what differs between skipviz and the model's own run; nothing if all agrees."""
    model = skipviz.from_parts(architectures.causal_lm(name), tiny.tokenizer(), name=name)
    trace = skipviz.trace(model, tiny.TEXT)
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    own = losses(model, ids)
    with torch.inference_mode(), skipviz.record(model) as recording:
        model.model(input_ids=ids)
    for what, found in (("trace", trace), ("record", recording.trace)):
        apart = np.abs(found.tokens["nll"].to_numpy()[:-1] - own).max()
        if not apart <= MOST_APART:
            return f"{what}: losses are {apart:.2g} nats apart"
    prompt = ids[:, :12]
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 2}
    options["attention_mask"] = torch.ones_like(prompt)
    with skipviz.record(model) as recording:
        made = model.model.generate(prompt, **options)
    if not torch.equal(made, model.model.generate(prompt, **options)):
        return "record: a generation differs from one that is not recorded"
    tokens = recording.trace.tokens["token_id"].to_list()
    if tokens != made[0, : len(tokens)].tolist() or len(tokens) < made.shape[1] - 1:
        return "record: the tokens of a generation are not those that were generated"
    phases = ["prefill"] * prompt.shape[1] + ["decode"] * (len(tokens) - prompt.shape[1])
    if name not in NO_KEYS and recording.trace.tokens["phase"].to_list() != phases:
        return "record: tokens that were decoded from a cache are not told apart"
    return ""


def main() -> int:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    failed = passed = 0
    for name, (_, kind, _) in architectures.CAUSAL.items():
        if not hasattr(transformers, kind):
            print(f"  {name}: not in this version")
            continue
        try:
            wrong = compared(name)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error!s:.150}"
        if wrong:
            print(f"  {name}: {wrong}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"transformers {transformers.__version__}: {passed} architectures agree, {failed} do not")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
