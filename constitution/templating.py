"""The one template environment: sandboxed, strict, bounded.

Template text comes from principle files and from this package, never from a model or a user's prompt. The sandbox stops
attribute tricks; it is no resource limit (`{{ 'a' * 300000000 }}` costs gigabytes), so the syntax tree is walked first, only
what a prompt needs is let through, and what is left is evaluated (see `template_trees`) with a bound on every text.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from constitution.template_trees import EVALUATED, Evaluator

MAX_TEMPLATE_CHARS = 4000
MAX_NODES = 400
MAX_DEPTH = 40
MAX_OUTPUT_CHARS = 60_000
FILTERS = frozenset({"capitalize", "default", "join", "length", "lower", "replace", "title", "trim", "upper"})

_NAME = re.compile(r"\{\{ ?([a-z_][a-z0-9_]*) ?\}\}")
_NO_NAMES = frozenset({*keyword.kwlist, "true", "false", "none"})
"""Words that mean something to jinja2, or might."""

SYNTAX, UNKNOWN_NAME, FORBIDDEN, TOO_MUCH, NOT_RENDERED = "C121", "C122", "C123", "C124", "C125"


class BadTemplateError(ValueError):
    """A template that cannot be used. `line` is 1-based inside the template's own text; `word` is what stands wrong there.

    `rule` is the id of the kind of problem, as in `PrincipleFileError`.
    """

    def __init__(self, rule: str, problem: str, line: int, hint: str = "", word: str = "") -> None:
        super().__init__(problem)
        self.rule = rule
        self.problem = problem
        self.line = line
        self.hint = hint
        self.word = word


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
    _refuse_longer(len(before) + before.count(old) * (len(new) - len(old)))
    return before.replace(old, new)


def _bounded_join(parts: Iterable[object], separator: object = "") -> str:
    texts = [str(part) for part in parts]
    _refuse_longer(sum(map(len, texts)) + max(0, len(texts) - 1) * len(str(separator)))
    return str(separator).join(texts)


def _refuse_longer(length: int) -> None:
    if length > MAX_OUTPUT_CHARS:
        problem = f"the rendered text has {length} characters, more than {MAX_OUTPUT_CHARS}"
        raise BadTemplateError(TOO_MUCH, problem, 1, "write it as plain text")


def _plain_names(text: str) -> list[str] | None:
    """The text split at its names (text, name, text, …, text); None if it holds anything but text and `{{ name }}`.

    Nearly all templates do not, and jinja2 takes a fifth of a millisecond to parse one.
    """
    parts = _NAME.split(text)
    # n names make 2n + 1 parts and have 2n opening braces between them: one brace more is something that is no name.
    if text.count("{") != len(parts) - 1 or "\r" in text or text.endswith("\n") or not _NO_NAMES.isdisjoint(parts[1::2]):
        return None
    return parts


def is_plain(text: str) -> bool:
    """Whether a template holds nothing but text and names, and so costs next to nothing."""
    return "{" not in text or (len(text) <= MAX_TEMPLATE_CHARS and _plain_names(text) is not None)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> nodes.Template:
    return environment().parse(text)


@lru_cache(maxsize=8192)
def check_template(text: str, names: frozenset[str]) -> None:
    """Refuse a template that does not parse, uses a forbidden construct or an unknown name.

    Raises:
        BadTemplateError: With the line inside `text`.
    """
    if "{" not in text:
        return
    if len(text) > MAX_TEMPLATE_CHARS:
        problem = f"the template has {len(text)} characters, more than {MAX_TEMPLATE_CHARS}"
        raise BadTemplateError(TOO_MUCH, problem, 1, "write it as plain text")
    plain = _plain_names(text)
    if plain is not None and len(plain) < MAX_NODES // 4 and names.issuperset(plain[1::2]):
        return
    try:
        tree = _parsed(text)
    except TemplateSyntaxError as error:
        hint = "write {{ name }} for a parameter"
        raise BadTemplateError(SYNTAX, f"template syntax: {error.message}", error.lineno, hint) from error
    except RecursionError as error:
        raise _too_deep(1) from error
    except (ValueError, OverflowError) as error:
        raise BadTemplateError(SYNTAX, f"template syntax: {error}", 1, "write it as plain text") from error
    count = 0
    stack: list[tuple[nodes.Node, int]] = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if not isinstance(node, EVALUATED):
            word = type(node).__name__.lower()
            hint = "allowed are {{ names }}, simple filters and {% if %}"
            raise BadTemplateError(FORBIDDEN, f"`{word}` is not allowed in a principle", node.lineno, hint)
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            known = f"filters are {', '.join(sorted(FILTERS))}"
            raise BadTemplateError(FORBIDDEN, f"unknown filter `{node.name}`", node.lineno, known, node.name)
        if isinstance(node, nodes.Name) and node.name not in names:
            known = f"parameters here: {', '.join(sorted(names))}" if names else "this principle has no `parameters:`"
            raise BadTemplateError(UNKNOWN_NAME, f"unknown name `{node.name}`", node.lineno, known, node.name)
        if depth > MAX_DEPTH:
            raise _too_deep(node.lineno)
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())
    if count > MAX_NODES:
        problem = f"the template has {count} parts, more than {MAX_NODES}"
        raise BadTemplateError(TOO_MUCH, problem, 1, "write it as plain text")


def _too_deep(line: int) -> BadTemplateError:
    return BadTemplateError(TOO_MUCH, "the template is nested too deeply", line, "write it as plain text")


def render_text(text: str, values: Mapping[str, str | int | float]) -> str:
    """Render one text of a principle with the principle's parameters.

    Raises:
        BadTemplateError: If the text is not an allowed template or gets longer than `MAX_OUTPUT_CHARS`.
    """
    if "{" not in text:
        return text
    check_template(text, frozenset(values))
    plain = _plain_names(text)
    evaluator = Evaluator(environment(), _refuse_longer, values)
    try:
        if plain is not None:
            plain[1::2] = [str(values[name]) for name in plain[1::2]]
            rendered = "".join(plain)
        else:
            rendered = evaluator.render(_parsed(text))
    except BadTemplateError as error:
        error.line = evaluator.line
        raise
    except (ArithmeticError, TypeError, ValueError, UndefinedError) as error:
        hint = "compare and add only values of the same kind"
        problem = f"the template cannot be rendered: {error}"
        raise BadTemplateError(NOT_RENDERED, problem, evaluator.line, hint) from error
    _refuse_longer(len(rendered))
    return rendered


@lru_cache(maxsize=32)
def prompt_template(name: str) -> str:
    """The text of one of the package's own prompt templates, `templates/NAME.j2`."""
    return resources.files("constitution").joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")


def render_prompt(name: str, values: Mapping[str, str]) -> str:
    """Fill one of the package's own prompts. Values are data: `{{ }}` inside them stays as it is."""
    return Evaluator(environment(), _let_pass, values).render(_parsed(prompt_template(name))).strip()


def _let_pass(length: int) -> None:
    """The package's own prompts hold whole conversations, which have their own bounds."""
