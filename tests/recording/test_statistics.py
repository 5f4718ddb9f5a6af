from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skipviz.recording.statistics import BLOCK, ROWS, concatenate, largest, token_statistics


def logits(rows: int, width: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, width, generator=generator)).to(dtype)


@pytest.mark.parametrize("width", [7, 300, 7 * BLOCK, 8 * BLOCK + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_those_of_a_plain_softmax(width: int, dtype: torch.dtype) -> None:
    given_logits = logits(2 * ROWS + 3, width, dtype=dtype)
    targets = torch.arange(2 * ROWS + 3) % width
    found = token_statistics(given_logits, targets)
    spread = torch.distributions.Categorical(logits=given_logits.double())
    top = spread.probs.topk(5)
    assert torch.allclose(found.nll.double(), -spread.log_prob(targets), atol=1e-5)
    assert torch.allclose(found.entropy.double(), spread.entropy(), atol=1e-5)
    assert torch.allclose(found.top_probs.double(), top.values, atol=1e-6)
    # bfloat16 logits tie, and a tie may be listed in either order.
    assert torch.equal(given_logits.gather(1, found.top_ids), given_logits.gather(1, top.indices))


def test_a_token_without_a_next_one_has_no_loss_but_a_prediction() -> None:
    given_logits = logits(3, 300)
    found = token_statistics(given_logits, torch.tensor([4, -1, 5]))
    assert found.nll.isnan().tolist() == [False, True, False]
    assert not found.entropy.isnan().any()
    assert torch.equal(found.top_ids[:, 0], given_logits.argmax(1))


def test_a_vocabulary_smaller_than_the_list_leaves_blanks() -> None:
    found = token_statistics(logits(2, 3), torch.tensor([0, 1]))
    assert found.top_ids[:, 3:].tolist() == [[-1, -1], [-1, -1]]
    assert found.top_probs[:, 3:].tolist() == [[0, 0], [0, 0]]
    assert found.top_probs[:, :3].sum(1).tolist() == pytest.approx([1, 1])


def test_logits_too_large_to_exponentiate_are_reduced_all_the_same() -> None:
    given_logits = torch.tensor([[1e4, 0.0, -1e4]])
    found = token_statistics(given_logits, torch.tensor([0]))
    assert found.nll.item() == 0
    assert found.entropy.item() == 0


def test_the_logits_are_left_as_they_were() -> None:
    given_logits = logits(ROWS + 1, 6 * BLOCK)
    before = given_logits.clone()
    token_statistics(given_logits, torch.zeros(ROWS + 1, dtype=torch.int64))
    assert torch.equal(given_logits, before)


def test_no_token_gives_no_statistics() -> None:
    found = token_statistics(torch.empty(0, 300), torch.empty(0, dtype=torch.int64))
    assert found.nll.shape == (0,)
    assert found.top_ids.shape == (0, 5)


def test_parts_of_a_text_join_to_the_whole() -> None:
    given_logits, targets = logits(9, 300), torch.arange(9)
    whole = token_statistics(given_logits, targets)
    parts = concatenate([whole.rows(slice(0, 4)), whole.rows(torch.arange(4, 9))])
    for name in ("nll", "entropy", "top_ids", "top_probs"):
        assert torch.equal(getattr(parts, name), getattr(whole, name))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(5, 9 * BLOCK), count=st.integers(1, 5), few=st.booleans(), seed=st.integers()
)
def test_the_largest_values_are_found_wherever_they_are(
    width: int, count: int, few: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    values = torch.randn(3, width, generator=generator)
    if few:  # with many ties
        values = values.round()
    found, where = largest(values, count)
    assert torch.equal(found, values.topk(count, dim=1).values)
    assert torch.equal(values.gather(1, where), found)
    assert all(len(set(row)) == count for row in where.tolist())
