"""`--fix`: only what is safe, every other byte as it was, and nothing left to do the second time."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.documents import read_document
from constitution.errors import ConstitutionError
from constitution.linting import FixedFile, FixingError, fix, fixed_files, lint
from constitution.linting.fixing import write
from constitution.loading import load_constitution
from constitution.reading import MAX_PROBLEMS

UNTIDY = """\
# My rules   \r
\r
principles:\r
    # Mind the   spaces  inside comments.\t\r
  - principle:   Be kind, and "say so".   # why not?\r
    tests:  [ {prompt: Hi,   better: no, worse: 'Go.  '} ]\r
\r
  - {principle: Do not shout., tests: [{prompt: "Hm?", better: 12, worse: 2024-01-01}]}\r
  - id: Too Many Words!  # an id\r
    principle: |\r
      Lines with   \r
      spaces.  \r
    applies_to: [on, tea]\r
    tests: [{prompt: Hi, better: Hello., worse: Go.}]"""
TIDY = """\
# My rules\r
\r
principles:\r
    # Mind the   spaces  inside comments.\r
  - id: be-kind-and-say-so\r
    principle:   Be kind, and "say so".   # why not?\r
    tests:  [ {prompt: Hi,   better: "no", worse: 'Go.  '} ]\r
\r
  - {id: do-not-shout, principle: Do not shout., tests: [{prompt: "Hm?", better: "12", worse: "2024-01-01"}]}\r
  - id: too-many-words  # an id\r
    principle: |\r
      Lines with   \r
      spaces.  \r
    applies_to: ["on", tea]\r
    tests: [{prompt: Hi, better: Hello., worse: Go.}]\r
