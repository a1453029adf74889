"""Packing sequences that share beginnings: every token sees exactly its own sequence, and each shared one is there once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.engines.beginnings import MIN_SHARED_SHARE, common_prefix, group_by_prefix
from cai.engines.prefixes import WIDTH_STEP, Forest, TokenTree

# Few different tokens, so that beginnings are shared often.
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=9)


def built(sequences: list[list[int]]) -> tuple[TokenTree, list[list[int]]]:
    tree = TokenTree()
    return tree, [tree.add(sequence) for sequence in sorted(sequences)]


@given(SEQUENCES)
def test_the_path_of_a_sequence_holds_its_tokens_at_their_depths(sequences: list[list[int]]) -> None:
    tree, paths = built(sequences)
    for sequence, path in zip(sorted(sequences), paths, strict=True):
        assert [tree.tokens[place] for place in path] == sequence
        assert [tree.depths[place] for place in path] == list(range(len(sequence)))


@given(SEQUENCES)
def test_a_shared_beginning_is_stored_once(sequences: list[list[int]]) -> None:
    tree, _ = built(sequences)
    assert len(tree) == len({tuple(each[:length]) for each in sequences for length in range(1, len(each) + 1)})


@given(st.lists(SEQUENCES, min_size=1, max_size=3), st.one_of(st.none(), st.integers(1, 5)))
def test_a_token_sees_its_ancestors_within_the_window_and_nothing_else(
    trees: list[list[list[int]]], window: int | None
) -> None:
    made = [built(sequences) for sequences in trees]
    forest = Forest(tuple(tree for tree, _ in made))
    sees, ids, positions = forest.sees(window), forest.ids(), forest.positions()
    for row, (tree, paths) in enumerate(made):
        assert ids[row, : len(tree)].tolist() == tree.tokens
        assert positions[row, : len(tree)].tolist() == tree.depths
        for path in paths:
            for depth, place in enumerate(path):
                seen = sees[row, 0, place].nonzero().flatten().tolist()
                assert seen == sorted(path[max(0, depth + 1 - (window or len(path))) : depth + 1])
    assert sees.any(-1).all()  # a row that sees nothing would be NaN


@given(SEQUENCES)
def test_a_chain_is_what_a_plain_causal_mask_describes(sequences: list[list[int]]) -> None:
    tree, paths = built(sequences)
    if tree.is_chain:
        assert all(path == list(range(len(path))) for path in paths)
    else:
        assert any(path != list(range(len(path))) for path in paths)


@given(SEQUENCES)
def test_sequences_cut_by_their_last_token_are_still_in_an_order_that_can_be_added(sequences: list[list[int]]) -> None:
    """Scoring adds every sequence without its last token, in the order of the whole ones."""
    tree = TokenTree()
    for sequence in sorted(sequences):
        path = tree.add(sequence[:-1])
        assert [tree.tokens[place] for place in path] == sequence[:-1]
    assert len(tree) == len({tuple(each[:length]) for each in sequences for length in range(1, len(each))})


@given(SEQUENCES, st.integers(1, 30))
def test_groups_hold_every_sequence_once_and_only_near_relatives(sequences: list[list[int]], most_tokens: int) -> None:
    groups = group_by_prefix(sequences, most_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(sequences)))
    for group in groups:
        members = [sequences[index] for index in group]
        assert members == sorted(members)
        for one, other in pairwise(members):
            assert common_prefix(one, other) >= MIN_SHARED_SHARE * len(other)
        tree, _ = built(members)
        assert len(tree) <= most_tokens or len(group) == 1
    longest = [max(len(sequences[index]) for index in group) for group in groups]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(SEQUENCES, min_size=1, max_size=3))
def test_the_width_of_a_forest_is_a_whole_number_of_steps(trees: list[list[list[int]]]) -> None:
    forest = Forest(tuple(built(sequences)[0] for sequences in trees))
    longest = max(len(tree) for tree in forest.trees)
    assert forest.width % WIDTH_STEP == 0
    assert longest <= forest.width < longest + WIDTH_STEP
    assert forest.ids().shape == forest.positions().shape == (len(trees), forest.width)
    assert forest.sees().shape == (len(trees), 1, forest.width, forest.width)


@given(st.lists(st.integers(0, 1), max_size=6), st.lists(st.integers(0, 1), max_size=6))
def test_the_common_prefix_is_the_longest_that_both_begin_with(first: list[int], second: list[int]) -> None:
    shared = common_prefix(first, second)
    assert first[:shared] == second[:shared]
    assert shared == min(len(first), len(second)) or first[shared] != second[shared]


def test_a_hundred_principles_after_one_conversation_cost_it_once() -> None:
    shared = list(range(300))
    sequences = [[*shared, 1000 + n, 2000 + n] for n in range(100)]
    (group,) = group_by_prefix(sequences, 1000)
    tree, _ = built([sequences[index] for index in group])
    assert len(tree) == 300 + 2 * 100


@pytest.mark.parametrize("sequences", [[[1, 2], [1, 2, 3]], [[1, 2], [1, 2]], [[5]]])
def test_a_sequence_that_goes_on_from_another_is_no_branch(sequences: list[list[int]]) -> None:
    assert built(sequences)[0].is_chain
