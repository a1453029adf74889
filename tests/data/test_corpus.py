"""Input rows on the disk: the same order, names, shares and digests as if they were lists, and room for a million."""

from __future__ import annotations

import json
import random as standard
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.data.corpus import Corpus
from cai.data.prompts import PromptsSource, read_items
from cai.records import FailureRecord, Item
from constitution.messages import user

CONTENTS = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def items_of(contents: list[int]) -> list[Item]:
    return [Item(uid=f"row-{n}", messages=(user(f"Question {content}?"),)) for n, content in enumerate(contents)]


def held_out(items: list[Item], share: float, seed: int) -> set[str]:
    corpus = Corpus.of(items)
    corpus.hold_out(share, seed)
    assert [*corpus.training_items] == [item for item in items if item not in [*corpus.held_out_items]]
    return {item.uid for item in corpus.held_out_items}


@given(CONTENTS, st.floats(0.0, 0.5), st.integers(0, 5))
def test_no_prompt_is_both_trained_on_and_held_out(contents: list[int], share: float, seed: int) -> None:
    """Legal duplicates used to be drawn by their uid: each prompt that stood there often was on both sides."""
    items = items_of(contents)
    held = held_out(items, share, seed)
    trained = {item.messages for item in items if item.uid not in held}
    assert not trained & {item.messages for item in items if item.uid in held}
    assert trained
    assert len(held) <= round(len(items) * share)


@given(CONTENTS, st.integers(0, 5), st.randoms())
def test_what_is_held_out_does_not_depend_on_the_order_of_the_rows(
    contents: list[int], seed: int, random: standard.Random
) -> None:
    items = items_of(contents)
    shuffled = list(items)
    random.shuffle(shuffled)
    assert held_out(shuffled, 0.3, seed) == held_out(items, 0.3, seed)


def test_the_share_held_out_is_met_where_prompts_differ() -> None:
    assert len(held_out(items_of(list(range(200))), 0.1, 0)) == 20


def test_rows_behave_as_a_sequence() -> None:
    items = items_of(list(range(2500)))
    stored = Corpus.of(items).items
    assert [*stored] == items
    assert len(stored) == 2500
    assert (stored[0], stored[-1], stored[2400]) == (items[0], items[-1], items[2400])
    assert [*stored[:3]] == items[:3]
    assert [*stored[-3:-1]] == items[-3:-1]
    assert items[7] in stored
    with pytest.raises(IndexError):
        stored[2500]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#2#2", "b#3"]), max_size=20))
def test_names_are_told_apart_also_from_names_that_look_like_ours(uids: list[str]) -> None:
    corpus = Corpus()
    given_names = [corpus.unique(uid) for uid in uids]
    assert len(set(given_names)) == len(uids)
    assert all(uid in given_names for uid in uids if not uid.count("#"))


def test_the_fingerprint_tells_every_row_its_order_and_what_is_held_out() -> None:
    items = items_of([1, 2, 3, 4, 5, 6, 7, 8])
    prints = {
        Corpus.of(some).fingerprint() for some in (items, items[:-1], [*reversed(items)], items_of([2, 2, 3, 4, 5, 6, 7, 8]))
    }
    held, failed = Corpus.of(items), Corpus.of(items)
    held.hold_out(0.2, 0)
    failed.add(FailureRecord(uid="p:9", stage="read", cause="empty_prompt", detail="p:9: empty"))
    prints |= {held.fingerprint(), failed.fingerprint()}
    assert len(prints) == 6
    assert Corpus.of(items).fingerprint() in prints


def test_rows_that_are_left_out_leave_the_places_of_the_others() -> None:
    corpus = Corpus.of(items_of([0, 1, 2, 3]))
    for name in ("p:1", "p:2"):
        corpus.add(FailureRecord(uid=name, stage="read", cause="c", detail="d"))
    assert [*corpus.positions()] == [0, 1, 2, 3, 4, 5]
    corpus.keep(lambda uid: uid in {"row-1", "row-3", "p:2"})
    assert [item.uid for item in corpus.items] == ["row-1", "row-3"]
    assert [*corpus.positions()] == [1, 3, 5]


def test_text_without_a_utf8_form_anywhere_in_a_row_is_one_counted_failure(tmp_path: Path) -> None:
    """Half a surrogate pair in a fact or an id went through the reader, and ended the run when it was stored."""
    bad = ['{"prompt": "a", "x": "\\ud800"}', '{"prompt": "b", "id": "\\ud800"}', '{"prompt": "c", "tags": ["\\ud800"]}']
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join([*bad, '{"prompt": "e"}']))
    result = read_items(PromptsSource(path=str(path), max_bad_share=1.0))
    assert [item.messages[0].content for item in result.items] == ["e"]
    assert [failure.cause for failure in result.failures] == ["bad_text"] * 3


def test_reading_many_rows_takes_no_more_memory_than_a_few(tmp_path: Path) -> None:
    def grown(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        path.write_text("".join(json.dumps({"prompt": f"question {n} " + "word " * 100}) + "\n" for n in range(rows)))
        before = psutil.Process().memory_info().rss
        corpus = read_items(PromptsSource(path=str(path))).corpus
        corpus.hold_out(0.1, 0)
        assert len(corpus.fingerprint()) == 64
        return psutil.Process().memory_info().rss - before

    grown(2000)
    assert grown(30_000) < 10_000_000, "30,000 rows of 500 characters as objects take 40 MB"
