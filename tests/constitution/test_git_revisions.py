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


def _commit(repository: Path) -> None:
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "more")


def _asked(name: str) -> list[str] | str:
    """What a name gives, or the problem; without what a path is below."""
    try:
        return [p.principle for p in load_named(name).principles]
    except ConstitutionError as caught:
        return caught.errors[0].problem.partition(", to ")[0]


@pytest.mark.parametrize(
    "links",
    [
        {"rules/same.md": "kind.md"},
        {"rules/other.md": "plain.txt"},
        {"rules/chain.md": "chain2.md", "rules/chain2.md": "plain.txt"},
        {"rules/up.md": "../plain.md"},
        {"rules/machine.md": "/etc/hostname"},
        {"rules/nowhere.md": "none.md"},
        {"rules/loop.md": "loop.md"},
        {"alias": "rules"},
    ],
)
def test_links_of_a_revision_are_judged_as_those_of_a_folder(repository: Path, links: dict[str, str]) -> None:
    """The folder itself is the oracle. A link was read as a file that says where the link leads."""
    (repository / "plain.md").write_text("- Be plain.\n")
    (repository / "rules" / "plain.txt").write_text("- Be a text.\n")
    for link, target in links.items():
        (repository / link).symlink_to(target)
    _commit(repository)
    for name in ("rules", "rules/kind.md", *(link for link in links if link == "alias")):
        assert _asked(f"HEAD:{name}") == _asked(name)


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../../../../etc/hostname", "hop.md"])
def test_a_revision_never_gives_a_file_of_the_machine(repository: Path, target: str) -> None:
    (repository / "named.md").symlink_to(target)
    (repository / "hop.md").symlink_to("/etc/hostname")
    _commit(repository)
    assert _asked("HEAD:named.md") == "a link that leads out of the repository"


def test_a_link_that_is_named_itself_is_followed_within_the_revision(repository: Path) -> None:
    (repository / "named.md").symlink_to("rules/kind.md")
    _commit(repository)
    (repository / "rules" / "kind.md").write_text("- Uncommitted.\n")
    assert _asked("HEAD:named.md") == ["Be kinder."]


def test_only_what_lies_directly_in_a_folder_is_fetched(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "rules" / "below").mkdir()
    for number in range(3):
        (repository / "rules" / "below" / f"{number}.md").write_text(f"- Be {number}.\n")
    _commit(repository)
    asked: list[list[str]] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **keys: asked.append(command) or run(command, **keys))
    assert _asked("HEAD:rules") == ["Be kinder."]
    assert sum("cat-file" in command for command in asked) == 2
    assert _asked("HEAD:rules/below/1.md") == ["Be 1."]


def test_the_root_of_a_repository_can_be_named(repository: Path) -> None:
    (repository.parent / "bad.yaml").unlink()
    (repository.parent / "top.md").write_text("- Be on top.\n")
    _commit(repository.parent)
    assert _asked("HEAD:..") == ["Be on top."]


def test_outside_a_repository_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConstitutionError):
        load_named("HEAD:rules")
