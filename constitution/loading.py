"""Principle files and folders → one `Constitution`. Every problem of every file is reported at once, with file:line:column.

Two forms: YAML (`name`, `description`, `principles`), and Markdown, where each bullet is one principle.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from constitution.documents import Document, read_document
from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.schema import Constitution, Demonstration, Principle, PrincipleTest
from constitution.templating import TemplateProblem, check_template, render_text

SUFFIXES = frozenset({".yaml", ".yml", ".md"})
NOT_PRINCIPLES = frozenset({"readme.md"})
SHIPPED = "shipped"
MAX_FILE_BYTES = 4_000_000

_SECTIONS: dict[str, type[BaseModel]] = {"principles": Principle, "demonstrations": Demonstration, "tests": PrincipleTest}
_TEMPLATED = ("principle", "critique_request", "revision_request", "preference_question")
_BULLET = re.compile(r"^(?:[-*+]|\d+[.)])\s+(.*)$")


def shipped_folder() -> Path:
    """Where the principles that come along lie: inside an installed wheel, or in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent / "principles"


def load_constitution(paths: Sequence[str | Path], *, name: str | None = None) -> Constitution:
    """Load and check principle files.

    Args:
        paths: Files, folders (every `.yaml`, `.yml`, `.md` in them but README.md, by name), `shipped` for all that come along, or
            `shipped:NAME` for one file of those.
        name: The constitution's name; by default that of its only file, else the names joined.

    Raises:
        ConstitutionError: With every problem of every file.
    """
    errors: list[PrincipleFileError] = []
    files = list(_files(paths, errors))
    found: list[_FilePrinciples] = []
    for path in files:
        found.extend(_read_file(path, errors))
    _refuse_duplicate_ids(found, errors)
    if not errors and not any(each.principles for each in found):
        errors.append(PrincipleFileError(", ".join(str(path) for path in paths), 0, 0, "no principles here"))
    if errors:
        raise ConstitutionError(sorted(errors, key=lambda error: (error.path, error.line, error.column)))
    return Constitution(
        name=name or " + ".join(each.name for each in found),
        description="\n".join(each.description for each in found if each.description),
        principles=tuple(principle for each in found for principle in each.principles),
    )


@dataclass(frozen=True)
class _FilePrinciples:
    path: str
    name: str
    description: str
    principles: tuple[Principle, ...]
    lines: tuple[int, ...]


def _files(paths: Sequence[str | Path], errors: list[PrincipleFileError]) -> Iterable[Path]:
    if not paths:
        errors.append(PrincipleFileError("constitution", 0, 0, "no principle files are named", "`shipped` takes those that come along"))
    for given in paths:
        text = str(given)
        if text == SHIPPED or text.startswith(f"{SHIPPED}:"):
            yield from _shipped(text, errors)
            continue
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.name.lower() not in NOT_PRINCIPLES)
            if not inside:
                errors.append(PrincipleFileError(text, 0, 0, "no principle files in this folder", "they end in .yaml or .md"))
            yield from inside
        elif path.is_file():
            yield path
        else:
            near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
            hint = f"did you mean {path.with_name(near[0])}?" if near else f"`{SHIPPED}` takes the principles that come along"
            errors.append(PrincipleFileError(text, 0, 0, "there is no such file or folder", hint))


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


def _read_file(path: Path, errors: list[PrincipleFileError]) -> Iterable[_FilePrinciples]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        errors.append(PrincipleFileError(str(path), 0, 0, f"cannot be read ({error.strerror or error})"))
        return
    if len(raw) > MAX_FILE_BYTES:
        errors.append(PrincipleFileError(str(path), 0, 0, f"{len(raw)} bytes is too much for a principle file", "split it"))
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        errors.append(PrincipleFileError(str(path), line, column, "not UTF-8 text", "save the file as UTF-8"))
        return
    if not text.strip():
        errors.append(PrincipleFileError(str(path), 0, 0, "the file is empty", "a Markdown list of principles is enough"))
        return
    before = len(errors)
    read = _read_markdown(path, text, errors) if path.suffix == ".md" else _read_yaml(path, text, errors)
    if read is not None and len(errors) == before:
        yield read


