"""Characters of a text are found where they stand in the file, however it is written there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from constitution.alignment import align_bullet, align_text
from constitution.documents import Document, read_document
from constitution.markdown import read_markdown

TEXT = 'It\'s "one" with @ in it'


@pytest.mark.parametrize(
    "written",
    [
        'It\'s "one" with @ in it',
        'It\'s "one"\n  with\n\n  @ in it',
        "'It''s \"one\" with @ in it'",
        "'It''s\n  \"one\" with @ in it'",
        '"It\'s \\"one\\" with @ in it"',
        '"It\\x27s\\x20\\"o\\u006ee\\"\\\n   \\ with\\t@ in it"',
        '&a It\'s "one" with @ in it',
        "!!str 'It''s \"one\" with @ in it'",
        '&a\n  It\'s "one" with @ in it',
        '>\n  It\'s "one"\n  with @ in it\n# a @ comment\n',
        '&a |-  # a @ comment\n  It\'s "one" with\n\n    @ in it\n',
    ],
)
@pytest.mark.parametrize("before", ["a: ", "'a @':   "])
def test_a_character_is_found_in_every_style(written: str, before: str) -> None:
    source = f"# @\n{before}{written}\nb: c\n"
    document = read_document(source)
    key = next(iter(document.value))
    text = document.value[key]
    assert text.split() == TEXT.split()
    place = document.place((key,))
    found = align_text(document, place, text).at(text.index("@"))
    at = source.index("@ in it")
    assert found == (source.count("\n", 0, at) + 1, at - source.rfind("\n", 0, at))


@given(
    st.text(st.sampled_from("ab {}%\"'\\#:-é🙂\n\t"), min_size=1, max_size=60).filter(lambda text: bool(text.strip())),
    st.sampled_from([None, "'", '"', "|", ">"]),
    st.sampled_from([20, 1000]),
    st.booleans(),
)
def test_what_pyyaml_writes_is_found_again(text: str, style: str | None, width: int, unicode: bool) -> None:
    source = yaml.safe_dump({"a": text}, default_style=style, width=width, allow_unicode=unicode)
    document = read_document(source)
    assert not document.problems
    (key,) = document.value
    alignment = align_text(document, document.places[(key,)], text)
    for offset, character in enumerate(text):
        place = alignment.at(offset)
        if character.isspace():
            continue
        assert place is not None
        line, column = place
        written = source.splitlines()[line - 1][column - 1 :]
        assert written.startswith((character, "\\"))


def test_an_alias_is_found_where_it_is_written_out() -> None:
    source = "a: &x\n  one @\nb: *x\n"
    document = read_document(source)
    assert align_text(document, document.places[("b",)], "one @").at(4) == (2, 7)


def test_what_is_not_the_source_of_the_text_gives_no_place() -> None:
    document = read_document("a: one @\n")
    assert align_text(document, document.places[("a",)], "one two @").at(8) is None


@pytest.mark.parametrize(
    "source",
    [
        "# @\n\n- a <!-- @ --> b\n  c @ d\n- @\n",
        "1. a @ b\n",
        "  * a\n    <!-- x -->\n    @\n",
        "-\ta @\n",
    ],
)
def test_a_bullet_s_characters_are_found_past_its_marker_and_comments(source: str) -> None:
    bullet = read_markdown(source).bullets[0]
    found = align_bullet(Document(source), bullet).at(bullet.text.index("@"))
    without = source.replace("<!-- @ -->", "<!-- x -->").replace("# @", "# x")
    at = without.index("@")
    assert found == (source.count("\n", 0, at) + 1, at - source.rfind("\n", 0, at))


def test_a_comment_that_goes_on_below_a_bullet_costs_no_more_than_the_column(tmp_path: Path) -> None:
    source = "- {{ a }} <!-- b\n\nc -->\n"
    bullet = read_markdown(source).bullets[0]
    assert align_bullet(Document(source), bullet).at(3) in {(1, 6), None}
