"""Principle files as they stood in a git revision, `REVISION:PATH`. Reads the repository; checks nothing out."""

from __future__ import annotations

import dataclasses
import posixpath
import subprocess
import tempfile
from pathlib import Path, PurePosixPath

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.loading import SHIPPED, SUFFIXES, load_constitution
from constitution.schema import Constitution

GIT_SECONDS = 30


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
    if inside.startswith(("/", "..")):
        raise _refused(name, f"`{path}` lies outside the repository", "name a path inside it")
    listed = _git(name, "ls-tree", "-r", "--full-tree", "--name-only", "-z", commit, "--", inside).decode(errors="replace")
    files = [file for file in listed.split("\0") if PurePosixPath(file).suffix.lower() in SUFFIXES]
    if not files:
        raise _refused(name, "no principle files there", f"`git ls-tree -r --name-only {revision}` lists what there is")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for file in files:
            target = root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_git(name, "cat-file", "blob", f"{commit}:{file}"))
        try:
            return load_constitution([root / inside], name=name)
        except ConstitutionError as error:
            raise ConstitutionError([_renamed(each, root, revision) for each in error.errors]) from error


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