def _read_markdown(path: Path, text: str, errors: list[PrincipleFileError]) -> _FilePrinciples | None:
    """A bullet is a principle; indented lines go on with it; a heading names the constitution; other lines are description."""
    name, description = path.stem, []
    bullets: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        bullet = _BULLET.match(line)
        if bullet:
            bullets.append((number, bullet[1].strip()))
        elif line.startswith((" ", "\t")) and line.strip() and bullets:
            bullets[-1] = (bullets[-1][0], f"{bullets[-1][1]} {line.strip()}")
        elif line.startswith("#"):
            name = line.lstrip("#").strip() or name
        elif line.strip():
            description.append(line.strip())
    if not bullets:
        errors.append(PrincipleFileError(str(path), 1, 1, "no bullets", "each line that begins with `- ` is one principle"))
        return None
    principles: list[Principle] = []
    taken: set[str] = set()
    for number, bullet in bullets:
        identity = _id_from_text(bullet, taken)
        taken.add(identity)
        try:
            principle = Principle(id=identity, principle=bullet)
            check_template(bullet, frozenset())
        except ValidationError as error:
            errors.append(PrincipleFileError(str(path), number, 1, error.errors()[0]["msg"], "write the rule after the dash"))
        except TemplateProblem as problem:
            errors.append(PrincipleFileError(str(path), number, 1, problem.problem, "parameters need the YAML form"))
        else:
            principles.append(principle)
    return _FilePrinciples(str(path), name, " ".join(description), tuple(principles), tuple(n for n, _ in bullets))


def _id_from_text(text: str, taken: set[str]) -> str:
    words = re.findall(r"[a-z0-9]+", text.lower())[:6] or ["principle"]
    base = "-".join(words)[:70].strip("-")
    identity, count = base, 1
    while identity in taken:
        count += 1
        identity = f"{base}-{count}"
    return identity


def _read_yaml(path: Path, text: str, errors: list[PrincipleFileError]) -> _FilePrinciples | None:
    document = read_document(text)
    before = len(errors)
    errors.extend(PrincipleFileError(str(path), p.line, p.column, p.problem, p.hint) for p in document.problems)
    if document.value is None:
        return None
    if not isinstance(document.value, dict):
        hint = "begin with `name:` and `principles:`"
        errors.append(PrincipleFileError(str(path), 1, 1, "a principle file is a list of `key: value` lines", hint))
        return None
    value: dict[str, Any] = {"name": path.stem, **document.value}
    try:
        constitution = Constitution.model_validate(value)
    except ValidationError as error:
        errors.extend(_explain(path, document, error))
        return None
    for index, principle in enumerate(constitution.principles):
        errors.extend(_template_errors(path, text, document, index, principle))
    if len(errors) > before:
        return None
    lines = tuple(document.place(("principles", index)).line for index in range(len(constitution.principles)))
    return _FilePrinciples(str(path), constitution.name, constitution.description, constitution.principles, lines)


def _explain(path: Path, document: Document, error: ValidationError) -> Iterable[PrincipleFileError]:
    for detail in error.errors(include_url=False):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        place = document.place(loc)
        field = str(loc[-1]) if loc else "file"
        problem, hint = detail["msg"].removeprefix("Value error, "), ""
        if detail["type"] == "extra_forbidden":
            known = _known_keys(loc[:-1])
            near = difflib.get_close_matches(field, known, n=1)
            problem, hint = f"unknown key `{field}`", f"did you mean `{near[0]}`?" if near else f"keys here: {', '.join(known)}"
        elif detail["type"] == "missing":
            problem, hint = f"`{field}` is missing", "add it"
        elif detail["type"] == "string_type" and isinstance(detail["input"], bool):
            problem, hint = f"`{field}` is read as {detail['input']}", "put it in quotes: YAML reads yes, no, on and off as booleans"
        elif detail["type"] == "string_type" and detail["input"] is None:
            problem, hint = f"`{field}` is empty", "write a text, or delete the key"
        else:
            problem = f"`{field}`: {problem}"
        yield PrincipleFileError(str(path), place.line, place.column, problem, hint)


def _known_keys(loc: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Constitution
    for part in loc:
        if isinstance(part, str):
            model = _SECTIONS.get(part, model)
    return list(model.model_fields)


def _template_errors(
    path: Path, text: str, document: Document, index: int, principle: Principle
) -> Iterable[PrincipleFileError]:
    for field in _TEMPLATED:
        template: str | None = getattr(principle, field)
        if template is None:
            continue
        try:
            render_text(template, principle.parameters)
        except TemplateProblem as problem:
            place = document.place(("principles", index, field))
            line = place.text_line + problem.line - 1
            lines = text.splitlines()
            column = place.column if line == place.line else len(lines[line - 1]) - len(lines[line - 1].lstrip()) + 1
            yield PrincipleFileError(str(path), line, column, f"`{field}`: {problem.problem}", problem.hint)


def _refuse_duplicate_ids(found: Sequence[_FilePrinciples], errors: list[PrincipleFileError]) -> None:
    first: dict[str, str] = {}
    for each in found:
        for principle, line in zip(each.principles, each.lines, strict=True):
            if principle.id in first:
                problem = f"the id `{principle.id}` is used already at {first[principle.id]}"
                errors.append(PrincipleFileError(each.path, line, 1, problem, "give one of them another id"))
            first.setdefault(principle.id, f"{each.path}:{line}")
