"""One principle file → what it says, or what is wrong with it.

Two forms: YAML (`name`, `description`, `principles`), and Markdown, where each bullet is one principle. Both end as a
`Document`, so that whoever looks at a principle later finds its places in the same way.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import ValidationError

from constitution.alignment import align_bullet
from constitution.composing import control_character
from constitution.documents import Document, Place, Span, read_document
from constitution.documents import Path as Loc
from constitution.errors import PrincipleFileError
from constitution.explaining import explain
from constitution.ids import first_words, unused
from constitution.markdown import MAX_BULLETS, Bullet, read_markdown
from constitution.schema import Constitution, Principle
from constitution.template_language import UNKNOWN_NAME
from constitution.template_places import check_templates
from constitution.templating import examine

MAX_FILE_BYTES = 4_000_000
MAX_FILE_LINES = 200_000
MAX_TEMPLATE_EFFORT_CHARS = 250_000
"""That the templates of one file, but for plain names, may take to read and to fill in: about three microseconds each."""
MAX_PROBLEMS = 1000
"""Problems of one file that are told; the rest is counted."""


@dataclass
class ReadFile:
    """One file as it was read. `constitution` is None where the file has errors; its `document` then holds what could be read.

    `ids` are the ids that it declares with their places, sound or not; `examined` are the entries whose templates were looked
    at, each with the keys of those that are not sound;
    `unread` counts the problems beyond `MAX_PROBLEMS`; where there are so many, templates are not looked for any more, and
    `uncounted` says that some were left. `marked` says that the file begins with a byte order mark, which its text leaves out.
    """

    path: Path
    document: Document = field(default_factory=Document)
    constitution: Constitution | None = None
    errors: list[PrincipleFileError] = field(default_factory=list[PrincipleFileError])
    ids: list[tuple[str, Place]] = field(default_factory=list[tuple[str, Place]])
    examined: dict[int, frozenset[str]] = field(default_factory=dict[int, frozenset[str]])
    unread: int = 0
    uncounted: bool = False
    marked: bool = False

    @property
    def is_markdown(self) -> bool:
        return self.path.suffix.lower() == ".md"

    @property
    def value(self) -> Mapping[str, Any]:
        """What the file says, unchecked; empty where it is no section at all."""
        value: object = self.document.value
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

    @property
    def stem(self) -> str:
        """What a constitution without a name is called: the file's name without its suffix, as text."""
        return self.path.stem.encode(errors="replace").decode()

    def refuse(self, rule: str, line: int, column: int, problem: str, hint: str = "", loc: Loc | None = None) -> None:
        """Note an error; 0 for line and column means the file as a whole."""
        if len(self.errors) >= MAX_PROBLEMS:
            self.unread += 1
            return
        self.errors.append(PrincipleFileError(str(self.path), line, column, problem, hint, rule, loc))


def read_file(path: Path) -> ReadFile:
    """Read and check one file by itself. Never raises for what a file may hold or be: all of it is in `errors`."""
    read = ReadFile(path)
    text = _text(read)
    if text is not None:
        constitution = _read_markdown(read, text) if read.is_markdown else _read_yaml(read, text)
        if read.unread:
            last = read.errors[-1]
            hint = "mend the others first"
            read.errors.append(PrincipleFileError(str(path), last.line, last.column, _more(read), hint, last.rule))
        read.constitution = None if read.errors else constitution
    return read


def _more(read: ReadFile) -> str:
    return f"and {'at least ' * read.uncounted}{read.unread} more problem{'s' * (read.unread != 1)} in this file"


