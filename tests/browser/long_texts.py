"""Texts as long as the pages promise to show without another run of the model."""

from __future__ import annotations

import random
import re
from importlib.resources import files
from pathlib import Path

from skipviz.app.frame.inputs import SAMPLES

TOKENS = 5000


def long_texts(folder: Path) -> list[Path]:
    """Write three files, about 5,000 tokens in all: the samples, and sentences of their words."""
    samples = [
        (files("skipviz.app") / "samples" / name).read_text("utf-8") for name in SAMPLES.values()
    ]
    generator = random.Random(0)
    paths = []
    for number, sample in enumerate(samples):
        words = re.findall(r"[A-Za-z']+", " ".join(samples))
        parts = [sample]
        while sum(map(len, parts)) < TOKENS * 4 / len(samples):
            sentence = " ".join(generator.choices(words, k=generator.randint(4, 14)))
            parts.append(sentence.capitalize() + generator.choice([".", "?", ", 12 + 7 = 19."]))
        paths.append(folder / f"text{number}.txt")
        paths[-1].write_text(" ".join(parts), encoding="utf-8")
    return paths
