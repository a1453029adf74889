"""A principle with an error still gets the warnings about its other parts, and none about what could not be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitution.linting import lint

HEAD = "principles:\n  - id: example\n"
TESTS = "    tests:\n      - {prompt: Hi, better: Hello., worse: Go.}\n"


def _found(folder: Path, text: str) -> list[tuple[str, int]]:
    path = folder / "one.yaml"
    path.write_text(text)
    return [(finding.rule, finding.line) for finding in lint([path]).findings]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("weight: 0", ("C116", 5)),
        ("weigth: 1", ("C109", 5)),
        ("revision_request: Make it {{ kind }}.", ("C122", 5)),
        ("critique_request: ''", ("C111", 5)),
        ("applies_to: [Hard Questions]", ("C115", 5)),
        ("demonstrations: none", ("C113", 5)),
        ("parameters: {Words: 2}", ("C114", 5)),
        ("rationale: 12", ("C117", 5)),
    ],
)
def test_one_error_hides_no_warning_about_the_other_parts(tmp_path: Path, lines: str, error: tuple[str, int]) -> None:
    """Once a principle with any error had none but errors."""
    text = f"{HEAD}    principle: Always be kind.\n    preference_question: Isn't A kinder?\n    {lines}\n"
    assert _found(tmp_path, text) == [("C208", 2), ("C206", 3), ("C204", 4), error]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("principles:\n  - id: Not A Slug\n", ("C114", 2)),
        ("principles:\n  - rationale: None.\n", ("C110", 2)),
        ("principles:\n  - id: 12\n", ("C117", 2)),
    ],
)
def test_a_principle_without_a_proper_id_is_read_all_the_same(tmp_path: Path, head: str, error: tuple[str, int]) -> None:
    assert _found(tmp_path, f"{head}    principle: Always be kind.\n{TESTS}") == [error, ("C206", 3)]


@pytest.mark.parametrize(
    ("rule", "errors"),
    [
        ("    principle: ''\n", [("C111", 3)]),
        ("    principle: Always {{ say }} it.\n", [("C122", 3)]),
        ("    principle: " + "Always." * 600 + "\n", [("C112", 3)]),
        ("    principle: [Always.]\n", [("C113", 3)]),
        ("    text: Always be kind.\n", [("C110", 2), ("C109", 3)]),
    ],
)
def test_a_rule_that_cannot_be_read_is_not_judged_and_its_questions_are(
    tmp_path: Path, rule: str, errors: list[tuple[str, int]]
) -> None:
    text = HEAD + rule + "    critique_request: Isn't it rude?\n    preference_question: Which reply is never rude?\n" + TESTS
    assert _found(tmp_path, text) == [*errors, ("C204", 4), ("C206", 5)]


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("    tests: none\n", [("C113", 4)]),
        ("    test:\n      - {prompt: Hi, better: Hello., worse: Go.}\n", [("C109", 4)]),
        ("    tests:\n      - {prompt: Hi, better: Hello.}\n", [("C110", 5)]),
    ],
)
def test_tests_that_cannot_be_read_are_not_called_missing(tmp_path: Path, tests: str, expected: list[tuple[str, int]]) -> None:
    assert _found(tmp_path, f"{HEAD}    principle: Be kind.\n{tests}") == expected


def test_entries_beside_a_broken_one_are_looked_at_and_found_at_their_own_places(tmp_path: Path) -> None:
    text = f"""{HEAD}    principle: Do not shout.
    applies_to: [one, Hard One, one]
    parameters: {{words: 1, Words: 2}}
    tests:
      - {{prompt: Hi, better: Hello., worse: 3}}
      - {{prompt: Hi, better: Hello., worse: Hello.}}
    demonstrations:
      - {{prompt: Hm?, draft: Hm., critique: Nothing to change., revison: Hm.}}
      - {{prompt: Hm?, draft: Hm., critique: It shouts., revision: So.}}
"""
    assert _found(tmp_path, text) == [
        ("C115", 4),
        ("C216", 4),
        ("C214", 5),
        ("C114", 5),
        ("C117", 7),
        ("C132", 8),
        ("C109", 10),
        ("C211", 11),
    ]


def test_what_only_the_whole_list_can_say_is_not_said_of_its_half(tmp_path: Path) -> None:
    """That all tests lean to one length, or all demonstrations to one topic, a broken entry may disprove."""
    long = "it hangs on the hook beside the door as it ever did"
    tests = f"      - {{prompt: A?, better: {long}, worse: Go.}}\n      - {{prompt: B?, better: {long}, worse: No way.}}\n"
    whole = f"{HEAD}    principle: Be kind.\n    tests:\n{tests}"
    assert _found(tmp_path, whole) == [("C210", 4)]
    assert _found(tmp_path, whole + "      - {prompt: C?, better: 12, worse: Go.}\n") == [("C117", 7)]


def test_a_parameter_may_be_used_in_a_text_that_cannot_be_read(tmp_path: Path) -> None:
    text = f"{HEAD}    principle: Use {{{{ words words.\n    parameters: {{words: 3}}\n{TESTS}"
    assert _found(tmp_path, text) == [("C121", 3)]


def test_a_broken_principle_still_shows_to_be_the_same_as_another(tmp_path: Path) -> None:
    entry = "  - id: {}\n    principle: Be kind and polite to the user.\n{}"
    text = "principles:\n" + entry.format("one", "    weight: 0\n" + TESTS) + entry.format("two", TESTS)
    assert _found(tmp_path, text) == [("C116", 4), ("C201", 8)]


def test_an_allowance_of_a_warning_counts_beside_an_error(tmp_path: Path) -> None:
    text = f"{HEAD}    principle: Always be kind.  # cai: allow C206 a song\n    weight: 0\n{TESTS}"
    assert _found(tmp_path, text) == [("C116", 4)]
