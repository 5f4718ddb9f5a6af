"""D-LLM, which only its own code runs, recorded by the kit in a layout like that of its code.

Written from what the code does (Jyk-122/D-LLM, ``llama/model.py`` at 8c70dd7): routers from a
layer on, whose second number executes; the first tokens always do; keys and values of tokens that
skipped are masked out of the cache; decoding computes only what executes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skipviz.recorder_kit import Recorder
from skipviz.recording.recorded_file import open_recording

LAYERS, START, RESERVED, WIDTH, WORDS = 5, 2, 2, 16, 20


class _Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear_1, self.norm = nn.Linear(WIDTH, 8), nn.RMSNorm(8)
        self.linear_2 = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_2(F.silu(self.norm(self.linear_1(x.float()))))
        return torch.where(F.softmax(x, dim=-1) < 0.5, 0, 1).float()


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wv, self.wo = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.cache_k, self.cache_v = torch.zeros(1, 64, WIDTH), torch.zeros(1, 64, WIDTH)
        self.cache_mask = torch.zeros(1, 64, dtype=torch.bool)

    def forward(self, x: Tensor, router: Tensor, start: int) -> Tensor:
        stop = start + x.shape[1]
        self.cache_k[:, start:stop], self.cache_v[:, start:stop] = self.wk(x), self.wv(x)
        self.cache_mask[:, start:stop] = router[:, :, 0].bool()
        scores = self.wq(x) @ self.cache_k[:, :stop].transpose(1, 2) / WIDTH**0.5
        later = torch.arange(stop)[None] > torch.arange(start, stop)[:, None]
        gone = ~self.cache_mask[:, None, :stop]  # the first tokens never are
        scores = scores.masked_fill(later, -torch.inf).masked_fill(gone, -torch.inf)
        made: Tensor = self.wo(scores.softmax(-1) @ self.cache_v[:, :stop])
        return made


class _Block(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.layer_id, self.attention = number, _Attention()
        self.feed_forward = nn.Linear(WIDTH, WIDTH)
        if number >= START:
            self.router = _Router()

    def _run(self, x: Tensor, w: Tensor, start: int) -> Tensor:
        h = x + self.attention(x, w, start)
        made: Tensor = h + self.feed_forward(torch.tanh(h))
        return made

    def forward(self, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
        if self.layer_id < START:
            w = torch.ones(*x.shape[:2], 1)
            return self._run(x, w, start), w
        w = self.router(x)[:, :, 1:2]
        if start < RESERVED:
            w[:, : RESERVED - start] = 1
        if x.shape[1] > 1:
            return self._run(x, w, start) * w + x * (1 - w), w
        return (self._run(x, w, start) if w.any() else x), w


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(_Block(number) for number in range(LAYERS))
        self.output = nn.Linear(WIDTH, WORDS)
        self.states: list[Tensor] = []

    def forward(self, tokens: Tensor, start: int) -> tuple[Tensor, Tensor]:
        h, acts = self.tok_embeddings(tokens), []
        self.states = [h]
        for layer in self.layers:
            h, w = layer(h, start)
            self.states.append(h)
            acts.append(w)
        return self.output(h), torch.cat(acts, dim=-1)


def _site(layer: int) -> dict[str, Any]:
    return {
        "layer": layer, "unit": "block", "rule": "argmax", "polarity": 1,
        "skip_path": "identity", "kv": "evicted", "scope": "token",
    }  # fmt: skip


def test_decisions_of_prompt_and_decoding_are_those_that_changed_states(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Transformer().eval()
    prompt = torch.randint(0, WORDS, (1, 12))
    path, changed = tmp_path / "run.jsonl", []

    def run(ids: Tensor, start: int) -> Tensor:
        logits, _ = model(ids, start)
        pairs = zip(model.states[START:-1], model.states[START + 1 :], strict=True)
        changed.append(torch.stack([(a != b).any(-1)[0] for a, b in pairs], dim=1))
        return logits[:, -1:].argmax(-1)

    sites = [_site(layer) for layer in range(START, LAYERS)]
    with Recorder(path, sites=sites, model="d-llm", layers=LAYERS) as recorder, torch.no_grad():
        recorder.hook(
            model, "layers.{layer}", unit="block",
            read=lambda module, inputs, output: {"ran": output[1][..., 0]},
        )  # fmt: skip
        recorder.tokens([[f" {token}" for token in prompt[0].tolist()]], sequences=[0])
        token = run(prompt, 0)
        for place in range(12, 18):
            recorder.tokens([[f" {int(token)}"]], sequences=[0], phase=[["decode"]])
            token = run(token, place)
    trace, _ = open_recording(path)
    ran = trace.matrix("exec_count") > 0
    assert np.array_equal(ran, torch.cat(changed).numpy())
    assert ran[:RESERVED].all()
    assert 0 < ran.mean() < 1
    assert trace.sites["kv"].unique().to_list() == ["evicted"]
    assert (trace.tokens["phase"] == "decode").sum() == 6