"""


def _write(folder: Path, text: str | bytes, name: str = "file.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_what_is_safe_is_mended_and_every_other_byte_stays(tmp_path: Path) -> None:
    path = _write(tmp_path, "\ufeff" + UNTIDY)
    changed, report = fix([path])
    assert path.read_bytes() == ("\ufeff" + TIDY).encode()
    assert [finding.rule for finding in report.findings] == []
    assert sorted({finding.rule for finding in changed[0].mended}) == ["C110", "C114", "C117", "C221", "C222"]
    assert [p.id for p in load_constitution([path]).principles] == ["be-kind-and-say-so", "do-not-shout", "too-many-words"]


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    path = _write(tmp_path, UNTIDY)
    fix([path])
    before = path.stat().st_mtime_ns
    assert fix([path])[0] == ()
    assert path.stat().st_mtime_ns == before


def test_an_id_that_is_made_is_no_other_s_and_reads_as_a_text(tmp_path: Path) -> None:
    one = _write(tmp_path, "principles:\n  - id: be-kind\n    principle: Be kind.\n", "one.yaml")
    two = _write(tmp_path, "principles:\n  - principle: Be kind!\n  - principle: No.\n  - principle: '404'\n", "two.yaml")
    three = _write(tmp_path, "principles:\n  - id: No\n    principle: Calm down.\n  - id: ON\n    principle: x\n", "three.yaml")
    fix([one, two, three])
    assert [p.id for p in load_constitution([two]).principles] == ["be-kind-2", "no", "404"]
    assert [p.id for p in load_constitution([three]).principles] == ["no-2", "on"]


@pytest.mark.parametrize(
    "text",
    [
        "principles:\n  - id: a\n    principle: x\n    weight: yes\n",
        "principles:\n  - id: a\n    principle: x\n    tests: no\n",
        "principles:\n  - id: a\n    principle: !!bool no\n",
        "principles:\n  - id: a\n    principle: &it no\n    rationale: *it\n",
        "principles:\n  - id: a\n    principle:\n",
        "principles:\n  - id: '!!!'\n    principle: x\n",
        "principles:\n  - id: a\n    principle: [no]\n",
        "principles: no\n",
        "principles:\n  - id: a\n    principle: 'x\n",
    ],
)
def test_what_would_be_a_guess_is_left_alone(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, text)
    assert fix([path])[0] == ()
    assert path.read_text() == text
    with pytest.raises(ConstitutionError):
        load_constitution([path])


def test_the_line_that_counts_further_problems_is_not_taken_for_the_problem_before_it(tmp_path: Path) -> None:
    tags = ", ".join(["no"] * (MAX_PROBLEMS + 1))
    path = _write(tmp_path, f"principles:\n  - id: a\n    principle: x\n    applies_to: [{tags}]\n")
    findings = [finding for finding in lint([path]).findings if finding.rule == "C117"]
    assert len(findings) == MAX_PROBLEMS + 1
    (counting,) = (finding for finding in findings if finding.fix is None)
    assert counting.problem == "and at least 1 more problem in this file"


def test_only_the_missing_id_of_several_missing_keys_is_made(tmp_path: Path) -> None:
    path = _write(tmp_path, "principles:\n  - principle: Be kind.\n    tests: [{prompt: x}]\n  - weight: 2\n")
    missing = [finding for finding in lint([path]).findings if finding.rule == "C110"]
    assert len(missing) == 5
    assert [finding.problem for finding in missing if finding.fix] == ["`id` is missing"]


def test_files_without_findings_to_fix_are_not_touched(tmp_path: Path) -> None:
    good = _write(tmp_path, "- Be kind.\n", "good.md")
    bad = _write(tmp_path, "- Be brief. ", "bad.md")
    before = good.stat()
    changed, _ = fix([tmp_path])
    assert [each.path for each in changed] == [bad]
    assert bad.read_text() == "- Be brief.\n"
    assert (good.stat().st_ino, good.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_link_stays_a_link_and_rights_stay_as_they_are(tmp_path: Path) -> None:
    real = _write(tmp_path, "- Be kind. \n", "real.md")
    real.chmod(0o640)
    link = tmp_path / "link.md"
    link.symlink_to(real)
    fix([link])
    assert link.is_symlink()
    assert real.read_text() == "- Be kind.\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.md", "real.md"]


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = _write(tmp_path, "- Be kind. \n", "one.md")
    (change,) = fixed_files(lint([path]))
    path.write_text("- Be brief.\n")
    with pytest.raises(FixingError, match="changed meanwhile"):
        write(change)
    assert path.read_text() == "- Be brief.\n"


def test_a_write_that_fails_leaves_the_old_text_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, "- Be kind. \n", "one.md")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FixingError, match="No space left"):
        fix([path])
    assert path.read_text() == "- Be kind. \n"
    assert os.listdir(tmp_path) == ["one.md"]


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no `patch` here")
def test_the_diff_is_one_that_patch_applies(tmp_path: Path) -> None:
    path = _write(tmp_path, UNTIDY.replace("\r", ""))
    (change,) = fixed_files(lint([path]))
    done = subprocess.run(
        ["patch", "-p0", "--dry-run"], input=change.diff(), text=True, capture_output=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert path.read_text() == UNTIDY.replace("\r", "")


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no `patch` here")
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    "text",
    [
        UNTIDY,
        UNTIDY.replace("\r", ""),
        "name: a\rdescription: hello  \nprinciples:\n  - id: kind\n    principle: Be kind.\n",
        "name: a\r\nprinciples:\r  - id: kind  \r\n    principle: Be kind.\n    rationale: x",
        "name: a\x85description: 'b'  \nprinciples:\n  - {id: kind, principle: Be\u2028kind.} \n",
        "# one\u2028# two  \u2029principles:\u2028  - {principle: Be kind.} \r\r\n",
    ],
)
def test_patch_makes_of_the_old_file_what_fix_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mark: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("file.yaml")
    _write(tmp_path, mark + text)
    (change,) = fixed_files(lint([path]))
    command = ["patch", "-p0", "--binary"]
    done = subprocess.run(command, input=change.diff().encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    patched = path.read_bytes()
    _write(tmp_path, mark + text)
    write(change)
    assert patched == path.read_bytes()
    assert patched != (mark + text).encode()


def test_a_name_cannot_make_lines_of_a_diff() -> None:
    lines = FixedFile(Path("a\n--- b\n"), "- x \n", "- x\n", ()).diff().split("\n")
    assert [line for line in lines if line.startswith("---")] == ["--- a\\x0a--- b\\x0a"]


def test_the_diff_of_nothing_is_empty() -> None:
    assert FixedFile(Path("a"), "same\n", "same\n", ()).diff() == ""


lines = st.sampled_from(
    [
        "principles:",
        "principles:  ",
        "name: no",
        "name: x\t",
        "  - principle: Be kind.",
        "  - id: A b",
        "  - id: no",
        "  - {principle: x y}",
        "    principle: >-  ",
        "      folded  ",
        "      text",
        "    rationale: 'one  ",
        "      two'  ",
        "    tests: [{prompt: no, better: 1, worse: on}]",
        "    applies_to: [no, a]",
        "    parameters: {w: yes}",
        "# comment  ",
        "",
        "   ",
        " \tmore",
        "- Be brief. ",
        "- *a &b",
        "é “ü” ",
    ]
)


@given(st.lists(st.tuples(lines, st.sampled_from(["\n", "\r\n", "\n", "\r"])), max_size=14), st.booleans())
def test_whatever_a_file_holds_fixing_it_never_changes_a_text_that_could_be_read(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[str, str]],
    markdown: bool,
) -> None:
    """Idempotent; layout fixes change no value; and a file that loads, loads as the same constitution afterwards."""
    text = "".join(line + end for line, end in parts)
    path = _write(tmp_path_factory.mktemp("fix"), text, "f.md" if markdown else "f.yaml")
    before = None
    try:
        before = load_constitution([path])
    except ConstitutionError:
        had_errors = True
    else:
        had_errors = False
    changed, report = fix([path])
    assert fix([path]) == ((), report)
    if not had_errors:
        assert load_constitution([path]) == before
    mended = {finding.rule for each in changed for finding in each.mended}
    if not markdown and mended and all(rule.startswith("C22") for rule in mended):
        old, new = read_document(text), read_document(path.read_bytes().decode())
        assert old.value == new.value
        assert {problem.rule for problem in (*old.problems, *new.problems)} <= {"C117"}


BLOCK = """\
principles:
  - id: kind  # why~~\r
    principle: |+
      Be kind.~~
      \tAnd brief.\t

    rationale: "one~~
      two"
  - id: calm
    principle: >-
      Stay calm.
""".replace("~", " ")


@pytest.mark.parametrize(
    "error", ["oops\n", "? [a]\n: |\n  x  \n", "a: *nothing\n", "'x\n", "principles: |\n  x  \n", "{{{  \n"]
)
@pytest.mark.parametrize("first", [True, False])
def test_a_broken_file_keeps_the_spaces_and_line_ends_of_its_texts(tmp_path: Path, error: str, *, first: bool) -> None:
    """Broken, fixed and rid of its error again, a file says what it said before."""
    good = load_constitution([_write(tmp_path, BLOCK)])
    path = _write(tmp_path, f"{error}{BLOCK}" if first else f"{BLOCK}{error}")
    fix([path])
    after = path.read_bytes().decode()
    assert error in after
    assert load_constitution([_write(tmp_path, after.replace(error, ""))]) == good
