"""Decoding on a GPU without a launch per operation: captured graphs for few sizes of batch.

In each unit some of a batch's tokens execute, and how many is known only when their gates have
scored. So every unit is captured once for each of a few capacities: the tokens that execute are
gathered into the smallest graph that holds them, and the places that are left are computed and not
used. All graphs take their memory from one pool. Without CUDA the same pieces run as they are,
which is how they are tested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skipviz.families.gated.modules import GatedUnit
from skipviz.families.llama import decoder_layers, rotated

Piece = Callable[[], None]


def capacities(batch: int) -> list[int]:
    """Return 0, the powers of two below the size of a batch, and that size."""
    found = [0]
    while (size := max(1, 2 * found[-1])) < batch:
        found.append(size)
    return [*found, batch]


def capacity_for(count: int, sizes: list[int]) -> int:
    """Return the smallest capacity that holds so many tokens."""
    return next(size for size in sizes if size >= count)


class BucketedDecode:
    """Decodes a token of each text of a batch at a time, from keys and values of a prompt.

    Parameters
    ----------
    model
        A gated causal LM of the Llama layout, or a dense one.
    batch, length
        Texts, and tokens that the cache has room for.
    capture
        Whether pieces are captured as CUDA graphs.
    """

    def __init__(self, model: Any, *, batch: int, length: int, capture: bool) -> None:
        self.model, self.batch, self.sizes = model, batch, capacities(batch)
        self.layers = list(decoder_layers(model))
        device, dtype = next(model.parameters()).device, model.dtype
        config = model.config
        width = int(config.hidden_size)
        head = getattr(config, "head_dim", None) or width // config.num_attention_heads
        shape = (len(self.layers), batch, config.num_key_value_heads, length, head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.ids = torch.zeros((batch, 1), dtype=torch.long, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.columns = torch.arange(length, device=device)
        self.residual = torch.zeros((batch, width), device=device, dtype=dtype)
        self.states = torch.zeros_like(self.residual)
        self.stand_in = torch.zeros_like(self.residual)
        self.picked = torch.arange(batch, device=device)
        self.execute = torch.ones(batch, dtype=torch.bool, device=device)
        self.count = torch.zeros((), dtype=torch.long, device=device)
        self.rotary = tuple(torch.zeros((batch, head), device=device, dtype=dtype) for _ in "cs")
        self.logits = torch.zeros((batch, config.vocab_size), device=device, dtype=dtype)
        self.ran = 0
        self._pool = torch.cuda.graph_pool_handle() if capture else None
        self.capture = capture
        self.graphs = 0
        with torch.inference_mode():
            self._build()

    def fill(self, cache: Any) -> None:
        """Take over the keys and values of a prompt."""
        for number, layer in enumerate(cache.layers):
            tokens = layer.keys.shape[2]
            self.keys[number, :, :, :tokens].copy_(layer.keys)
            self.values[number, :, :, :tokens].copy_(layer.values)

    @torch.inference_mode()
    def step(self, ids: Tensor, place: int) -> Tensor:
        """Run one token of each text; return its logits, which the next step overwrites."""
        self.ids.copy_(ids)
        self.place.fill_(place)
        self._begin()
        for pieces in self._units:
            if len(pieces) == 1:  # no gate: the whole batch runs
                pieces[self.batch]()
                continue
            count = int(self.count)  # waits for the gate
            self.ran += count
            pieces[capacity_for(count, self.sizes)]()
        return self.logits

    def _build(self) -> None:
        units = [
            (number, kind, getattr(layer, name))
            for number, layer in enumerate(self.layers)
            for kind, name in (("attn", "self_attn"), ("mlp", "mlp"))
        ]
        self._begin = self._captured(lambda: (self._embed(), self._look(*units[0])))
        self._units: list[dict[int, Piece]] = []
        for place, unit in enumerate(units):
            after = units[place + 1] if place + 1 < len(units) else None
            gated = isinstance(unit[2], GatedUnit)
            sizes = self.sizes if gated else [self.batch]
            self._units.append(
                {size: self._captured(self._piece(unit, size, after)) for size in sizes}
            )

    def _piece(self, unit: Any, size: int, after: Any) -> Callable[[], Any]:
        def run() -> None:
            self._carry_out(*unit, size)
            if after is None:
                self._finish()
            else:
                self._look(*after)

        return run

    def _captured(self, run: Callable[[], Any]) -> Piece:
        if not self.capture:
            return run
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()  # libraries set themselves up in the first run
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        self.graphs += 1
        return graph.replay

    def _embed(self) -> None:
        self.residual.copy_(self.model.model.embed_tokens(self.ids)[:, 0])
        places = self.place.expand(self.batch)[:, None]
        found = self.model.model.rotary_emb(self.residual[:, None], position_ids=places)
        for kept, each in zip(self.rotary, found, strict=True):
            kept.copy_(each[:, 0])

    def _look(self, number: int, kind: str, module: Any) -> None:
        """Normalise, keep keys and values, score, and decide who runs the unit that comes next."""
        layer = self.layers[number]
        norm = layer.input_layernorm if kind == "attn" else layer.post_attention_layernorm
        self.states.copy_(norm(self.residual))
        unit = module.unit if isinstance(module, GatedUnit) else module
        if kind == "attn":
            shape = (self.batch, -1, unit.head_dim)
            key = rotated(unit, unit.k_proj(self.states).view(shape), self.rotary, "k_norm")
            value = unit.v_proj(self.states).view(shape)
            self.keys[number].index_copy_(2, self.place, key[:, :, None])
            self.values[number].index_copy_(2, self.place, value[:, :, None])
        if isinstance(module, GatedUnit):
            self.execute.copy_(module.decide(module.gate(self.states[:, None]))[:, 0])
            order = self.execute.to(torch.uint8).argsort(descending=True, stable=True)
            self.picked.copy_(order)
            self.count.copy_(self.execute.sum())
            self.stand_in.copy_(module.adapter(self.states))

    def _carry_out(self, number: int, kind: str, module: Any, size: int) -> None:
        gated = isinstance(module, GatedUnit)
        unit = module.unit if gated else module
        if size:
            rows = self.picked[:size] if gated else torch.arange(size, device=self.ids.device)
            given = self.states[rows]
            made = self._attend(number, unit, given, rows) if kind == "attn" else unit(given)
            if gated:
                made = torch.where(self.execute[rows, None], made, self.stand_in[rows])
                made = self.stand_in.index_copy(0, rows, made)
            self.residual.add_(made)
        else:
            self.residual.add_(self.stand_in)

    def _attend(self, number: int, unit: Any, given: Tensor, rows: Tensor) -> Tensor:
        turned = tuple(each[rows] for each in self.rotary)
        query = unit.q_proj(given).view(len(given), -1, unit.head_dim)
        query = rotated(unit, query, turned, "q_norm")[:, :, None]
        seen = (self.columns <= self.place)[None, None, None]
        whole = len(given) == self.batch and self.batch == 1
        keys = self.keys[number] if whole else self.keys[number][rows]
        values = self.values[number] if whole else self.values[number][rows]
        read = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=seen, scale=unit.scaling, enable_gqa=True
        )
        output: Tensor = unit.o_proj(read.flatten(1))
        return output

    def _finish(self) -> None:
        self.logits.copy_(self.model.lm_head(self.model.model.norm(self.residual)))
