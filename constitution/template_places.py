"""What is wrong with the templates of one principle, with the place in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from constitution.alignment import align_text
from constitution.documents import Document
from constitution.documents import Path as Loc
from constitution.schema import MAX_TEXT_CHARS
from constitution.templating import examine

TEMPLATED = ("principle", "critique_request", "revision_request", "preference_question")


class TemplateProblem(NamedTuple):
    """1-based line and column in the file; `loc` leads to the text."""

    rule: str
    line: int
    column: int
    problem: str
    hint: str
    loc: Loc


class TemplateCheck(NamedTuple):
    """Every problem of an entry's templates, text by text and in order; `effort_chars` as in `Examination`."""

    problems: Sequence[TemplateProblem]
    effort_chars: int


def check_templates(document: Document, at: Loc, entry: Mapping[str, Any]) -> TemplateCheck:
    """Check every templated text of the entry at `at`, and render it once with the entry's own parameters.

    Texts that are too long for a principle are left out: that is told already, and they could take long to parse.
    """
    given: object = entry.get("parameters")
    parameters = cast("dict[str, Any]", given if isinstance(given, dict) else {})
    sound = all(isinstance(value, (str, int, float)) and len(str(value)) <= MAX_TEXT_CHARS for value in parameters.values())
    problems: list[TemplateProblem] = []
    effort_chars = 0
    for name in TEMPLATED:
        template = entry.get(name)
        if not isinstance(template, str) or "{" not in template or len(template) > MAX_TEXT_CHARS:
            continue
        found = examine(template, frozenset(parameters), parameters if sound else None)
        effort_chars += found.effort_chars
        if found.faults:
            loc = (*at, name)
            place = document.place(loc)
            alignment = align_text(document, place, template)
            for fault in found.faults:
                line, column = alignment.at(fault.offset) or (place.line, place.column)
                problems.append(TemplateProblem(fault.rule, line, column, f"`{name}`: {fault.problem}", fault.hint, loc))
    return TemplateCheck(problems, effort_chars)
