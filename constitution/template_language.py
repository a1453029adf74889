"""What a template of a principle may hold: the one jinja2 environment, its filters and its bounds.

Sandboxed, strict, bounded. The sandbox stops attribute tricks; it is no resource limit (`{{ 'a' * 300000000 }}` costs
gigabytes), so only what a prompt needs is let through (see `template_faults`), and what is left is evaluated with a bound on
every text (see `template_trees`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARS = 4000
MAX_NODES = 400
MAX_DEPTH = 40
MAX_OUTPUT_CHARS = 60_000
FILTERS = frozenset({"capitalize", "default", "join", "length", "lower", "replace", "title", "trim", "upper"})

SYNTAX, UNKNOWN_NAME, FORBIDDEN, TOO_MUCH, NOT_RENDERED = "C121", "C122", "C123", "C124", "C125"


class BadTemplateError(ValueError):
    """One thing that is wrong with a template.

    Attributes:
        rule: The id of the kind of problem, as in `PrincipleFileError`.
        problem: What is wrong.
        hint: What to do.
        offset: Where in the template's own text, in characters from 0; line ends count as one.
        line: The same as a 1-based line of that text.
        column: And the 1-based column.
    """

    def __init__(self, rule: str, problem: str, hint: str = "", *, offset: int = 0, text: str = "") -> None:
        super().__init__(problem)
        self.rule = rule
        self.problem = problem
        self.hint = hint
        self.stand(text, offset)

    def stand(self, text: str, offset: int) -> None:
        """Say where in `text` it is."""
        self.offset = offset
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - text.rfind("\n", 0, offset)


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    """The shared environment: names that are missing are errors, and only the filters of `FILTERS` exist."""
    shared = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
    known = cast("dict[str, Any]", cast("Any", shared).filters)
    shared.filters = {**{name: known[name] for name in FILTERS}, "replace": _bounded_replace, "join": _bounded_join}
    shared.globals = {}
    return shared


def _bounded_replace(text: object, old: object, new: object) -> str:
    before, old, new = str(text), str(old), str(new)
    refuse_longer(len(before) + before.count(old) * (len(new) - len(old)))
    return before.replace(old, new)


def _bounded_join(parts: Iterable[object], separator: object = "") -> str:
    texts = [str(part) for part in parts]
    refuse_longer(sum(map(len, texts)) + max(0, len(texts) - 1) * len(str(separator)))
    return str(separator).join(texts)


def refuse_longer(length: int) -> None:
    """Stop a rendering that makes a text of so many characters.

    Raises:
        BadTemplateError: If they are more than `MAX_OUTPUT_CHARS`.
    """
    if length > MAX_OUTPUT_CHARS:
        problem = f"the rendered text has {length} characters, more than {MAX_OUTPUT_CHARS}"
        raise BadTemplateError(TOO_MUCH, problem, "write it as plain text")
