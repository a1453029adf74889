"""Block attention with gradients against plain attention under the tree's mask, in float64."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cai.engines import tree_attention
from cai.engines.prefixes import TokenTree
from cai.training.tree_flash import TrainableTreeAttention

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=5)


def trees_of(forest: list[list[list[int]]]) -> list[TokenTree]:
    trees: list[TokenTree] = []
    for sequences in forest:
        trees.append(TokenTree())
        for sequence in sorted(sequences):
            trees[-1].add(sequence)
    return trees


def mask_of(trees: list[TokenTree], window: int | None) -> torch.Tensor:
    """Token by token: who is whose ancestor, and how far back."""
    size = sum(map(len, trees))
    sees = torch.zeros(size, size, dtype=torch.bool)
    start = 0
    for tree in trees:
        for query in range(len(tree)):
            for key in range(query + 1):
                near = window is None or tree.depths[query] - tree.depths[key] < window
                sees[start + query, start + key] = query < tree.ends[key] and near
        start += len(tree)
    return sees


@given(
    st.lists(SEQUENCES, min_size=1, max_size=3),
    st.sampled_from([None, 1, 3, 7]),
    st.sampled_from([0, 4, 96]),
    st.sampled_from([1, 3, tree_attention.CAUSAL_TOKENS]),
    st.integers(0, 9),
)
def test_outputs_and_gradients_are_those_of_plain_attention(
    forest: list[list[list[int]]], window: int | None, bush_tokens: int, causal_tokens: int, seed: int
) -> None:
    trees, draw = trees_of(forest), torch.Generator().manual_seed(seed)
    heads, kept, size, width = 4, 2, sum(map(len, trees)), 8

    def normal(count: int) -> torch.Tensor:
        return torch.randn(count, size, width, generator=draw, dtype=torch.float64).requires_grad_()

    query, key, value, upstream = normal(heads), normal(kept), normal(kept), normal(heads).detach()
    with patch.object(tree_attention, "CAUSAL_TOKENS", causal_tokens):
        attention = TrainableTreeAttention(trees, window=window, dtype=torch.float64, bush_tokens=bush_tokens)
    found = attention.attend(query, key, value, scale=0.3, windowed=True, last=True)
    scores = 0.3 * query @ key.repeat_interleave(heads // kept, 0).transpose(1, 2)
    weights = scores.masked_fill(~mask_of(trees, window), -torch.inf).softmax(-1)
    wanted = weights @ value.repeat_interleave(heads // kept, 0)
    torch.testing.assert_close(found, wanted)
    inputs = query, key, value
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("windowed", [True, False])
def test_layers_without_a_window_see_everything(*, windowed: bool) -> None:
    trees = trees_of([[[1] * 9, [1] * 4 + [2] * 5]])
    query = torch.randn(1, 14, 8, dtype=torch.float64)
    attention = TrainableTreeAttention(trees, window=3, dtype=torch.float64, bush_tokens=0)
    found = attention.attend(query, query, query, scale=None, windowed=windowed, last=False)
    mask = mask_of(trees, 3 if windowed else None)
    wanted = (query @ query.transpose(1, 2) / 8**0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ query
    torch.testing.assert_close(found, wanted)
