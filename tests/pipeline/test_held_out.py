"""Which prompts are held out: never one that is also trained on, and the same ones in any order."""

from __future__ import annotations

import random as standard

from hypothesis import given
from hypothesis import strategies as st

from cai.pipeline.preflight import held_out_uids
from cai.records import Item
from constitution.messages import user

CONTENTS = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def items_of(contents: list[int]) -> list[Item]:
    return [Item(uid=f"row-{n}", messages=(user(f"Question {content}?"),)) for n, content in enumerate(contents)]


@given(CONTENTS, st.floats(0.0, 0.5), st.integers(0, 5))
def test_no_prompt_is_both_trained_on_and_held_out(contents: list[int], share: float, seed: int) -> None:
    """Legal duplicates used to be drawn by their uid: each prompt that stood there often was on both sides."""
    items = items_of(contents)
    held_out = held_out_uids(items, share, seed)
    trained = {item.messages for item in items if item.uid not in held_out}
    assert not trained & {item.messages for item in items if item.uid in held_out}
    assert trained
    assert len(held_out) <= round(len(items) * share)


@given(CONTENTS, st.integers(0, 5), st.randoms())
def test_the_order_of_the_rows_does_not_matter(contents: list[int], seed: int, random: standard.Random) -> None:
    items = items_of(contents)
    shuffled = list(items)
    random.shuffle(shuffled)
    assert held_out_uids(shuffled, 0.3, seed) == held_out_uids(items, 0.3, seed)


def test_the_share_is_met_where_prompts_differ() -> None:
    assert len(held_out_uids(items_of(list(range(200))), 0.1, 0)) == 20
