"""Principle files and folders → one `Constitution`. Every problem of every file is reported at once, with file:line:column.

Two forms: YAML (`name`, `description`, `principles`), and Markdown, where each bullet is one principle.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from constitution.documents import Document, read_document
from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.explaining import explain
from constitution.markdown import Bullet, read_markdown
from constitution.schema import MAX_PROSE_CHARS, MAX_TEXT_CHARS, Constitution, Principle
from constitution.templating import BadTemplateError, check_template, render_text

SUFFIXES = frozenset({".yaml", ".yml", ".md"})
NOT_PRINCIPLES = frozenset({"readme.md"})
SHIPPED = "shipped"
MAX_FILE_BYTES = 4_000_000

_TEMPLATED = ("principle", "critique_request", "revision_request", "preference_question")


def shipped_folder() -> Path:
    """Where the principles that come along lie: inside an installed wheel, or in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent / "principles"


def load_constitution(paths: Sequence[str | Path], *, name: str | None = None) -> Constitution:
    """Load and check principle files.

    Args:
        paths: Files, folders (every `.yaml`, `.yml` and `.md` in them but README.md, by name), `shipped` for all that come
            along, or `shipped:NAME` for one file of those.
        name: The constitution's name; by default that of its only file, else the names joined.

    Raises:
        ConstitutionError: With every problem of every file.
    """
    files = load_files(paths)
    parts = [each.constitution for each in files]
    return Constitution(
        name=name or " + ".join(part.name for part in parts)[:MAX_TEXT_CHARS],
        description="\n".join(part.description for part in parts if part.description)[:MAX_PROSE_CHARS],
        source=parts[0].source if len(parts) == 1 else {},
        principles=tuple(principle for part in parts for principle in part.principles),
    )


@dataclass(frozen=True)
class PrincipleFile:
    """One file as it was read."""

    path: Path
    constitution: Constitution


def load_files(paths: Sequence[str | Path]) -> tuple[PrincipleFile, ...]:
    """As `load_constitution`, file by file; ids are unique over all of them."""
    reading = _Reading()
    files = {path.resolve(): path for path in _files(paths, reading.errors)}
    for path in files.values():
        _read_file(path, reading)
    _refuse_duplicate_ids(reading)
    if reading.errors:
        raise ConstitutionError(sorted(reading.errors, key=lambda error: (error.path, error.line, error.column)))
    return tuple(reading.found)


@dataclass(frozen=True)
class _DeclaredId:
    """An id as a file gives it, sound or not."""

    id: str
    path: str
    line: int
    column: int


@dataclass
class _Reading:
    """What has been read so far, and what is wrong with it."""

    errors: list[PrincipleFileError] = field(default_factory=list[PrincipleFileError])
    found: list[PrincipleFile] = field(default_factory=list[PrincipleFile])
    ids: list[_DeclaredId] = field(default_factory=list[_DeclaredId])

    def refuse(self, path: Path, line: int, column: int, problem: str, hint: str = "") -> None:
        self.errors.append(PrincipleFileError(str(path), line, column, problem, hint))


def _files(paths: Sequence[str | Path], errors: list[PrincipleFileError]) -> Iterable[Path]:
    if not paths:
        errors.append(
            PrincipleFileError("constitution", 0, 0, "no principle files are named", "`shipped` takes those that come along")
        )
    for given in paths:
        text = str(given)
        if text == SHIPPED or text.startswith(f"{SHIPPED}:"):
            yield from _shipped(text, errors)
            continue
        path = Path(given)
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if _is_principle_file(each))
            if not inside:
                errors.append(PrincipleFileError(text, 0, 0, "no principle files in this folder", "they end in .yaml or .md"))
            yield from inside
        elif path.is_file():
            yield path
        else:
            near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
            hint = f"did you mean {path.with_name(near[0])}?" if near else f"`{SHIPPED}` takes the principles that come along"
            errors.append(PrincipleFileError(text, 0, 0, "there is no such file or folder", hint))


