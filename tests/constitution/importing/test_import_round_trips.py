"""Whatever the texts are: written as a principle file, read, and written back, a file of a known format is the same again."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import chat, comparison, few_shot, imported

from constitution.errors import ConstitutionError
from constitution.importing import FORMATS, import_file, principle_file_of
from constitution.importing.markdown_list import is_list
from constitution.importing.outlines import read_outline
from constitution.schema import Constitution, Demonstration, Principle, PrincipleTest
from constitution.writing import principle_file

_ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
_WORDS = st.text(st.sampled_from("ab Zé{}%#'\"\\:-|>\t[]()*_`!?.…🙂0"), min_size=1, max_size=40)
TEXTS = (_ANY | _WORDS).filter(lambda text: bool(text.strip()))
INNER = TEXTS.map(str.strip).filter(bool)
"""Texts whose outer space does not matter: tests and demonstrations do not keep it."""

PLAIN = st.text(st.sampled_from("abc xyz,.{}%é🙂"), min_size=1, max_size=40).map(str.strip).filter(bool)
"""Texts without the markers of transcripts and options."""


def _round_trip(name: str, content: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        *_, back = imported(Path(folder), name, content)
    assert back is not None
    assert back.places == ()
    return back.same


def _outcome(path: Path, name: str | None) -> Constitution | str:
    """What an import gives, or what its error says."""
    try:
        return import_file(path, name)[2].constitution
    except ConstitutionError as error:
        return str(error)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(TEXTS.filter(str.strip), st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_requests_of_the_paper(entries: dict[str, tuple[str, str]]) -> None:
    content = {
        name: {
            "prompt": [f"\n\nCritiqueRequest: {critique}\n\nCritique:"],
            "edit_request": f"\n\nRevisionRequest: {revision}\n\nRevision:",
        }
        for name, (critique, revision) in entries.items()
    }
    assert _round_trip("a.json", content) == "bytes"


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_preference_principles_of_the_paper(texts: list[str]) -> None:
    assert _round_trip("a.json", [f"\n{text} Options:" for text in texts]) == "bytes"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(PLAIN, PLAIN, st.sampled_from("xy"), st.sampled_from("uv"), st.booleans()), min_size=1, max_size=6))
def test_worked_examples_of_the_paper_in_any_order_of_their_requests(shots: list[tuple[str, str, str, str, bool]]) -> None:
    content = [few_shot(p, d, request, revise, "\n\nHuman:" if ends else "") for p, d, request, revise, ends in shots]
    assert _round_trip("a.json", content) == "bytes"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(PLAIN, PLAIN, PLAIN, st.sampled_from("AB"), st.sampled_from("xyz")), min_size=1, max_size=8))
def test_comparisons_of_the_paper_in_any_order_of_their_rules(rows: list[tuple[str, str, str, str, str]]) -> None:
    content = [comparison(p, a, b, letter, rule=f"Rule {rule}.") for p, a, b, letter, rule in rows]
    assert _round_trip("a.jsonl", content) == "bytes"


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("de")), min_size=1, max_size=4, unique=True),
    st.lists(
        st.tuples(st.lists(PLAIN, min_size=1, max_size=3), PLAIN, st.sampled_from("abcx"), PLAIN, st.sampled_from("dey")),
        max_size=5,
    ),
)
def test_constitutions_of_hugging_face(
    entries: list[tuple[str, str]], chats: list[tuple[list[str], str, str, str, str]]
) -> None:
    turns = [
        chat(*(text for each in asked[:-1] for text in (each, "ok")), asked[-1], draft, critic, critique, revise, "done")
        for asked, draft, critic, critique, revise in chats
    ]
    content = {"constitutions": [{"critic": c, "revision": r} for c, r in entries], "system_chat": turns}
    assert _round_trip("a.json", content) == "bytes"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS | st.none(), TEXTS, TEXTS), min_size=1, max_size=4))
def test_principles_of_langchain(entries: list[tuple[str | None, str, str]]) -> None:
    content = [
        {**({} if name is None else {"name": name}), "critique_request": critique, "revision_request": revision}
        for name, critique, revision in entries
    ]
    assert _round_trip("a.json", content) == "bytes"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.integers(1, 1000) | st.floats(0.01, 1000)), min_size=1, max_size=4))
def test_collections_of_salmon(entries: list[tuple[str, str, str, float]]) -> None:
    content = [{"dimension": d, "definition": text, "negative_definition": n, "weight": w} for d, text, n, w in entries]
    assert _round_trip("a.json", content) in {"bytes", "data"}  # 2.0 is written as 2


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXTS.filter(lambda text: "\n\n" not in text and not text.endswith(" Options:")), min_size=1, max_size=5))
def test_lists_of_inverse_cai(texts: list[str]) -> None:
    assert _round_trip("a.json", texts) == "bytes"
    assert _round_trip("a.json", {str(number): text for number, text in enumerate(texts)}) == "bytes"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["- ", "* ", "1. "]), st.text(st.sampled_from("abc {}%*_`"), min_size=1, max_size=20)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["\n", "\n\n"]),
    st.sampled_from(["", "# Title\n\n", "Some prose.\n\n"]),
)
def test_markdown_lists(items: list[tuple[str, str]], between: str, head: str) -> None:
    text = head + between.join(f"{marker}a{rule}" for marker, rule in items) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.md"
        path.write_text(text)
        if not is_list(read_outline(text)):
            assert "no known format" in str(_outcome(path, None)) or head.startswith("#")
            return
    assert _round_trip("a.md", text) == "bytes"


PRINCIPLES = st.builds(
    lambda number, **given: Principle(id=f"p{number}", **{key: value for key, value in given.items() if value is not None}),
    number=st.integers(0, 10**9),
    principle=INNER.filter(lambda text: "{" not in text),
    rationale=st.none() | INNER,
    weight=st.none() | st.floats(0.001, 1000) | st.integers(1, 1000),
    demonstrations=st.none()
    | st.lists(st.builds(Demonstration, prompt=INNER, draft=INNER, critique=INNER), max_size=2).map(tuple),
    tests=st.none() | st.lists(st.builds(PrincipleTest, prompt=INNER, better=INNER, worse=INNER), max_size=2).map(tuple),
    source=st.none() | st.dictionaries(st.sampled_from(["name", "lead", "x_1"]), _ANY, max_size=2),
)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        Constitution,
        name=INNER,
        description=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
        principles=st.lists(PRINCIPLES, min_size=1, max_size=3, unique_by=lambda principle: principle.id).map(tuple),
    )
)
def test_a_principle_file_says_what_the_constitution_said(constitution: Constitution) -> None:
    from constitution.loading import load_constitution

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(principle_file(constitution), encoding="utf-8", newline="")
        assert load_constitution([path]) == constitution


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=200) | st.text(alphabet='[]{},:"\\n#-*1. abA\n\t{%', max_size=120).map(str.encode),
    st.sampled_from([".json", ".jsonl", ".yaml", ".py", ".md", ""]),
    st.sampled_from([None, *(each.name for each in FORMATS)]),
)
def test_any_bytes_give_an_error_with_the_file_or_sound_principles(raw: bytes, suffix: str, name: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(raw)
        told = _outcome(path, name)
        assert isinstance(told, Constitution) or str(path) in told


_ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", " ", "x", "a\n\nHuman: b"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "prompt",
                    "edit_request",
                    "corrects",
                    "incorrects",
                    "constitutions",
                    "system_chat",
                    "critic",
                    "revision",
                    "name",
                    "critique_request",
                    "revision_request",
                    "dimension",
                    "definition",
                    "weight",
                    "annotators",
                    "comparisons",
                    "type",
                    "description",
                    "annotations",
                    "role",
                    "content",
                    "0",
                ]
            ),
            below,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_ODD, st.sampled_from([None, *(each.name for each in FORMATS)]))
def test_data_of_any_shape_gives_errors_or_sound_principles(data: object, name: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(data))
        told = _outcome(path, name)
        assert isinstance(told, Constitution) or str(path) in told


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 50_000 + "1", "x = [" * 3000, "def f(:\n", "\0", "class A:\n" * 200])
def test_python_that_cannot_be_parsed_is_an_error_and_no_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(text + "\n# ConstitutionalPrinciple\n")
    with pytest.raises(ConstitutionError, match=r"a\.py"):
        import_file(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "# A\n\n" + "[" * 20_000),
        ("a.md", "# A\n\n" + "*a " * 20_000),
        ("a.md", "# A\n\n" + "x" * 490_000),
        ("a.md", "# A\n\n" + "> " * 100_000 + "x"),
        ("a.md", "# A\n\nThe order of priority:\n\n" + "1. a\n" * 1000),
        ("a.md", "# A\n\nThe order of priority: " + "1. a, 2. b, " * 20_000),
        ("a.md", "# A\n\nThe order of priority: " + "1. 2. " * 40_000),
        ("a.md", "# A\n\nSafety first, then " + "ethics, then " * 30_000),
        ("a.md", "# A\n\nWe prioritise " + "a over " * 50_000),
        ("a.md", "# A\n\n" + "You must stop. " * 30_000),
        ("a.md", "## A\n" * 6000 + "\nYou must stop.\n"),
        ("a.md", "- a\n" * 5100),
        ("a.md", "`" * 200_000 + "\n- a\n"),
        ("a.json", json.dumps(["rule"] * 100_000)),
        ("a.jsonl", (json.dumps(comparison("p" * 900, "a", "b", "A")) + "\n") * 4500),
        ("a.json", json.dumps([few_shot("a\n\nHuman: ", "b") for _ in range(2000)])),
        ("a.py", "ConstitutionalPrinciple(name='a', critique_request='b', revision_request='c')\n" * 5100),
    ],
)
def test_large_and_twisted_files_end_within_seconds(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    started = time.process_time()
    with suppress(ConstitutionError):
        principle_file_of(import_file(tmp_path / name)[2], tmp_path / "a.yaml")
    assert time.process_time() - started < 5
