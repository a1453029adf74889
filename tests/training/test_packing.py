"""How groups lie in a batch: follow the mask back from what is scored, and the input is there again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.training.packing import SHARED_TOKENS, Layout, PackedBatch, TokenGroup, micro_batches, pack


def visible(batch: PackedBatch) -> torch.Tensor:
    """[B, T, T] by the mask rule as documented, applied naively."""
    B, T = batch.input_ids.shape
    if batch.mask is not None:
        return torch.ones(T, T).tril().bool() & batch.mask.bool()[:, None]
    sees = torch.zeros(B, T, T, dtype=torch.bool)
    start = 0
    for tree in batch.trees:
        for key, end in enumerate(tree.ends):
            for query in range(key, end):
                sees[0, start + query, start + key] = True
        start += len(tree)
    assert start == T
    return sees


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
GROUPS = st.lists(st.builds(TokenGroup, TOKENS, st.lists(TOKENS, min_size=1, max_size=3).map(tuple)), min_size=1, max_size=5)


@given(GROUPS, st.sampled_from(["tree", "padded"]))
def test_every_reply_token_is_predicted_from_just_what_stands_before_it(groups: list[TokenGroup], layout: Layout) -> None:
    """Follow the mask back from each scored slot: prompt and reply up to there, in their order, and nothing else."""
    batch = pack(groups, layout)
    T = batch.input_ids.shape[1]
    replies = [(group.prompt_ids, reply) for group in groups for reply in group.replies]
    assert batch.sequence_lengths.tolist() == [len(reply) for _, reply in replies]
    sees_BTT = visible(batch)
    seen_tokens = [0] * len(replies)
    for slot, sequence in zip(batch.slot_of.tolist(), batch.sequence_of.tolist(), strict=True):
        b, t = divmod(int(batch.slots[slot]), T)
        prompt, reply = replies[sequence]
        at = seen_tokens[sequence]
        seen_tokens[sequence] += 1
        assert batch.targets[slot] == reply[at]
        ordered = sorted(sees_BTT[b, t].nonzero()[:, 0].tolist(), key=lambda place: int(batch.position_ids[b, place]))
        assert [int(batch.input_ids[b, place]) for place in ordered] == [*prompt, *reply[:at]]
        assert [int(batch.position_ids[b, place]) for place in ordered] == list(range(len(prompt) + at))
    assert seen_tokens == [len(reply) for _, reply in replies]


@settings(max_examples=50)
@given(GROUPS, st.sampled_from(["tree", "padded"]), st.integers(1, 60))
def test_passes_hold_every_row_once_and_no_more_positions_than_allowed(
    groups: list[TokenGroup], layout: Layout, tokens: int
) -> None:
    numbered = list(enumerate(groups))
    passes = micro_batches(numbered, lambda pair: pair[1], layout, tokens)
    assert sorted(number for batch in passes for number, _ in batch) == list(range(len(groups)))
    for batch in passes:
        positions = pack([group for _, group in batch], layout).tokens
        assert positions <= tokens or len(batch) == 1
        assert positions >= max(max(group.row_lengths(layout)) for _, group in batch)


@settings(max_examples=20)
@given(GROUPS)
def test_sharing_never_costs_positions(groups: list[TokenGroup]) -> None:
    for group in groups:
        assert sum(group.row_lengths("tree")) <= sum(group.row_lengths("padded"))


def test_a_chain_of_revisions_costs_what_is_new_in_each() -> None:
    prompt, text = tuple(range(100)), tuple(range(100, 150))
    group = TokenGroup(prompt, (text, (*text[:25], *range(200, 225)), (*text[:25], *range(300, 325))))
    assert group.row_lengths("tree") == [100 + 49 + 24 + 24]
    assert sum(group.row_lengths("padded")) == 3 * 149


@pytest.mark.parametrize(("common", "trees"), [(SHARED_TOKENS, 1), (SHARED_TOKENS - 1, 2)])
def test_a_system_prompt_is_computed_once_for_all_prompts_of_a_pass(common: int, trees: int) -> None:
    system = tuple(range(1, common + 1))
    batch = pack([TokenGroup((*system, 100), ((1, 2), (3, 4))), TokenGroup((*system, 101), ((1, 2),))], "tree")
    assert len(batch.trees) == trees
    assert batch.tokens == (common if trees == 1 else 2 * common) + 2 + 3


def test_groups_of_one_prompt_are_one_tree_however_short_the_prompt_is() -> None:
    batch = pack([TokenGroup((1, 2), ((3, 4, 5),)), TokenGroup((1, 3), ((3, 4),)), TokenGroup((1, 2), ((3, 4, 6),))], "tree")
    assert [len(tree) for tree in batch.trees] == [2 + 2, 2 + 1]


def test_groups_of_one_prompt_lie_in_one_pass_where_they_fit() -> None:
    """Story: a chain of revisions was dealt out over the passes by length, and its prompt computed in each of them."""
    prompt = tuple(range(40))
    chain = [TokenGroup(prompt, ((*range(50, 50 + shared), *range(90, 100)),)) for shared in (5, 12, 20)]
    others = [TokenGroup((100 + n,), (tuple(range(40)),)) for n in range(6)]
    passes = micro_batches([chain[0], *others[:3], chain[1], *others[3:], chain[2]], lambda group: group, "tree", 130)
    (together,) = [some for some in passes if chain[0] in some]
    assert all(group in together for group in chain)
    assert pack(chain, "tree").tokens == 40 + (20 + 9) + 9 + 9
    small = micro_batches(chain, lambda group: group, "tree", 80)
    assert [pack(some, "tree").tokens <= 80 for some in small] == [True, True]


@given(GROUPS, st.integers(1, 40))
def test_a_row_is_filled_up_with_tokens_that_nobody_sees(groups: list[TokenGroup], multiple: int) -> None:
    plain, filled = pack(groups, "tree"), pack(groups, "tree", multiple=multiple)
    assert filled.tokens % multiple == 0
    assert filled.tokens - plain.tokens < multiple
    assert torch.equal(filled.input_ids[:, : plain.tokens], plain.input_ids)
    assert torch.equal(filled.slots, plain.slots)
    sees = visible(filled)[0]
    assert torch.equal(sees[: plain.tokens, : plain.tokens], visible(plain)[0])
    assert not sees[: plain.tokens, plain.tokens :].any()


def test_unscored_turns_are_read_and_not_learnt() -> None:
    group = TokenGroup((1, 2), ((10, 11, 20, 21, 12, 13), (10, 11, 30, 12)), (((2, 4),), ((2, 3),)), ((0, 3), (1, 4)))
    for layout in ("tree", "padded"):
        batch = pack([group], layout)
        assert batch.sequence_lengths.tolist() == [4, 3, 2, 3]
        learnt = [
            batch.targets[batch.slot_of[batch.sequence_of == sequence]].tolist() for sequence in range(len(group.sequences))
        ]
        assert learnt == [[10, 11, 12, 13], [10, 11, 12], [10, 11], [10, 11, 12]]
        assert {10, 11, 20, 21, 12, 30} <= set(batch.input_ids.flatten().tolist())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (((), ((1,),)), "at least one token each"),
        (((1,), ()), "at least one token each"),
        (((1,), ((),)), "at least one token each"),
        (((1,), ((2, 3),), (((0, 2),),)), "no scored token"),
        (((1,), ((2, 3),), (((0, 1),),), ((0, 1),)), "no scored token"),
        (((1,), ((2, 3), (4,)), (((0, 1),),)), "for each reply or for none"),
        (((1,), ((2, 3, 4, 5),), (((2, 3), (0, 1)),)), "overlap, or are not in order"),
        (((1,), ((2, 3, 4, 5),), (((0, 2), (1, 3)),)), "overlap, or are not in order"),
    ],
)
def test_groups_with_nothing_to_score_are_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TokenGroup(*arguments)


@given(GROUPS, st.sampled_from(["tree", "padded"]))
def test_each_groups_share_of_a_batch_has_no_gap_and_nothing_of_anothers(groups: list[TokenGroup], layout: Layout) -> None:
    batch = pack(groups, layout)
    assert [part.slots.start for part in batch.parts] == [0, *(part.slots.stop for part in batch.parts[:-1])]
    for part in batch.parts:
        slots = set(batch.slot_of[part.tokens].tolist())
        assert slots == set(range(part.slots.start, part.slots.stop))
        assert set(batch.sequence_of[part.tokens].tolist()) == set(range(part.sequences.start, part.sequences.stop))
    assert batch.parts[-1].slots.stop == len(batch.slots)
    assert batch.parts[-1].tokens.stop == len(batch.slot_of)