def _is_principle_file(path: Path) -> bool:
    name = path.name.lower()
    return path.suffix.lower() in SUFFIXES and name not in NOT_PRINCIPLES and not name.startswith(".") and path.is_file()


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
        errors.append(PrincipleFileError(text, 0, 0, "there is no such shipped file", f"there are {', '.join(sorted(files))}"))


def _read_file(path: Path, reading: _Reading) -> None:
    try:
        raw = path.read_bytes()
    except OSError as error:
        reading.refuse(path, 0, 0, f"cannot be read ({error.strerror or error})")
        return
    if len(raw) > MAX_FILE_BYTES:
        reading.refuse(path, 0, 0, f"{len(raw)} bytes is too much for a principle file", "split it")
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        reading.refuse(path, line, column, "not UTF-8 text", "save the file as UTF-8")
        return
    if not text.strip():
        reading.refuse(path, 0, 0, "the file is empty", "a Markdown list of principles is enough")
        return
    before = len(reading.errors)
    constitution = _read_markdown(path, text, reading) if path.suffix.lower() == ".md" else _read_yaml(path, text, reading)
    if constitution is not None and len(reading.errors) == before:
        reading.found.append(PrincipleFile(path, constitution))


def _read_markdown(path: Path, text: str, reading: _Reading) -> Constitution | None:
    """Each bullet is a principle, the title the constitution's name, and the prose its description."""
    read = read_markdown(text)
    for bullet in read.nested:
        hint = "begin the line at the margin to make it a principle, or write it as part of the one above"
        reading.refuse(path, bullet.line, bullet.column, "a bullet inside a bullet", hint)
    if not read.bullets:
        reading.refuse(path, 1, 1, "no bullets", "each line that begins with `- ` is one principle")
        return None
    taken: set[str] = set()
    principles: list[Principle] = []
    for bullet in read.bullets:
        identity = _id_from_text(bullet.text, taken)
        taken.add(identity)
        reading.ids.append(_DeclaredId(identity, str(path), bullet.line, bullet.column))
        principles.extend(_principle_of_bullet(path, bullet, identity, reading))
    if len(principles) < len(read.bullets):
        return None
    try:
        return Constitution(name=read.title or path.stem, description=" ".join(read.prose), principles=tuple(principles))
    except ValidationError as error:
        for loc, problem, hint in explain(error):
            if loc:
                reading.refuse(path, 1, 1, problem, hint)
        return None


def _principle_of_bullet(path: Path, bullet: Bullet, identity: str, reading: _Reading) -> Iterable[Principle]:
    if not bullet.text:
        reading.refuse(path, bullet.line, bullet.column, "an empty bullet", "write the rule after the dash, or delete the line")
        return
    try:
        check_template(bullet.text, frozenset[str]())
        yield Principle(id=identity, principle=bullet.text)
    except BadTemplateError as problem:
        reading.refuse(path, bullet.line, bullet.column, problem.problem, "parameters need the YAML form")
    except ValidationError as error:
        for _, problem, hint in explain(error):
            reading.refuse(path, bullet.line, bullet.column, problem, hint)


def _id_from_text(text: str, taken: set[str]) -> str:
    words = re.findall(r"[a-z0-9]+", text.lower())[:6] or ["principle"]
    base = "-".join(words)[:70].strip("-")
    identity, count = base, 1
    while identity in taken:
        count += 1
        identity = f"{base}-{count}"
    return identity


def _read_yaml(path: Path, text: str, reading: _Reading) -> Constitution | None:
    document = read_document(text)
    for each in document.problems:
        reading.refuse(path, each.line, each.column, each.problem, each.hint)
    content: object = document.value
    if content is None:
        if not document.problems:
            reading.refuse(path, 0, 0, "no principles here", "begin with `name:` and `principles:`")
        return None
    if not isinstance(content, dict):
        hint = "begin with `name:` and `principles:`; a plain list of rules can be a Markdown file"
        reading.refuse(path, 1, 1, "a principle file is made of `key: value` lines", hint)
        return None
    value = {"name": path.stem, **cast("dict[str, Any]", content)}
    reading.errors.extend(_booleans(path, document))
    for index, entry in enumerate(_entries(value.get("principles"))):
        place = document.place(("principles", index, "id"))
        if isinstance(entry.get("id"), str):
            reading.ids.append(_DeclaredId(entry["id"], str(path), place.line, place.column))
        reading.errors.extend(_template_errors(path, document, index, entry))
    try:
        return Constitution.model_validate(value)
    except ValidationError as error:
        reading.errors.extend(_schema_errors(path, document, error))
        return None


