"""Folders, links, files that cannot be read: each is a clear error, and none a traceback."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from constitution.errors import ConstitutionError
from constitution.linting import Finding, lint
from constitution.loading import load_constitution, load_files

NOBODY = 65534


def _problems(*paths: Path) -> list[tuple[str, str]]:
    with pytest.raises(ConstitutionError) as caught:
        load_constitution(paths)
    found = lint(paths).findings
    assert [(each.path, each.problem) for each in caught.value.errors] == [
        (finding.path, finding.problem) for finding in found if finding.severity == "error"
    ]
    return [(each.rule, each.problem) for each in caught.value.errors]


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may read everything; tests that run as root put its rights off meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_thousand_files_are_one_constitution_in_order_of_name(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04}.md").write_text(f"- Rule number {number}, {chr(97 + number % 26) * 9}.\n")
    files = load_files([tmp_path])
    assert len(files) == 1000
    assert [file.path.stem for file in files] == sorted(file.path.stem for file in files)
    assert len({principle.id for file in files for principle in file.constitution.principles}) == 1000


def test_two_files_that_share_an_id_are_told_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("principles:\n  - id: kind\n    principle: Be kind.\n")
    (tmp_path / "b.yaml").write_text("name: b\nprinciples:\n  - id: kind\n    principle: Be brief.\n")
    (finding,) = [each for each in lint([tmp_path]).findings if each.severity == "error"]
    assert (Path(finding.path).name, finding.line, finding.column, finding.rule) == ("b.yaml", 3, 5, "C108")
    assert f"{tmp_path / 'a.yaml'}:2" in finding.problem
    assert _problems(tmp_path)


class TestLinks:
    def test_a_link_out_of_the_folder_is_refused_and_the_rest_is_still_checked(self, tmp_path: Path) -> None:
        (tmp_path / "secret.yaml").write_text("password: tulip77\n")
        folder = tmp_path / "principles"
        folder.mkdir()
        (folder / "bad.md").write_text("-\n")
        (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
        found = _problems(folder)
        assert [rule for rule, _ in found] == ["C111", "C120"]
        assert "leads out of its folder" in found[1][1]
        assert not any("tulip" in problem or "password" in problem for _, problem in found)

    @pytest.mark.parametrize("target", ["../outside", "/etc"])
    def test_a_way_out_over_a_linked_folder_is_a_way_out(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "x.md").write_text("- Be kind.\n")
        (tmp_path / "outside" / "hosts").write_text("")
        folder = tmp_path / "principles"
        folder.mkdir()
        (folder / "up").symlink_to(target)
        (folder / "x.md").symlink_to(Path("up", "x.md" if target == "../outside" else "hosts"))
        assert [rule for rule, _ in _problems(folder)] == ["C120"]

    def test_a_link_inside_the_folder_is_the_same_file_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("- Be kind.\n")
        (tmp_path / "b.md").symlink_to("a.md")
        (tmp_path / ".hidden.md").write_text("- Be brief.\n")
        (tmp_path / "c.md").symlink_to(".hidden.md")
        assert [file.path.name for file in load_files([tmp_path])] == ["a.md", "c.md"]

    @pytest.mark.parametrize("target", ["nowhere.md", "loop.md"])
    def test_a_link_to_nothing_or_to_itself_is_told(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "loop.md").symlink_to(target)
        assert _problems(tmp_path) == [("C120", "a link that leads nowhere")]

    def test_a_link_that_is_named_itself_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real.md").write_text("- Be kind.\n")
        folder = tmp_path / "principles"
        folder.mkdir()
        (folder / "link.md").symlink_to(tmp_path / "real.md")
        assert len(load_constitution([folder / "link.md"]).principles) == 1
        linked = tmp_path / "linked"
        linked.symlink_to(tmp_path)
        (tmp_path / "principles" / "link.md").unlink()
        assert len(load_constitution([linked]).principles) == 1


class TestRights:
    def test_a_file_without_the_right_to_read_it_is_told_and_the_others_are_read(self, open_folder: Path) -> None:
        (open_folder / "a.md").write_text("- Be kind.\n")
        (open_folder / "b.md").write_text("-\n")
        (open_folder / "a.md").chmod(0)
        with as_an_ordinary_user():
            found = _problems(open_folder)
        assert found == [("C102", "cannot be read (Permission denied)"), ("C111", "an empty bullet")]

    def test_a_folder_without_the_right_to_list_it(self, open_folder: Path) -> None:
        inner = open_folder / "inner"
        inner.mkdir()
        inner.chmod(0o311)
        with as_an_ordinary_user():
            found = _problems(inner)
        inner.chmod(0o755)
        assert found == [("C102", "cannot be read (Permission denied)")]

    def test_a_file_in_a_folder_without_the_right_to_enter_it(self, open_folder: Path) -> None:
        inner = open_folder / "inner"
        inner.mkdir()
        (inner / "a.md").write_text("- Be kind.\n")
        inner.chmod(0o600)
        with as_an_ordinary_user():
            found = _problems(inner / "a.md")
        inner.chmod(0o755)
        assert found == [("C102", "cannot be read (Permission denied)")]

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no /proc here")
    def test_a_file_that_breaks_while_it_is_read(self) -> None:
        assert [rule for rule, _ in _problems(Path("/proc/self/mem"))] == ["C102"]


class TestNames:
    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.yaml")
        assert _problems(tmp_path / "pipe.yaml") == [("C102", "neither a file nor a folder")]

    @pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\ud800", "~none/x", ""])
    def test_impossible_names_are_errors(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        found: list[Finding] = list(lint([name]).findings)
        assert [finding.severity for finding in found] == ["error"]
        assert found[0].rule in {"C101", "C102"}

    def test_a_name_that_is_no_unicode_is_read(self, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md"))
        path.write_text("- Be kind.\n")
        assert len(load_constitution([tmp_path]).principles) == 1
