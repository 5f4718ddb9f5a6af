"""Keys and values that are written in place, against transformers' own cache."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from skipviz.families.gated.held_keys import ROOM, HeldKeys

ATTENTION = SimpleNamespace(layer_idx=0)


def drawn(tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randn(1, 2, tokens, 4), torch.randn(1, 2, tokens, 4)


def same(found: Any, wanted: Any) -> bool:
    return all(torch.equal(*each) for each in zip(found, wanted, strict=True))


def of(cache: Any) -> tuple[Tensor, Tensor]:
    return cache.layers[0].keys, cache.layers[0].values


def grow(held: HeldKeys, cache: Any, plain: Any, *, tokens: int) -> None:
    """Add tokens to both caches, the same ones."""
    for _ in range(tokens):
        new = drawn(1)
        found = held.keep(cache, ATTENTION, *new, {})
        assert same(found, plain.update(*new, 0))
        assert same(of(cache), of(plain))


@pytest.fixture
def caches() -> tuple[DynamicCache, DynamicCache]:
    torch.manual_seed(0)
    prompt = drawn(5)
    both = DynamicCache(), DynamicCache()
    for each in both:
        each.update(*prompt, 0)
    return both


@torch.inference_mode()
def test_more_tokens_than_there_is_room_for(caches: tuple[DynamicCache, DynamicCache]) -> None:
    held = HeldKeys()
    grow(held, *caches, tokens=3)
    before = of(caches[0])[0]
    grow(held, *caches, tokens=1)
    assert of(caches[0])[0].data_ptr() == before.data_ptr(), "it is not copied"
    grow(held, *caches, tokens=ROOM + 3)


@torch.inference_mode()
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_and_what_is_cut_off_do_not_write_to_each_other(
    caches: tuple[DynamicCache, DynamicCache], copied: Any
) -> None:
    held = HeldKeys()
    grow(held, *caches, tokens=3)
    others = DynamicCache(), DynamicCache()
    for other, cache in zip(others, caches, strict=True):
        other.layers = [copied(cache.layers[0])]
    grow(held, *others, tokens=2)
    kept = of(others[0])
    was = [each.clone() for each in kept]
    grow(held, *caches, tokens=2)
    assert same(of(others[0]), was)
    for each in others:
        each.crop(-1)
    grow(held, *others, tokens=2)
    assert same(kept, was), "what somebody took from the cache stays"
    assert same(of(caches[0]), of(caches[1]))


def test_a_cache_goes_on_in_another_mode(caches: tuple[DynamicCache, DynamicCache]) -> None:
    held = HeldKeys()
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            grow(held, *caches, tokens=2)


def test_other_caches_keep_as_they_do() -> None:
    asked: list[Any] = []
    cache = SimpleNamespace(update=lambda *given: asked.append(given) or given[:2])
    with torch.inference_mode():
        key, value = drawn(1)
        assert same(HeldKeys().keep(cache, ATTENTION, key, value, {}), (key, value))
    assert len(asked) == 1


class _Told(DynamicCache):
    """Is told of every token."""

    told = 0

    def update(self, *given: Any, **more: Any) -> Any:
        self.told += 1
        return super().update(*given, **more)


@torch.inference_mode()
def test_a_cache_with_its_own_way_of_keeping_is_asked() -> None:
    torch.manual_seed(0)
    prompt = drawn(5)
    own, plain = _Told(), DynamicCache()
    for each in (own, plain):
        each.update(*prompt, 0)
    grow(HeldKeys(), own, plain, tokens=3)
    assert own.told == 4
