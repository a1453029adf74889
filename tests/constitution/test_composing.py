"""YAML is read as PyYAML reads it, with places, within bounds; PyYAML's own loader is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from constitution import composing
from constitution.composing import MAX_DEPTH, MAX_VALUES, ComposingError, compose
from constitution.documents import MAX_NUMBER_CHARS, Document, read_document

PIECES = st.sampled_from(
    [
        *(
            "name: x\n",
            "principles:\n",
            "  - id: a\n",
            "    principle: >-\n",
            "      folded\n      text\n\n",
            "    a: |\n",
            "      lit\n",
        ),
        *(
            "  ",
            "- ",
            "b: 'q\n  w'\n",
            'c: "d\\n"\n',
            "# cm\n",
            "&a ",
            "*a",
            "[1, 2]",
            "{a: b}",
            "no",
            "~",
            "\n",
            "0x1f",
            "1e3",
            ".nan",
        ),
        *(
            "!!str 3",
            "2024-01-01",
            " ",
            "plain\n  more\n",
            "? ",
            "x: y\n",
            "...\n",
            "'it''s'",
            '"\\u00e9"',
            "0o7",
            "1_000",
            "1:30",
            "+.5",
        ),
    ]
)


def _keys_as_texts(value: Any) -> Any:
    """Our keys are the words as they are written; PyYAML resolves them like values."""
    if isinstance(value, dict):
        return {str(key): _keys_as_texts(below) for key, below in value.items()}
    return [_keys_as_texts(below) for below in value] if isinstance(value, list) else value


@given(st.lists(PIECES, max_size=14).map("".join))
def test_what_both_read_is_read_the_same(text: str) -> None:
    document = read_document(text)
    if document.problems or "<<" in text:
        return
    try:
        expected = yaml.safe_load(text)
    except yaml.YAMLError:
        return
    if all(isinstance(key, str) for key in _keys(expected)):
        assert repr(document.value) == repr(_keys_as_texts(expected))


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *(key for below in value.values() for key in _keys(below))]
    return [key for below in value for key in _keys(below)] if isinstance(value, list) else []


@given(st.lists(PIECES, max_size=14).map("".join))
def test_what_pyyaml_refuses_is_refused(text: str) -> None:
    """But for tabs and spaces, in which libyaml follows the younger standard: none of the pieces has a tab."""
    try:
        yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        assert read_document(text).problems


def _spans(document: Document) -> set[tuple[int, int, int, int]]:
    return {place.span for path, place in document.places.items() if path and place.style == ""}


def test_values_know_where_they_begin_and_end() -> None:
    text = "name: plain one\nlist:\n  - 'quoted'\n  - {a: b}\n"
    document = read_document(text)
    lines = text.splitlines()
    written = {lines[line][column:end] for line, column, end_line, end in _spans(document) if line == end_line}
    assert written == {"plain one", "b"}
    place = document.place(("list", 0))
    assert lines[place.span.line][place.span.column : place.span.end_column] == "'quoted'"
    assert (place.line, place.column) == (3, 5)
    assert document.place(("list", 1, "a"))[:2] == (4, 6)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: *x\n", (1, 4), "nothing is called `&x`"),
        ("a: &x 1\nb: &x 2\n", (2, 4), "given twice (first on line 1)"),
        ("a: 1\nb\nc: 2\n", (2, 1), "expected ':'"),
        ("a: [", (1, 5), "expected"),
        ("a: 'x", (1, 6), "end of stream"),
        ("a: b: c\n", (1, 5), "not allowed"),
    ],
)
def test_what_is_no_yaml_is_told_where_it_went_wrong(text: str, place: tuple[int, int], words: str) -> None:
    with pytest.raises(ComposingError) as caught:
        compose(text)
    assert ((caught.value.line, caught.value.column), words in caught.value.problem) == (place, True), caught.value.problem


@pytest.mark.parametrize(("units", "fits"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_depth_is_bounded_exactly(units: int, *, fits: bool) -> None:
    text = "[" * units + "]" * units
    assert bool(read_document(text).problems) != fits


@pytest.mark.parametrize(("units", "fits"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
@pytest.mark.parametrize("inner", ["[]", "1"])
def test_depth_is_bounded_the_same_when_aliases_make_it(units: int, inner: str, *, fits: bool) -> None:
    """A chain of aliases is as deep as what it stands for. The file's own section is one of the units."""
    below = (units - 1 - (inner == "[]")) // 2
    above = units - 1 - (inner == "[]") - below
    text = f"a: &a {'[' * below}{inner}{']' * below}\nb: {'[' * above}*a{']' * above}\n"
    problems = read_document(text).problems
    assert [each.rule for each in problems] == ([] if fits else ["C106"])


@pytest.mark.parametrize(("count", "fits"), [(MAX_VALUES - 1, True), (MAX_VALUES, False)])
def test_the_number_of_values_is_bounded_exactly(count: int, *, fits: bool) -> None:
    """The list itself is a value."""
    assert bool(read_document("[" + "1," * count + "]").problems) != fits


def test_a_long_run_of_digits_is_a_text_and_a_tagged_one_is_refused() -> None:
    digits = "1" * (MAX_NUMBER_CHARS + 1)
    assert read_document(f"a: {digits}\nb: {digits[1:]}\n").value == {"a": digits, "b": int(digits[1:])}
    assert "a number of 41 characters" in read_document(f"a: !!int {digits}\n").problems[0].problem


def test_files_are_read_without_libyaml_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "principles:\n  - id: a\n    principle: >-\n      one\n      {{ two\n"
    fast = read_document(text)
    monkeypatch.setattr(composing, "_LOADER", yaml.SafeLoader)
    slow = read_document(text)
    assert (slow.value, slow.places[("principles", 0, "principle")][:2]) == (
        fast.value,
        fast.places[("principles", 0, "principle")][:2],
    )
