"""Named files and folders → the principle files that are meant. Knows names and links, reads no file.

A folder gives its own files only, not those of folders in it. A link in a folder may lead to a file of the same folder; one
that leads out of it is refused: whoever hands over a folder of principles means what lies in it, and a link could bring in any
file of the machine. A link that is named itself is followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from constitution.errors import PrincipleFileError
from constitution.nearest import nearest

SUFFIXES = frozenset({".yaml", ".yml", ".md"})
NOT_PRINCIPLES = frozenset({"readme.md"})
SHIPPED = "shipped"


def shipped_folder() -> Path:
    """Where the principles that come along lie: inside an installed wheel, or in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent / "principles"


def list_files(paths: Sequence[str | Path], errors: list[PrincipleFileError]) -> Sequence[Path]:
    """The files that `paths` name, each once, in order; what names none is added to `errors`.

    Args:
        paths: Files, folders, `shipped` or `shipped:NAME`, as in `load_constitution`.
        errors: Gets a problem for each path that cannot be used.
    """
    if not paths:
        hint = f"`{SHIPPED}` takes those that come along"
        errors.append(PrincipleFileError("constitution", 0, 0, "no principle files are named", hint, "C101"))
    files: dict[Path, Path] = {}
    for given in paths:
        try:
            for path in _named(given, errors):
                files.setdefault(path.resolve(), path)
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            hint = "give yourself the right to read it, or name another"
            errors.append(PrincipleFileError(str(given), 0, 0, f"cannot be read ({reason})", hint, "C102"))
    return tuple(files.values())


def unread_folders(paths: Sequence[str | Path]) -> tuple[Path, ...]:
    """Folders directly inside the named ones that hold principle files: nobody reads those unless they are named too."""
    named = {Path(given).resolve() for given in paths}
    found: list[Path] = []
    for given in paths:
        try:
            below = sorted(path for path in Path(given).iterdir() if path.is_dir() and not path.name.startswith("."))
            found += [path for path in below if path.resolve() not in named and any(map(_has_the_name_of_one, path.iterdir()))]
        except OSError:
            continue  # no folder, or one whose being unreadable is told elsewhere
    return tuple(found)


def _named(given: str | Path, errors: list[PrincipleFileError]) -> Iterable[Path]:
    text, path = str(given), Path(given)
    if text == SHIPPED or text.startswith(f"{SHIPPED}:"):
        yield from _shipped(text, errors)
    elif path.is_dir():
        yield from _in_folder(path, errors)
    elif path.is_file():
        yield path
    elif path.exists():
        errors.append(PrincipleFileError(text, 0, 0, "neither a file nor a folder", "name a file", "C102"))
    else:
        near = nearest(path.name, _names_beside(path))
        hint = f"did you mean {path.with_name(near)}?" if near else f"`{SHIPPED}` takes the principles that come along"
        errors.append(PrincipleFileError(text, 0, 0, "there is no such file or folder", hint, "C101"))


def _in_folder(folder: Path, errors: list[PrincipleFileError]) -> Iterable[Path]:
    inside = sorted(each for each in folder.iterdir() if _has_the_name_of_one(each))
    home = folder.resolve()
    files = 0
    for path in inside:
        if path.is_symlink():
            problem = _problem_of_link(path, home)
            if problem:
                hint = "copy the file here, or name it itself"
                errors.append(PrincipleFileError(str(path), 0, 0, problem, hint, "C120"))
                files += 1
                continue
        if path.is_file():
            files += 1
            yield path
    if not files:
        below = unread_folders([folder])
        hint = f"there are some in {below[0]}" if below else "they end in .yaml or .md"
        errors.append(PrincipleFileError(str(folder), 0, 0, "no principle files in this folder", hint, "C101"))


def _has_the_name_of_one(path: Path) -> bool:
    name = path.name.lower()
    return path.suffix.lower() in SUFFIXES and name not in NOT_PRINCIPLES and not name.startswith(".")


def _problem_of_link(path: Path, home: Path) -> str:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    return "" if target.is_relative_to(home) else f"a link that leads out of its folder, to {target}"


def _names_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []


def _shipped(text: str, errors: list[PrincipleFileError]) -> Iterable[Path]:
    files = {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}
    _, colon, stem = text.partition(":")
    if not colon:
        yield from files.values()
    elif stem in files:
        yield files[stem]
    else:
        hint = f"there are {', '.join(sorted(files))}"
        errors.append(PrincipleFileError(text, 0, 0, "there is no such shipped file", hint, "C101"))