def _text(read: ReadFile) -> str | None:
    try:
        with read.path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
            size = len(raw) if len(raw) <= MAX_FILE_BYTES else max(read.path.stat().st_size, len(raw))
    except OSError as error:
        read.refuse("C102", 0, 0, f"cannot be read ({error.strerror or error})", "give yourself the right to read it")
        return None
    if size > MAX_FILE_BYTES:
        read.refuse("C102", 0, 0, f"{size} bytes is too much for a principle file", "split it")
        return None
    read.marked = raw.startswith(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Its positions count from after a byte order mark.
        unmarked = raw.removeprefix(codecs.BOM_UTF8)
        before = f"{unmarked[: error.start].decode('utf-8', errors='replace')}.".splitlines()
        read.refuse("C103", len(before), len(before[-1]), "not UTF-8 text", "save the file as UTF-8")
        return None
    lines = text.count("\n") + text.count("\r") - text.count("\r\n")
    if lines > MAX_FILE_LINES:
        read.refuse("C102", 0, 0, f"{lines} lines are too many for a principle file", "split it")
        return None
    if not text.strip():
        read.refuse("C104", 0, 0, "the file is empty", "a Markdown list of principles is enough")
        return None
    return text


def _read_markdown(read: ReadFile, text: str) -> Constitution | None:
    """Each bullet is a principle, the title the constitution's name, and the prose its description."""
    document = read.document = Document(text)
    control = control_character(text)
    if control is not None:
        line, column, name = control
        read.refuse("C103", line, column, f"the character {name} is not allowed", "delete it")
        return None
    found = read_markdown(text)
    for bullet in found.nested:
        hint = "begin the line at the margin to make it a principle, or write it as part of the one above"
        read.refuse("C118", bullet.line, bullet.column, "a bullet inside a bullet", hint)
    if found.too_many:
        read.refuse("C119", found.too_many, 1, f"more than {MAX_BULLETS} bullets", "split the file")
    if not found.bullets:
        read.refuse("C119", 1, 1, "no bullets", "each line that begins with `- ` is one principle")
        return None
    taken: dict[str, int] = {}
    principles: list[Principle] = []
    entries: list[dict[str, str]] = []
    effort_chars = 0
    for index, bullet in enumerate(found.bullets):
        identity = unused(first_words(bullet.text), taken)
        place = _place_of_bullet(document, bullet)
        document.places[("principles", index)] = document.places[("principles", index, "principle")] = place
        entries.append({"id": identity, "principle": bullet.text})
        read.ids.append((identity, place))
        if effort_chars > MAX_TEMPLATE_EFFORT_CHARS:
            _refuse_costly_templates(read, bullet.line, bullet.column)
            break
        found_here = _principle_of_bullet(read, bullet, identity)
        effort_chars += found_here.effort_chars
        if found_here.principle is not None:
            read.examined[index] = frozenset()
            principles.append(found_here.principle)
    document.value = {"principles": entries}
    if len(principles) < len(found.bullets):
        return None
    try:
        name = found.title or read.stem
        return Constitution(name=name, description=" ".join(found.prose), principles=tuple(principles))
    except ValidationError as error:
        for each in explain(error):
            if each.loc:
                read.refuse(each.rule, 1, 1, each.problem, each.hint)
        return None


def _place_of_bullet(document: Document, bullet: Bullet) -> Place:
    end = len(document.lines[bullet.last_line - 1])
    return Place(bullet.line, bullet.column, Span(bullet.line - 1, bullet.column - 1, bullet.last_line - 1, end))


class _ReadBullet(NamedTuple):
    """`principle` is None where something is wrong, which is told; `effort_chars` as in `Examination`."""

    principle: Principle | None = None
    effort_chars: int = 0


def _principle_of_bullet(read: ReadFile, bullet: Bullet, identity: str) -> _ReadBullet:
    if not bullet.text:
        read.refuse("C111", bullet.line, bullet.column, "an empty bullet", "write the rule after the dash, or delete the line")
        return _ReadBullet()
    try:
        principle = Principle(id=identity, principle=bullet.text)
    except ValidationError as error:
        for each in explain(error):
            read.refuse(each.rule, bullet.line, bullet.column, each.problem, each.hint)
        return _ReadBullet()
    examined = examine(bullet.text, frozenset())
    if not examined.faults:
        return _ReadBullet(principle, examined.effort_chars)
    alignment = align_bullet(read.document, bullet)
    for fault in examined.faults:
        line, column = alignment.at(fault.offset) or (bullet.line, bullet.column)
        hint = "parameters need the YAML form" if fault.rule == UNKNOWN_NAME else fault.hint
        read.refuse(fault.rule, line, column, fault.problem, hint)
    return _ReadBullet(None, examined.effort_chars)


def _read_yaml(read: ReadFile, text: str) -> Constitution | None:
    document = read.document = read_document(text)
    for each in document.problems:
        read.refuse(each.rule, each.line, each.column, each.problem, each.hint, each.loc)
    content: object = document.value
    if content is None:
        if not document.problems:
            read.refuse("C104", 0, 0, "no principles here", "begin with `name:` and `principles:`")
        return None
    if not isinstance(content, dict):
        hint = "begin with `name:` and `principles:`; a plain list of rules can be a Markdown file"
        read.refuse("C113", 1, 1, "a principle file is made of `key: value` lines", hint)
        return None
    value = {"name": read.stem, **cast("dict[str, Any]", content)}
    booleans = _refuse_booleans(read)
    for index, entry in enumerate(entries(value.get("principles"))):
        if isinstance(entry.get("id"), str):
            read.ids.append((entry["id"], document.place(("principles", index, "id"))))
    _read_templates(read, value.get("principles"))
    try:
        return Constitution.model_validate(value)
    except ValidationError as error:
        flagged = document.unreadable | booleans
        for each in explain(error, value):
            # An error of the file as a whole is an id used twice, which is told with its place.
            if each.loc and (each.loc not in flagged or each.rule == "C109"):
                place = document.place(each.loc)
                read.refuse(each.rule, place.line, place.column, each.problem, each.hint, each.loc)
        return None


def _read_templates(read: ReadFile, principles: object) -> None:
    effort_chars = 0
    for index, entry in enumerate(entries(principles)):
        if read.unread:
            read.uncounted = True
            return
        at = ("principles", index)
        if effort_chars > MAX_TEMPLATE_EFFORT_CHARS:
            place = read.document.place(at)
            _refuse_costly_templates(read, place.line, place.column)
            return
        found = check_templates(read.document, at, entry)
        effort_chars += found.effort_chars
        for each in found.problems:
            read.refuse(*each)
        read.examined[index] = frozenset(str(each.loc[-1]) for each in found.problems)


def _refuse_costly_templates(read: ReadFile, line: int, column: int) -> None:
    problem = "the templates of this file take too long to read and to fill in; from here on they are not looked at"
    read.refuse("C124", line, column, problem, "split the file, or write them as plain text")


def entries(principles: object) -> Iterable[Mapping[str, Any]]:
    """The principles of an unchecked file; what is no section counts as an empty one, so that positions stay right."""
    for entry in cast("list[object]", principles) if isinstance(principles, list) else []:
        yield cast("Mapping[str, Any]", entry) if isinstance(entry, dict) else {}


def _refuse_booleans(read: ReadFile) -> set[Loc]:
    """Nothing in a principle file is yes or no, and pydantic would take `yes` for the number 1."""
    found: set[Loc] = set()
    for path, value in _leaves(read.document.value, ()):
        if isinstance(value, bool):
            found.add(path)
            place = read.document.place(path)
            hint = "put it in quotes: YAML reads yes, no, on and off as booleans"
            read.refuse("C117", place.line, place.column, f"`{path[-1]}` is read as {value}", hint, path)
    return found


def _leaves(value: object, path: Loc) -> Iterable[tuple[Loc, object]]:
    if isinstance(value, dict):
        for key, below in cast("dict[str, object]", value).items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(cast("list[object]", value)):
            yield from _leaves(below, (*path, index))
    else:
        yield path, value
