"""`# cai: allow C206`: where it stands decides what it covers, and nothing hides behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitution.linting import lint
from constitution.loading import load_constitution
from constitution.reading import MAX_PROBLEMS

FILE = """\
{top}name: mine
principles:
  - id: one{first}
{above}    principle: Always be kind.{principle}
    critique_request: >-{block}
      Does the reply never shout
      and always smile?
    tests:
      - {{prompt: Hi, better: Hello., worse: Go.}}{tests}
  - id: two
    principle: Never shout, ever.
    tests:
      - {{prompt: Hi, better: Hello., worse: Go.}}
"""
PLACES = ("top", "first", "above", "principle", "block", "tests")
ALL = [("C206", 4), ("C205", 5), ("C206", 6), ("C206", 7), ("C206", 11)]


def _findings(folder: Path, **comments: str) -> list[tuple[str, int]]:
    path = folder / "one.yaml"
    path.write_text(FILE.format(**{place: comments.get(place, "") for place in PLACES}))
    return [(finding.rule, finding.line) for finding in lint([path]).findings]


def test_without_one_everything_is_told(tmp_path: Path) -> None:
    assert _findings(tmp_path) == ALL


@pytest.mark.parametrize(
    ("place", "comment", "left"),
    [
        ("first", "  # cai: allow C206", [("C205", 5), ("C206", 11)]),
        ("first", "  # cai: allow C206, C205 we mean it", [("C206", 11)]),
        ("first", "  # CAI: Allow c206 c205", [("C206", 11)]),
        ("principle", "  # cai: allow C206", [("C205", 5), ("C206", 6), ("C206", 7), ("C206", 11)]),
        ("block", "  # cai: allow C206 a song", [("C206", 4), ("C205", 5), ("C206", 11)]),
        ("top", "# cai: allow C206\n", [("C205", 6)]),
        ("top", "# A heading\n# cai: allow C206 C205: no time\n\n", []),
        ("above", "    # cai: allow C206\n", [("C205", 6), ("C206", 7), ("C206", 8), ("C206", 12)]),
    ],
)
def test_an_allowance_covers_what_begins_on_its_line(
    tmp_path: Path, place: str, comment: str, left: list[tuple[str, int]]
) -> None:
    assert _findings(tmp_path, **{place: comment}) == left


def test_one_that_covers_nothing_is_a_finding_itself(tmp_path: Path) -> None:
    assert _findings(tmp_path, tests="  # cai: allow C206") == sorted([*ALL, ("C232", 9)], key=lambda each: each[1])
    assert ("C232", 3) in _findings(tmp_path, first="  # cai: allow C208")


def test_the_inner_of_two_counts(tmp_path: Path) -> None:
    found = _findings(tmp_path, first="  # cai: allow C206", principle="  # cai: allow C206")
    assert found == [("C205", 5), ("C206", 11)]
    assert ("C232", 1) in _findings(tmp_path, top="# cai: allow C201\n", first="  # cai: allow C206 C205")


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("# cai: allow C105", "is an error"),
        ("# cai: allow C299", "no warning C299"),
        ("# cai: allow C232", "no warning C232"),
        ("# cai: allow", "not said what"),
        ("# cai: allow everything", "not said what"),
    ],
)
def test_what_cannot_be_allowed_is_told(tmp_path: Path, comment: str, words: str) -> None:
    path = tmp_path / "one.md"
    path.write_text(f"- Be kind. <!-- {comment.strip('# ')} -->\n")
    (finding,) = lint([path]).findings
    assert finding.rule == "C231"
    assert words in finding.problem


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("C217", "Be\u200b kind."),
        ("C221", "Be kind.  "),
        ("C224", "Be\n      \tkind."),
    ],
)
def test_an_allowance_of_layout_covers_its_own_line_and_hides_no_other(tmp_path: Path, rule: str, text: str) -> None:
    entry = "  - id: {}\n    principle: {}\n    tests: [{{prompt: Hi, better: Hello., worse: Go.}}]\n"
    first, second = entry.format("one", text), entry.format("two", text.replace("kind", "calm"))
    at = next(n for n, line in enumerate(first.split("\n")) if line.endswith("  ") or "\t" in line or "\u200b" in line)
    lines = first.split("\n")
    lines[at] = lines[at].rstrip() + f"  # cai: allow {rule}" + "  " * (rule == "C221")
    path = tmp_path / "one.yaml"
    path.write_text("principles:\n" + first + second)
    assert [finding.line for finding in lint([path]).findings] == [at + 2, at + 2 + first.count("\n")]
    path.write_text("principles:\n" + "\n".join(lines) + second)
    (finding,) = lint([path]).findings
    assert (finding.rule, finding.line) == (rule, at + 2 + first.count("\n"))


def test_a_finding_about_several_lines_needs_an_allowance_of_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "one.md"
    for allowed, left in (("- Be kind. <!-- cai: allow C223 -->\r\n", ["C223", "C232"]), ("<!-- cai: allow C223 -->\n", [])):
        path.write_bytes(f"{allowed}- Be brief.\n- Be calm.\r\n- Be here.\n- Be it.\n".encode())
        assert sorted(finding.rule for finding in lint([path]).findings) == left


def test_the_rest_of_many_lines_is_not_hidden_by_an_allowance_of_one(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    entry = "  - id: a\n    principle: b # cai: allow C221  \n    tests: [{prompt: Hi, better: Hello., worse: Go.}]\n"
    path.write_text("principles:\n" + "#  \n" * MAX_PROBLEMS + entry + "#  \n" * 5)
    findings = [finding for finding in lint([path]).findings if finding.rule == "C221"]
    assert len(findings) == MAX_PROBLEMS + 1


def test_an_error_stays_whatever_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("# cai: allow C109 C206\nprinciples:\n  - id: a\n    principle: Always smile.\n    weigth: 1\n")
    assert [finding.rule for finding in lint([path]).findings] == ["C231", "C208", "C109"]


@pytest.mark.parametrize(
    "text",
    [
        'principle: "Always # cai: allow C206"',
        "principle: |\n      Always\n      # cai: allow C206",
        "principle: Always#cai:allow C206",
    ],
)
def test_a_text_is_no_comment(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"principles:\n  - id: a\n    {text}\n    tests: [{{prompt: a, better: b, worse: c}}]\n")
    assert [finding.rule for finding in lint([path]).findings] == ["C206"]


class TestMarkdown:
    def _rules(self, folder: Path, text: str) -> list[tuple[str, int]]:
        (folder / "one.md").write_text(text)
        return [(finding.rule, finding.line) for finding in lint([folder]).findings]

    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("# Mine\n\n- Always smile. <!-- cai: allow C206 -->\n- Never shout.\n", [("C206", 4)]),
            ("# Mine\n\n<!-- cai: allow C206 -->\n- Always smile,\n  always.\n- Never shout.\n", [("C206", 6)]),
            ("# Mine\n\n- Smile,\n  always. <!-- cai: allow C206 (a song) -->\n", []),
            ("<!-- cai: allow C206 -->\n# Mine\n\n- Always smile.\n- Never shout.\n", []),
            ("- Always smile. <!-- cai: allow C206 -->\n- Never shout.\n", [("C206", 2)]),
            ("# Mine\n\n- Always `<!-- cai: allow C206 -->` smile.\n", [("C206", 3)]),
            ("# Mine\n\n- Always smile. <!-- cai: allow C206\n", [("C206", 3)]),
        ],
    )
    def test_comments_of_markdown_allow_as_those_of_yaml_do(
        self, tmp_path: Path, text: str, left: list[tuple[str, int]]
    ) -> None:
        assert self._rules(tmp_path, text) == left

    def test_no_model_reads_a_comment(self, tmp_path: Path) -> None:
        (tmp_path / "one.md").write_text("# A <!-- b -->\n\n<!--\n- Be cruel.\n-->\n- Be <!-- very --> kind.\n")
        read = load_constitution([tmp_path])
        assert [principle.principle for principle in read.principles] == ["Be kind."]
        assert read.name == "A"
