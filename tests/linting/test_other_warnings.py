"""Tests, demonstrations, overlap, tags and layout: what is warned of, and what is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.linting import Finding, fix, lint
from constitution.reading import MAX_PROBLEMS
from constitution.rendering import FAULT, NOTHING_TO_CHANGE

HELLO = {"prompt": "Hi", "better": "Hello.", "worse": "Go."}


def _principle(text: str, identity: str = "example", **keys: object) -> dict[str, object]:
    return {"id": identity, "principle": text, "tests": [HELLO], **keys}


def _lint(folder: Path, *principles: dict[str, Any]) -> list[Finding]:
    path = folder / "one.yaml"
    path.write_text(json.dumps({"principles": principles}, ensure_ascii=False, indent=1) + "\n")
    return list(lint([path]).findings)


def _rules(folder: Path, *principles: dict[str, Any]) -> list[str]:
    return [finding.rule for finding in _lint(folder, *principles)]


def _test(better: str, worse: str, prompt: str = "Where is the key?") -> dict[str, str]:
    return {"prompt": prompt, "better": better, "worse": worse}


class TestTests:
    def test_a_bullet_cannot_have_tests_and_is_not_asked_for_them(self, tmp_path: Path) -> None:
        (tmp_path / "rules.md").write_text("- Be kind.\n")
        assert lint([tmp_path]).findings == ()

    def test_padding_is_no_difference_but_another_answer_is(self, tmp_path: Path) -> None:
        said = "It hangs on the hook"
        padded = f"{said} as far as I can tell from here and now"
        assert _rules(tmp_path, _principle("Be kind.", tests=[_test(said, padded)])) == ["C209"]
        assert _rules(tmp_path, _principle("Be kind.", tests=[_test(padded, said)])) == ["C209"]
        assert _rules(tmp_path, _principle("Be kind.", tests=[_test(said, padded.replace("hook", "nail") + " x" * 9)])) == [
            "C209"
        ]
        other = "Look for it yourself since I am tired of such questions"
        assert _rules(tmp_path, _principle("Be kind.", tests=[_test(said, other)])) == []

    def test_a_principle_about_length_may_be_tested_by_length(self, tmp_path: Path) -> None:
        tests = [_test("On the hook.", "On the hook, " + "as I said, " * 9, f"Question {n}?") for n in range(2)]
        assert _rules(tmp_path, _principle("Be brief.", tests=tests)) == []
        assert _rules(tmp_path, _principle("Answer in {{ n }} words.", parameters={"n": 9}, tests=tests)) == []
        assert _rules(tmp_path, _principle("Be kind.", tests=tests)) == ["C210", "C209", "C209"]

    @pytest.mark.parametrize("longer", ["better", "worse"])
    def test_tests_that_all_lean_to_one_length_are_told_and_a_single_one_is_not(self, tmp_path: Path, longer: str) -> None:
        short, long = "Gladly.", "Nobody has told me where anything hangs in this house."
        pair = {"better": long, "worse": short} if longer == "better" else {"better": short, "worse": long}
        tests = [{"prompt": "Where?", **pair}, {"prompt": "When?", **pair}]
        (finding,) = _lint(tmp_path, _principle("Be kind.", tests=tests))
        assert finding.rule == "C210"
        assert ("longer" if longer == "better" else "shorter") in finding.problem
        assert _rules(tmp_path, _principle("Be kind.", tests=tests[:1])) == []
        turned = {"prompt": "Why?", "better": pair["worse"], "worse": pair["better"]}
        assert _rules(tmp_path, _principle("Be kind.", tests=[*tests, turned])) == []


def _shown(prompt: str, draft: str, critique: str, revision: str | None = None) -> dict[str, str]:
    return {"prompt": prompt, "draft": draft, "critique": critique} | ({} if revision is None else {"revision": revision})


class TestDemonstrations:
    @pytest.mark.parametrize(
        ("shown", "rules"),
        [
            (_shown("Hm?", "Go.", f"Rude. {FAULT} it sends the user away.", "Come in."), []),
            (_shown("Hm?", "Come in.", f"Kind. {NOTHING_TO_CHANGE}"), []),
            (_shown("Hm?", "Come in.", NOTHING_TO_CHANGE, "Come in, please."), ["C131"]),
            (_shown("Hm?", "Go.", f"{FAULT} it sends the user away."), ["C131"]),
            (_shown("Hm?", "Go.", f"{FAULT} it sends the user away.", "Go."), ["C131"]),
            (_shown("Hm?", "Go.", "It sends the user away.", "Come in."), ["C211"]),
            (_shown("Hm?", "Go.", "It sends the user away."), ["C211"]),
        ],
    )
    def test_critique_and_revision_have_to_fit(self, tmp_path: Path, shown: dict[str, str], rules: list[str]) -> None:
        assert _rules(tmp_path, _principle("Be kind.", demonstrations=[shown])) == rules

    @given(verdict=st.sampled_from([NOTHING_TO_CHANGE, f"{FAULT} it is rude."]), revised=st.booleans())
    def test_an_error_is_exactly_where_the_verdict_and_the_revision_disagree(
        self, tmp_path_factory: pytest.TempPathFactory, verdict: str, *, revised: bool
    ) -> None:
        shown = _shown("Hm?", "Go.", verdict, "Come in." if revised else None)
        rules = _rules(tmp_path_factory.mktemp("shown"), _principle("Be kind.", demonstrations=[shown]))
        assert rules == ([] if revised == verdict.startswith(FAULT) else ["C131"])

    def test_a_test_about_what_a_demonstration_shows_leaks_unless_the_principle_is_about_it(self, tmp_path: Path) -> None:
        shown = [
            _shown("How do I bake bread?", "Mix it.", NOTHING_TO_CHANGE),
            _shown("Is Rome old?", "Yes.", NOTHING_TO_CHANGE),
        ]
        tests = [
            HELLO,
            _test("Warm.", "Go away.", "Why does my bread not rise?"),
            _test("Far.", "Go.", "How far is it to Oslo?"),
        ]
        found = _lint(tmp_path, _principle("Be kind.", demonstrations=shown, tests=tests))
        assert [(finding.rule, "`bread`" in finding.problem) for finding in found] == [("C212", True)]
        assert _rules(tmp_path, _principle("Speak of bread with care.", demonstrations=shown, tests=tests)) == []

    def test_demonstrations_share_a_topic_only_if_all_do(self, tmp_path: Path) -> None:
        prompts = ["How do I bake bread?", "Is bread cheap?", "Where is Oslo?"]
        shown = [_shown(prompt, "Hm.", NOTHING_TO_CHANGE) for prompt in prompts]
        assert _rules(tmp_path, _principle("Be kind.", demonstrations=shown[:2])) == ["C213"]
        assert _rules(tmp_path, _principle("Be kind.", demonstrations=shown)) == []
        assert _rules(tmp_path, _principle("Be kind.", demonstrations=shown[:1])) == []


class TestOverlap:
    @pytest.mark.parametrize(
        ("one", "two", "rule"),
        [
            ("Correct a false claim kindly.", "Kindly correct a false claim.", "C201"),
            ("Correct a false claim kindly.", "Correct false claims kindly.", "C201"),
            ("Mention the price of what is sold.", "Do not mention the price of what is sold.", "C202"),
            ("Do not mention the price.", "Do not mention the prices.", "C201"),
            ("Correct a false claim kindly.", "Answer in the language of the question.", None),
            ("善良に答えてください", "善良に答えてください。", "C201"),
            ("!!!", "???", None),
        ],
    )
    def test_near_duplicates_and_contradictions(self, tmp_path: Path, one: str, two: str, rule: str | None) -> None:
        found = _lint(tmp_path, _principle(one, "one"), _principle(two, "two"))
        assert [finding.rule for finding in found] == ([rule] if rule else [])
        assert all("`one`" in finding.problem for finding in found)

    def test_they_are_found_across_files_and_told_at_the_later_one(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("- Correct a false claim kindly.\n")
        (tmp_path / "b.md").write_text("# B\n\n- Be brief.\n- Correct false claims kindly.\n")
        (finding,) = lint([tmp_path]).findings
        assert (Path(finding.path).name, finding.line, finding.rule) == ("b.md", 4, "C201")
        assert f"{tmp_path / 'a.md'}:1" in finding.problem

    def test_beyond_some_thousand_principles_neighbours_are_still_found(self, tmp_path: Path) -> None:
        """All pairs would be too many; near-duplicates are next to each other once sorted."""
        import random
        import string

        draw = random.Random(1)

        def word() -> str:
            return "".join(draw.choices(string.ascii_lowercase, k=8))

        lines = [" ".join(word() for _ in range(6)) for _ in range(3500)]
        lines[3000] = lines[10][:-2] + "xy"
        lines[3300] = lines[20]
        (tmp_path / "many.md").write_text("".join(f"- {line}.\n" for line in lines))
        found = lint([tmp_path]).findings
        assert [(finding.rule, finding.line) for finding in found] == [("C201", 3001), ("C201", 3301)]
        assert [finding.problem.rpartition(", ")[0].rpartition(":")[2] for finding in found] == ["11", "21"]


class TestDeclarations:
    def test_parameters_are_used_in_any_text_and_in_conditions_too(self, tmp_path: Path) -> None:
        used = {"principle": "Be {{ how }}{% if n > 2 %} often{% endif %}.", "critique_request": "Is it {{ so | upper }}?"}
        found = _lint(tmp_path, {**_principle("x"), **used, "parameters": {"how": "kind", "n": 3, "so": "a", "left": "b"}})
        assert [(finding.rule, "`left`" in finding.problem) for finding in found] == [("C214", True)]

    def test_single_braces_are_told_only_for_names_of_parameters(self, tmp_path: Path) -> None:
        text = "Write {how} and {other} in {{ how }} braces."
        found = _lint(tmp_path, _principle(text, parameters={"how": "single"}))
        assert [finding.rule for finding in found] == ["C215"]
        assert "`{how}`" in found[0].problem

    def test_a_tag_is_odd_if_it_stands_alone_and_is_nearly_a_common_one(self, tmp_path: Path) -> None:
        tags: Sequence[list[str]] = [["questions"], ["questions", "rare-one"], ["question"], ["questions", "questions"]]
        texts = ["Be kind.", "Do not shout.", "Use everyday words.", "Name sources."]
        entries = [_principle(text, f"p{n}", applies_to=each) for n, (text, each) in enumerate(zip(texts, tags, strict=True))]
        found = _lint(tmp_path, *entries)
        assert [(finding.rule, finding.hint) for finding in found] == [
            ("C216", "did you mean `questions`?"),
            ("C216", "delete one of them"),
        ]


class TestLayout:
    def _of(self, folder: Path, raw: bytes, name: str = "one.md") -> list[tuple[str, int, int]]:
        (folder / name).write_bytes(raw)
        return [(finding.rule, finding.line, finding.column) for finding in lint([folder / name]).findings]

    def test_spaces_at_ends_of_lines_are_told_line_by_line(self, tmp_path: Path) -> None:
        assert self._of(tmp_path, b"- Be kind. \n- Be brief.\t\n") == [("C221", 1, 11), ("C221", 2, 12)]

    def test_beyond_the_bound_the_rest_of_the_lines_share_one_finding_and_all_are_mended(self, tmp_path: Path) -> None:
        lines = MAX_PROBLEMS + 7
        path = tmp_path / "one.yaml"
        path.write_text("#  \n" * lines + "principles:\n  - id: a\n    principle: b\n")
        findings = [finding for finding in lint([path]).findings if finding.rule == "C221"]
        assert [finding.line for finding in findings] == list(range(1, MAX_PROBLEMS + 2))
        assert "7 more lines" in findings[-1].problem
        fix([path])
        assert path.read_text().count("#\n") == lines

    def test_two_spaces_break_a_line_in_markdown(self, tmp_path: Path) -> None:
        assert self._of(tmp_path, b"- Be kind.  \n") == []

    def test_spaces_inside_a_text_of_several_lines_belong_to_it(self, tmp_path: Path) -> None:
        raw = b"principles:\n  - id: a\n    principle: |\n      1 \n      2 \n    tests: [{prompt: a, better: b, worse: c}] \n"
        assert self._of(tmp_path, raw, "one.yaml") == [("C221", 6, 46)]

    def test_windows_line_ends_are_fine_as_long_as_all_are(self, tmp_path: Path) -> None:
        assert self._of(tmp_path, b"- Be kind.\r\n- Be brief.\r\n") == []
        assert self._of(tmp_path, b"- Be kind.\r\n- Be brief.\n- Be calm.\r\n") == [("C223", 2, 12)]

    def test_a_missing_last_newline(self, tmp_path: Path) -> None:
        assert self._of(tmp_path, b"- Be kind.") == [("C222", 1, 11)]

    @pytest.mark.parametrize("character", ["\u200b", "\u202e", "\u2066", "\ufeff", "\u00ad"])
    def test_invisible_characters_are_named(self, tmp_path: Path, character: str) -> None:
        (tmp_path / "one.md").write_text(f"- Be{character} kind{character}.\n")
        (finding,) = lint([tmp_path]).findings
        assert (finding.rule, finding.line, finding.column) == ("C217", 1, 5)
        assert f"U+{ord(character):04X}" in finding.problem

    @pytest.mark.parametrize("text", ["نمی‌خواهم", "👩‍👩‍👧", "naïve café", "Ünlü\u00a0x"])
    def test_joiners_that_scripts_and_emoji_need_are_no_finding(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "one.md").write_text(f"- Say {text}.\n")
        assert lint([tmp_path]).findings == ()
