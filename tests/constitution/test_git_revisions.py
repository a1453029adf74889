"""Principle files from a git revision, in a real repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from constitution.errors import ConstitutionError
from constitution.git_revisions import load_named

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits; the working directory is a folder inside it."""
    git(tmp_path, "init", "-q")
    folder = tmp_path / "inside"
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "kind.md").write_text("- Be kind.\n")
    (folder / "rules" / "README.md").write_text("- Not a principle.\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    (folder / "rules" / "kind.md").write_text("- Be kinder.\n")
    (tmp_path / "bad.yaml").write_text("principles: 3\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "two")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("path", ["rules", "rules/kind.md", "./rules", "../inside/rules"])
def test_an_older_revision_of_a_file_or_folder_is_loaded(repository: Path, path: str) -> None:
    (repository / "rules" / "kind.md").write_text("- Uncommitted.\n")
    assert [p.principle for p in load_named(f"HEAD~1:{path}").principles] == ["Be kind."]
    assert [p.principle for p in load_named(f"HEAD:{path}").principles] == ["Be kinder."]
    assert load_named(f"HEAD~1:{path}").name == f"HEAD~1:{path}"


def test_a_path_that_exists_is_a_path_whatever_colons_it_holds(repository: Path) -> None:
    (repository / "a:b.md").write_text("- Here.\n")
    assert load_named("a:b.md").principles[0].principle == "Here."
    assert load_named("shipped:honesty").principles


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere:rules", "nowhere"),
        ("HEAD:absent", "no principle files there"),
        ("HEAD:../../etc", "outside the repository"),
        ("--upload-pack=x:rules", "no git revision"),
        (":rules", "no git revision"),
    ],
)
def test_what_is_not_there_is_refused_with_its_name(repository: Path, name: str, told: str) -> None:
    with pytest.raises(ConstitutionError, match=told):
        load_named(name)


def test_an_error_names_the_revision_and_not_a_temporary_folder(repository: Path) -> None:
    with pytest.raises(ConstitutionError) as caught:
        load_named("HEAD:../bad.yaml")
    assert str(caught.value).startswith("HEAD:bad.yaml:1:")


def test_outside_a_repository_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConstitutionError):
        load_named("HEAD:rules")
