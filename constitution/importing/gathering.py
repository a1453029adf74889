"""Collects what a format's reader finds: principles that are sound, and everything that could not be carried over.

Imported text is data: braces in it that jinja2 would read are escaped, so that it is rendered as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from constitution.documents import Path
from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.explaining import explain
from constitution.ids import unused
from constitution.importing.findings import Fate, Loss, where
from constitution.importing.naming import slug, telling
from constitution.importing.sources import Source
from constitution.schema import MAX_PROSE_CHARS, MAX_TEXT_CHARS, Demonstration, Principle, PrincipleTest
from constitution.template_places import TEMPLATED
from constitution.templating import examine

AS_GIVEN = "_as_given"
"""Ends the `source` key that holds a text whose outer space a principle file does not keep."""

NAME = "name"
"""The `source` key of a principle's own name, where its id cannot be it."""

MAX_PRINCIPLES = 5000
"""That one principle file is made of: more take many seconds to load, each time."""

MAX_DESCRIPTION_CHARS = MAX_PROSE_CHARS - 1000
"""What a file may say in prose; the rest of the description is for where it comes from."""

_Entry = TypeVar("_Entry", PrincipleTest, Demonstration)
_BRACES = re.compile(r"\{[{%#]|\{?\r")
_KEY = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_KINDS: dict[object, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def inert(text: str) -> str:
    """`text` as a template that renders to it: no brace in it is markup."""
    if "{" not in text:
        return text
    # jinja2 would write every line end as \n.
    return _BRACES.sub(lambda found: "{{ '" + found[0].replace("\r", "\\r") + "' }}", text)


def kind_of(value: object) -> str:
    """What a value of JSON or YAML is, in words."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


@dataclass
class Gathering:
    """Begins empty; a format's reader fills it. `taken` are ids used already, in this file or in one read before it."""

    source: Source
    taken: dict[str, int] = field(default_factory=dict[str, int])
    principles: list[Principle] = field(default_factory=list[Principle])
    losses: list[Loss] = field(default_factory=list[Loss])
    remarks: list[str] = field(default_factory=list[str])
    entries: int = 0
    name: str = ""
    description: str = ""
    about: dict[str, str] = field(default_factory=dict[str, str])
    """What the file as a whole says besides; it becomes the constitution's `source`."""
    original: object = None
    """The data to compare with on the way back; by default that of the source."""

    returns: bool = True
    """Whether the format's writer can give such a file again."""

    def lose(self, path: Path, what: str, fate: Fate) -> None:
        place = self.source.place(path)
        self.lose_at(place.line, place.column, what, fate, where(path))

    def lose_at(self, line: int, column: int, what: str, fate: Fate, at: str = "") -> None:
        self.losses.append(Loss(str(self.source.path), line, column, at, what, fate))

    def remember(
        self, key: str, text: str, *, line: int = 1, column: int = 1, at: str = "", into: dict[str, str] | None = None
    ) -> bool:
        """Keep a text for the way back: under the `source` of a principle (`into`), else of the constitution.

        Returns:
            Whether it fits there; if not, that is in `losses`.
        """
        if len(text) > MAX_PROSE_CHARS:
            told = f"`source.{key}` would have {len(text)} characters, more than {MAX_PROSE_CHARS}: it does not come back"
            self.lose_at(line, column, told, Fate.PART, at)
            return False
        (self.about if into is None else into)[key] = text
        return True

    def describe(self, text: str, line: int, *, what: str, fate: Fate = Fate.PART, at: str = "") -> bool:
        """Add prose to the description. Where it has no more room, `what` becomes of it `fate`.

        Returns:
            Whether there was room; if not, that is in `losses`.
        """
        if len(self.description) + len("\n\n") + len(text) > MAX_DESCRIPTION_CHARS:
            self.lose_at(line, 1, f"{what}, and the description has no more room", fate, at)
            return False
        self.description = f"{self.description}\n\n{text}".strip()
        return True

    def entitle(self, title: str, line: int) -> None:
        """Name the constitution; a title that is no name is told, and the file's name is used."""
        if len(title) > MAX_TEXT_CHARS:
            self.lose_at(line, 1, f"the title has {len(title)} characters, more than {MAX_TEXT_CHARS}", Fate.PART)
        else:
            self.name = title

    def text(self, path: Path, entry: Mapping[str, Any], key: str) -> str | None:
        """A text that an entry has to have; None when it has not, and the entry is left out."""
        value = entry.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if key not in entry:
            self.lose(path, f"`{key}` is missing", Fate.ENTRY)
        else:
            told = "is empty" if isinstance(value, str) else f"is {kind_of(value)}, not a text"
            self.lose((*path, key), f"`{key}` {told}", Fate.ENTRY)
        return None

    def objects(self, path: Path, entries: object) -> list[tuple[Path, Mapping[str, Any]]]:
        """The entries of a list that are objects, each with its path; the others are left out."""
        found: list[tuple[Path, Mapping[str, Any]]] = []
        for index, entry in enumerate(cast("list[object]", entries) if isinstance(entries, list) else []):
            self.entries += 1
            if isinstance(entry, dict):
                found.append(((*path, index), cast("Mapping[str, Any]", entry)))
            else:
                self.lose((*path, index), f"{kind_of(entry)} where an object is expected", Fate.ENTRY)
        return found

    def extras(
        self, path: Path, entry: Mapping[str, Any], known: Set[str], unused_here: Set[str] = frozenset()
    ) -> dict[str, str]:
        """Keys that the format does not name, and those it names but nothing here uses: kept verbatim where they are texts."""
        kept: dict[str, str] = {}
        for key, value in entry.items():
            if key in known:
                continue
            fits = isinstance(value, str) and len(value) <= MAX_PROSE_CHARS and _KEY.fullmatch(key) and key != NAME
            if fits and not key.endswith(AS_GIVEN):
                kept[key] = cast("str", value)
                told = f"`{key}` means nothing here" if key in unused_here else f"`{key}` is no key of this format"
                self.lose((*path, key), told, Fate.UNUSED)
            else:
                self.lose((*path, key), f"`{key}` ({kind_of(value)}) has no place in a principle file", Fate.PART)
        return kept

    def add(
        self, path: Path, *, words: str, name: str | None = None, source: dict[str, str] | None = None, **given: Any
    ) -> bool:
        """Add a principle made of `given`, its texts escaped. Its id comes from `name`, else from `words`.

        Returns:
            Whether it was sound; if not, the reasons are in `losses`.
        """
        place = self.source.place(path)
        return self.add_at(place.line, place.column, words=words, name=name, source=source, at=where(path), **given)

    def add_at(
        self,
        line: int,
        column: int,
        *,
        words: str,
        name: str | None = None,
        source: dict[str, str] | None = None,
        at: str = "",
        **given: Any,
    ) -> bool:
        """As `add`, for a place in a text."""
        if len(self.principles) >= MAX_PRINCIPLES:
            problem = f"more than {MAX_PRINCIPLES} principles"
            raise ConstitutionError([PrincipleFileError(str(self.source.path), line, column, problem, "split the file")])
        about = dict(source or {})
        fields: dict[str, Any] = dict(given)
        remembered: dict[str, str] = {}
        for key in TEMPLATED:
            if isinstance(text := fields.get(key), str):
                fields[key] = inert(text.strip())
                if text != text.strip():
                    remembered[key + AS_GIVEN] = text
        wished = (slug(name) if name else "") or telling(words)
        problems = list(_problems({"id": wished or "principle", "source": about, **fields}))
        for problem in problems:
            self.lose_at(line, column, problem, Fate.ENTRY, at)
        if problems:
            return False
        identity = unused(wished, self.taken)
        if name is not None and name != identity:
            remembered[NAME] = name
        for key, text in remembered.items():
            self.remember(key, text, line=line, column=column, at=at, into=about)
        if about:
            fields["source"] = about
        self.principles.append(Principle(id=identity, **fields))
        return True

    def test(self, path: Path, **given: str) -> PrincipleTest | None:
        """A unit test of a principle, or None when a text does not fit."""
        return self._checked(path, PrincipleTest, given)

    def demonstration(self, path: Path, **given: str) -> Demonstration | None:
        """A worked example, or None when a text does not fit."""
        return self._checked(path, Demonstration, given)

    def _checked(self, path: Path, model: type[_Entry], given: dict[str, str]) -> _Entry | None:
        try:
            return model(**given)
        except ValidationError as error:
            for each in explain(error):
                self.lose(path, each.problem, Fate.ENTRY)
            return None


def _problems(fields: dict[str, Any]) -> list[str]:
    found: list[str] = []
    try:
        Principle(**fields)
    except ValidationError as error:
        found += [each.problem for each in explain(error)]
    for key in TEMPLATED:
        found += [f"`{key}`: {fault.problem}" for fault in examine(fields.get(key) or "", frozenset()).faults]
    return found
