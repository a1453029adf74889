"""JSON with places: the same values as the standard library's, and an error with line and column where that is lenient."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import ConstitutionError
from constitution.importing.json_documents import MAX_DEPTH, read_json, read_json_lines
from constitution.importing.sources import Kind, read_source

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_TEXTS, below, max_size=4),
    max_leaves=15,
)


@given(_VALUES, st.sampled_from([None, 1, 4]), st.booleans())
def test_it_reads_what_the_standard_library_reads(value: object, indent: int | None, escaped: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    document = read_json(text)
    assert document.problems == []
    assert document.value == value
    assert json.dumps(document.value) == json.dumps(value)


@given(st.text(alphabet='[]{},:"\\ntrue0-1.eE \nNaIfy/u', max_size=30))
def test_it_accepts_no_text_that_the_standard_library_refuses(text: str) -> None:
    document = read_json(text)
    try:
        value: object = json.loads(text)
    except ValueError:
        assert document.problems
    else:
        assert document.problems or document.value == value


def test_every_value_knows_its_line_and_column() -> None:
    document = read_json('{"a": [1,\n  {"b c": "x"}],\n "d": null}')
    places = {path: (place.line, place.column) for path, place in document.places.items()}
    assert places == {(): (1, 1), ("a",): (1, 2), ("a", 0): (1, 8), ("a", 1): (2, 3), ("a", 1, "b c"): (2, 4), ("d",): (3, 2)}


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ('{"a": 1,\n "a": 2}', 2, 2, "`a` is given twice \\(first on line 1\\)"),
        ("[1, NaN]", 1, 5, "NaN is not allowed"),
        ("[-Infinity]", 1, 2, "-Infinity is not allowed"),
        ("[1e999]", 1, 2, "too large"),
        ("[" + "9" * 5000 + "]", 1, 2, "not valid JSON"),
        ('["\\ud800"]', 1, 2, "half a surrogate pair"),
        ("[1,\n2,]", 2, 2, "a comma with nothing behind it"),
        ("[1 2]", 1, 4, "a comma or `]`"),
        ("{1: 2}", 1, 2, "a key in double quotes"),
        ('{"a" 1}', 1, 6, "a colon"),
        ('["a\nb"]', 1, 4, "not valid JSON"),
        ("[1] 2", 1, 5, "something follows"),
        ("[", 1, 2, "not valid JSON"),
        ("", 1, 1, "not valid JSON"),
        ("[" * 100_000, 1, MAX_DEPTH + 2, "nested more than"),
        ('{"a":' * 100_000, 1, (MAX_DEPTH + 1) * 5 + 1, "nested more than"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, line: int, column: int, told: str) -> None:
    (problem,) = read_json(text).problems
    assert (problem.line, problem.column) == (line, column)
    assert re.search(told, problem.problem)


def test_every_doubled_key_is_told_at_once() -> None:
    assert [problem.line for problem in read_json('[{"a":1,"a":2},\n{"b":1,"b":2}]').problems] == [1, 2]


def test_lines_keep_their_numbers_when_some_are_blank_and_each_broken_one_is_told() -> None:
    document = read_json_lines('{"a": 1}\n\n{"a": 2}\n')
    assert document.value == [{"a": 1}, {"a": 2}]
    assert document.places[(1, "a")].line == 3
    assert [problem.line for problem in read_json_lines("{}\n{\n\n}\n").problems] == [2, 4]


def test_a_source_is_read_by_its_ending_or_by_how_it_begins(tmp_path: Path) -> None:
    texts = {"a.json": "[1]", "b.json": "[1]\n[2]\n", "c.txt": ' {"a": 1}', "d.txt": "text", "e.yml": "- a", "f.PY": "x = 1"}
    kinds: list[Kind] = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        kinds.append(read_source(tmp_path / name).kind)
    assert kinds == [Kind.JSON, Kind.LINES, Kind.JSON, Kind.MARKDOWN, Kind.YAML, Kind.PYTHON]


@pytest.mark.parametrize(
    ("name", "raw", "place", "told"),
    [
        ("a.json", b'["caf\xe9"]', (1, 6), "not UTF-8"),
        ("a.md", b"# a\n\nb\xff", (3, 2), "not UTF-8"),
        ("a.json", b"  \n", (0, 0), "empty"),
        ("a.json", b"\xff\xfe[\x00]\x00", (1, 1), "not UTF-8"),
        ("a.yaml", b"- a\n- a: [", (2, 7), "not valid YAML"),
        ("a.yaml", b"a: &a\n  - *a\n", (1, 4), "contains itself"),
        ("a.yaml", b"- " + b"x" * 600_000, (0, 0), "too much for YAML"),
        ("a.yaml", b"- " + "é".encode() * 300_000, (0, 0), "more than 500000 bytes is too much for YAML"),
        ("a.md", b"- " + "語".encode() * 200_000, (0, 0), "more than 500000 bytes is too much for Markdown"),
        ("a.json", b"[" + b" " * 17_000_000 + b"]", (0, 0), "too much"),
    ],
)
def test_a_source_that_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, name: str, raw: bytes, place: tuple[int, int], told: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ConstitutionError, match=told) as caught:
        read_source(tmp_path / name)
    assert (caught.value.errors[0].line, caught.value.errors[0].column) == place


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_source(tmp_path / "a.json").data == [1]


def test_folders_and_missing_files_are_told(tmp_path: Path) -> None:
    for path, told in ((tmp_path, "a folder"), (tmp_path / "none.json", "no such file")):
        with pytest.raises(ConstitutionError, match=told):
            read_source(path)


def test_ten_megabytes_are_read_in_seconds() -> None:
    text = json.dumps([{"prompt": "x" * 1000, "n": n} for n in range(10_000)])
    started = time.process_time()
    assert len(read_json(text).value) == 10_000
    assert time.process_time() - started < 2
