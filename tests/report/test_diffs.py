"""Word diffs: nothing is lost, and what is marked is what a reader would mark."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.diffs import word_diff

ALPHABET = st.sampled_from(
    [
        "a",
        "the",
        "don't",
        "3.5",
        " ",
        "  ",
        "\n",
        "\t",
        ".",
        ",",
        "“",
        "é",
        "e\u0301",
        "数",
        "字",
        "👩‍👩‍👧",
        "\u202e",
        "\x00",
        "<b>",
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(ALPHABET, max_size=40).map("".join))


def marked(before: str, after: str) -> str:
    """[removed] and {added}, as one line."""
    forms = {"kept": "{}", "removed": "[{}]", "added": "{{{}}}"}
    return "".join(forms[piece.kind].format(piece.text) for piece in word_diff(before, after))


@given(before=TEXTS, after=TEXTS)
def test_the_pieces_give_back_both_texts_to_the_last_space(before: str, after: str) -> None:
    pieces = word_diff(before, after)
    assert "".join(p.text for p in pieces if p.kind != "added") == before
    assert "".join(p.text for p in pieces if p.kind != "removed") == after
    assert all(p.text for p in pieces)


@given(before=TEXTS, after=TEXTS)
def test_no_two_neighbours_are_of_one_kind_and_removals_come_before_additions(before: str, after: str) -> None:
    kinds = [piece.kind for piece in word_diff(before, after)]
    assert all(one != other for one, other in pairwise(kinds))
    assert ("added", "removed") not in set(pairwise(kinds))


@given(text=TEXTS)
def test_equal_texts_have_no_change(text: str) -> None:
    assert [p.kind for p in word_diff(text, text)] == (["kept"] if text else [])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "new", "{new}"),
        ("old", "", "[old]"),
        ("You are right, 2 + 2 is 5.", "You are right, 2 + 2 is 4.", "You are right, 2 + 2 is [5]{4}."),
        ("It costs 3.5 euros", "It costs 3.75 euros", "It costs [3.5]{3.75} euros"),
        ("I don't know", "I do know", "I [don't]{do} know"),
        ("这是红色的", "这是蓝色的", "这是[红]{蓝}色的"),
        ("the family 👩‍👩‍👧 here", "the family 👩‍👩‍👦 here", "the family [👩‍👩‍👧]{👩‍👩‍👦} here"),
        (
            "Take the screwdriver and open the back of the locker.",
            "Please ask the owner before anything else is done.",
            "[Take the screwdriver and open the back of the locker]{Please ask the owner before anything else is done}.",
        ),
    ],
)
def test_changes_are_marked_by_words_and_phrases(before: str, after: str, expected: str) -> None:
    assert marked(before, after) == expected


def test_very_long_texts_take_no_more_than_a_moment() -> None:
    """The matcher is quadratic: 100,000 words against 100,000 others would take hours."""
    before, after = (" ".join(f"{side}{n}" for n in range(100_000)) for side in "ab")
    started = time.perf_counter()
    assert [p.kind for p in word_diff(f"same {before} end", f"same {after} end")] == ["kept", "removed", "added", "kept"]
    assert time.perf_counter() - started < 10