def _entries(principles: object) -> Iterable[Mapping[str, Any]]:
    """The principles of an unchecked file; what is no section counts as an empty one, so that positions stay right."""
    for entry in cast("list[object]", principles) if isinstance(principles, list) else []:
        yield cast("Mapping[str, Any]", entry) if isinstance(entry, dict) else {}


def _booleans(path: Path, document: Document) -> Iterable[PrincipleFileError]:
    """Nothing in a principle file is yes or no, and pydantic would take `yes` for the number 1."""
    for place_path, value in _leaves(document.value, ()):
        if isinstance(value, bool):
            place = document.place(place_path)
            hint = "put it in quotes: YAML reads yes, no, on and off as booleans"
            yield PrincipleFileError(str(path), place.line, place.column, f"`{place_path[-1]}` is read as {value}", hint)


def _leaves(value: object, path: tuple[str | int, ...]) -> Iterable[tuple[tuple[str | int, ...], object]]:
    if isinstance(value, dict):
        for key, below in cast("dict[str, object]", value).items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(cast("list[object]", value)):
            yield from _leaves(below, (*path, index))
    else:
        yield path, value


def _schema_errors(path: Path, document: Document, error: ValidationError) -> Iterable[PrincipleFileError]:
    flagged = document.unreadable | {at for at, value in _leaves(document.value, ()) if isinstance(value, bool)}
    for loc, problem, hint in explain(error):
        if loc and loc not in flagged:  # an error of the file as a whole is an id used twice, which is told with its place
            place = document.place(loc)
            yield PrincipleFileError(str(path), place.line, place.column, problem, hint)


def _template_errors(path: Path, document: Document, index: int, entry: Mapping[str, Any]) -> Iterable[PrincipleFileError]:
    given: object = entry.get("parameters")
    parameters = cast("dict[str, Any]", given if isinstance(given, dict) else {})
    sound = all(isinstance(value, (str, int, float)) for value in parameters.values())
    for name in _TEMPLATED:
        template = entry.get(name)
        if not isinstance(template, str):
            continue
        try:
            check_template(template, frozenset(parameters))
            if sound:
                render_text(template, parameters)
        except BadTemplateError as problem:
            line, column = _template_place(document, ("principles", index, name), frozenset(parameters), problem)
            yield PrincipleFileError(str(path), line, column, f"`{name}`: {problem.problem}", problem.hint)


def _template_place(
    document: Document, path: tuple[str | int, ...], names: frozenset[str], problem: BadTemplateError
) -> tuple[int, int]:
    """Line and column in the file. YAML folds lines, so the template is checked once more as its lines stand in the file."""
    place = document.place(path)
    source = document.sources.get(path)
    if source is None:
        return place.line, place.column
    try:
        check_template(source, names)
        line_in_source = 1
    except BadTemplateError as again:
        line_in_source = again.line
    lines = source.splitlines()
    line = lines[min(line_in_source, len(lines)) - 1] if lines else ""
    brace = line.find("{")
    if brace < 0:
        return place.line, place.column
    word = re.search(rf"\b{re.escape(problem.word)}\b", line[brace:]) if problem.word else None
    return place.text_line + line_in_source - 1, brace + (word.start() if word else 0) + 1


def _refuse_duplicate_ids(reading: _Reading) -> None:
    first: dict[str, _DeclaredId] = {}
    for each in reading.ids:
        known = first.setdefault(each.id, each)
        if known is not each:
            problem = f"the id `{each.id}` is used already at {known.path}:{known.line}"
            reading.refuse(Path(each.path), each.line, each.column, problem, "give one of them another id")
