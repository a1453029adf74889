"""Principle files as they stood in a git revision, `REVISION:PATH`. Reads the repository; checks nothing out.

A link stays a link, so that `listing` judges it as it does in a folder; what it leads to is taken from the same revision.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.loading import SHIPPED, SUFFIXES, load_constitution
from constitution.schema import Constitution

GIT_SECONDS = 30
_FOLDER, _LINK, _FILES = "040000", "120000", ("100644", "100755")
"""What git calls them: the modes of a tree's entries."""


def load_named(name: str) -> Constitution:
    """Load what a user names: a file, a folder, `shipped`, or `REVISION:PATH` (as git itself writes it).

    A path that exists is a path, whatever colons it holds.

    Raises:
        ConstitutionError: With every problem of every file.
    """
    if ":" not in name or name.startswith(f"{SHIPPED}:") or Path(name).exists():
        return load_constitution([name])
    revision, _, path = name.partition(":")
    return load_revision(revision, path)


def load_revision(revision: str, path: str) -> Constitution:
    """Load a file or folder of the repository around the working directory, as it stood in `revision`.

    Args:
        revision: Commit, branch, tag or `HEAD~1`.
        path: From the working directory.

    Raises:
        ConstitutionError: If there is no such revision or path, or the files are not sound.
    """
    name = f"{revision}:{path}"
    if not revision or revision.startswith("-"):
        raise _refused(name, f"`{revision}` is no git revision", "write REVISION:PATH, for example HEAD~1:principles")
    commit = _git(name, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    prefix = _git(name, "rev-parse", "--show-prefix").decode().strip()
    inside = posixpath.normpath(f"{prefix}{path}")
    if _lies_outside(inside):
        raise _refused(name, f"`{path}` lies outside the repository", "name a path inside it")
    entries = _entries(name, commit, inside)
    if not entries:
        raise _refused(name, "no principle files there", f"`git ls-tree -r --name-only {revision}` lists what there is")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        try:
            _write(root, entries)
        except (OSError, ValueError) as error:
            raise _refused(
                name, f"cannot be written to a temporary folder ({error})", "check it out, and name it there"
            ) from error
        if not Path(os.path.realpath(root / inside)).is_relative_to(root):
            raise _refused(name, "a link that leads out of the repository", "name the file itself")
        try:
            return load_constitution([root / inside], name=name)
        except ConstitutionError as error:
            raise ConstitutionError([_renamed(each, root, revision) for each in error.errors]) from error


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What git keeps under one path: a file's bytes, or where a link leads."""

    path: str
    content: bytes
    is_link: bool


def _entries(name: str, commit: str, inside: str) -> Sequence[_Entry]:
    """The principle files that a path means: itself, or what lies directly in it, and whatever links among them lead to."""
    found: dict[str, _Entry] = {}
    waiting, seen = [inside], set[str]()
    while waiting:
        asked = waiting.pop()
        if asked in seen:
            continue
        seen.add(asked)
        for mode, identity, path in _listed(name, commit, asked):
            link = mode == _LINK
            named = path == asked and (link or asked != inside)
            if mode not in (_LINK, *_FILES) or not (named or PurePosixPath(path).suffix.lower() in SUFFIXES):
                continue
            content = _git(name, "cat-file", "blob", identity)
            found[path] = _Entry(path, content, link)
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), os.fsdecode(content))) if link else ".."
            if not _lies_outside(target):
                waiting.append(target)
    return tuple(found.values())


def _listed(name: str, commit: str, path: str) -> Sequence[tuple[str, str, str]]:
    """Mode, object and path of a file or link, or of all that lies directly in a folder."""
    if path == ".":
        inside = _ls_tree(name, commit)
    else:
        inside = _ls_tree(name, commit, "--", path)
        if [mode for mode, _, _ in inside] == [_FOLDER]:
            inside = _ls_tree(name, commit, "--", f"{path}/")
    return [entry for entry in inside if posixpath.normpath(entry[2]) == entry[2] and not _lies_outside(entry[2])]


def _ls_tree(name: str, *arguments: str) -> Sequence[tuple[str, str, str]]:
    lines = os.fsdecode(_git(name, "ls-tree", "--full-tree", "-z", *arguments)).split("\0")
    split = (line.partition("\t") for line in lines if line)
    return [(about.split()[0], about.split()[2], path) for about, _, path in split]


def _lies_outside(path: str) -> bool:
    return path == ".." or path.startswith(("/", "../"))


def _write(root: Path, entries: Sequence[_Entry]) -> None:
    """Links come last, so that nothing is ever written through one."""
    for entry in entries:
        (root / entry.path).parent.mkdir(parents=True, exist_ok=True)
    for entry in sorted(entries, key=lambda entry: entry.is_link):
        target = root / entry.path
        if entry.is_link:
            target.symlink_to(os.fsdecode(entry.content))
        else:
            target.write_bytes(entry.content)


def _renamed(error: PrincipleFileError, root: Path, revision: str) -> PrincipleFileError:
    prefix = f"{root}/"
    path, problem = (text.replace(prefix, f"{revision}:") for text in (error.path, error.problem))
    return dataclasses.replace(error, path=path, problem=problem)


def _git(name: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, arguments as a list, no shell
            ["git", *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            check=False,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(name, f"git cannot be run ({error})", "name files instead") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        problem = told[0] if told else f"there is no revision `{name.partition(':')[0]}` here"
        raise _refused(name, problem, "a path that exists, or REVISION:PATH inside a git repository")
    return done.stdout


def _refused(name: str, problem: str, hint: str) -> ConstitutionError:
    return ConstitutionError([PrincipleFileError(name, 0, 0, problem, hint)])
