"""What is wrong with the templates of one principle, with the place in its file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from constitution.documents import Document
from constitution.documents import Path as Loc
from constitution.schema import MAX_TEXT_CHARS
from constitution.templating import BadTemplateError, check_template, is_plain, render_text

TEMPLATED = ("principle", "critique_request", "revision_request", "preference_question")


class TemplateProblem(NamedTuple):
    """1-based line and column in the file."""

    rule: str
    line: int
    column: int
    problem: str
    hint: str


def template_problems(document: Document, at: Loc, entry: Mapping[str, Any]) -> Iterable[TemplateProblem]:
    """Check every templated text of the entry at `at`, and render it once with the entry's own parameters.

    Texts that are too long for a principle are left out: that is told already, and they could take long to parse.
    """
    given: object = entry.get("parameters")
    parameters = cast("dict[str, Any]", given if isinstance(given, dict) else {})
    sound = all(isinstance(value, (str, int, float)) and len(str(value)) <= MAX_TEXT_CHARS for value in parameters.values())
    for name in TEMPLATED:
        template = entry.get(name)
        if not isinstance(template, str) or "{" not in template or len(template) > MAX_TEXT_CHARS:
            continue
        try:
            check_template(template, frozenset(parameters))
            if sound:
                render_text(template, parameters)
        except BadTemplateError as problem:
            line, column = _place(document, (*at, name), parameters, problem)
            yield TemplateProblem(problem.rule, line, column, f"`{name}`: {problem.problem}", problem.hint)


def costly_templates(entry: Mapping[str, Any]) -> int:
    """How many texts of an entry need more than names filled in."""
    texts = (entry.get(name) for name in TEMPLATED)
    return sum(isinstance(text, str) and not is_plain(text) for text in texts)


def _place(document: Document, path: Loc, parameters: Mapping[str, Any], problem: BadTemplateError) -> tuple[int, int]:
    """Line and column in the file. YAML folds lines, so the template is tried once more as its lines stand in the file."""
    place = document.place(path)
    source = document.source(path)
    if source is None:
        return place.line, place.column
    try:
        check_template(source, frozenset(parameters))
        render_text(source, parameters)
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
