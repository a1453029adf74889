"""Training and test parts of exports, and rows that go through in a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from exported_rows import direct, rows_in
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_runs import labelled_pair

from cai.data.exporting import Choices, Source, format_named, write_export
from cai.data.exporting.writing import part_of
from cai.records import PreferenceRecord
from constitution.messages import user


def test_parts_share_no_prompt_and_lose_no_row(tmp_path: Path) -> None:
    prompts = [(user(f"question {n % 40}"),) for n in range(80)]
    pairs = [labelled_pair(str(n), prompt=prompt) for n, prompt in enumerate(prompts)]
    outcome = direct(pairs, "trl", tmp_path / "out", test_share=0.3)
    for each in outcome.written():
        parts = {split: rows_in(tmp_path / "out" / name) for split, name in each.files.items()}
        assert set(parts) == {"train", "test"}
        assert sorted(row["uid"] for rows in parts.values() for row in rows) == sorted(str(n) for n in range(80))
        seen = [{prompts[int(row["uid"])] for row in rows} for rows in parts.values()]
        assert not seen[0] & seen[1]
        assert 0.15 < len(parts["test"]) / 80 < 0.45


@pytest.mark.parametrize(("share", "missing"), [(1e-9, "test_prefs"), (1 - 1e-9, "train_prefs")])
def test_a_part_that_no_row_fell_to_is_told(share: float, missing: str, tmp_path: Path) -> None:
    """Story: a test part was asked for of a few prompts, none fell to it, and there was neither a file nor a word."""
    outcome = direct([labelled_pair("a")], "alignment-handbook", tmp_path / "out", test_share=share)
    assert not (tmp_path / "out" / f"preferences-{missing}.jsonl").exists()
    assert f"preferences: no row fell to the part `{missing}`, and so there is no file of it" in list(outcome.told())
    whole = direct([labelled_pair("a")], "alignment-handbook", tmp_path / "whole")
    assert not [line for line in whole.told() if "no row fell" in line]


@settings(max_examples=30)
@given(st.lists(st.text(max_size=5), min_size=1, max_size=3), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_larger_test_share_only_adds_to_the_test_part(texts: list[str], one: float, other: float) -> None:
    prompt = [user(text) for text in texts]
    assert part_of(prompt, min(one, other)) <= part_of(prompt, max(one, other))


def test_rows_go_through_in_a_stream(tmp_path: Path) -> None:
    """No record outlives the next ones: of thousands, a handful is alive at any moment."""
    import weakref

    alive: weakref.WeakSet[PreferenceRecord] = weakref.WeakSet()
    most = 0

    def pairs() -> Iterator[PreferenceRecord]:
        nonlocal most
        for n in range(3000):
            made = labelled_pair(str(n))
            alive.add(made)
            most = max(most, len(alive))
            yield made

    write_export(Source(pairs, lambda: iter(())), format_named("trl"), tmp_path / "out", Choices(), lambda _: "")
    assert 0 < most < 10
