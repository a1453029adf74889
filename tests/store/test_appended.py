"""Values in a file that is only ever added to."""

from __future__ import annotations

from pathlib import Path

import pytest

from cai.store.appended import AppendedValues


def test_what_was_added_is_read_again_and_the_last_value_of_a_key_counts(tmp_path: Path) -> None:
    file = AppendedValues(tmp_path / "new" / "kept.jsonl")
    assert file.read() == {}
    file.add({})
    assert not file.path.exists()
    file.add({"a": 0.1, "b": [1.0, -2.5]})
    file.add({"a": float("inf"), "ü": None})
    assert AppendedValues(file.path).read() == {"a": float("inf"), "b": [1.0, -2.5], "ü": None}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_cut_off_and_nothing_before_it_is_written_again(tmp_path: Path, cut: int) -> None:
    """The file is shortened in its place: rewriting it would risk all of it at the next kill."""
    file = AppendedValues(tmp_path / "kept.jsonl")
    file.add({"first": 1, "last": 2})
    before = file.path.stat().st_ino
    file.path.write_bytes(file.path.read_bytes()[:-cut])
    assert file.read() == {"first": 1}
    file.add({"last": 3})
    assert file.read() == {"first": 1, "last": 3}
    assert file.path.stat().st_ino == before


def test_lines_that_something_else_has_damaged_cost_themselves_alone(tmp_path: Path) -> None:
    file = AppendedValues(tmp_path / "kept.jsonl")
    file.path.write_bytes(b'["a", 1]\n["b"]\n\xff\xfe\n7\n\n{"c": 1}\n["d", 2]\n')
    assert file.read() == {"a": 1, "d": 2}
