"""The one template environment: sandboxed, strict, bounded.

Template text comes from principle files and from this package, never from a model or a user's prompt. The sandbox stops
attribute tricks; it is no resource limit (`{{ 'a' * 300000000 }}` costs gigabytes), so the syntax tree is walked first, only
what a prompt needs is let through, and the filters that can make a text longer refuse to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, cast

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_NODES = 400
MAX_DEPTH = 40
MAX_OUTPUT_CHARS = 60_000
FILTERS = frozenset({"capitalize", "default", "join", "length", "lower", "replace", "title", "trim", "upper"})
ALLOWED_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Filter,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Sub,
    nodes.Concat,
    nodes.Neg,
)


class BadTemplateError(ValueError):
    """A template that cannot be used. `line` is 1-based inside the template's own text; `word` is what stands wrong there."""

    def __init__(self, problem: str, line: int, hint: str = "", word: str = "") -> None:
        super().__init__(problem)
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
        raise BadTemplateError(f"the rendered text has {length} characters, more than {MAX_OUTPUT_CHARS}", 1)


@lru_cache(maxsize=8192)
def check_template(text: str, names: frozenset[str]) -> None:
    """Refuse a template that does not parse, uses a forbidden construct or an unknown name.

    Raises:
        BadTemplateError: With the line inside `text`.
    """
    if "{" not in text:
        return
    try:
        tree = environment().parse(text)
    except TemplateSyntaxError as error:
        raise BadTemplateError(f"template syntax: {error.message}", error.lineno, "write {{ name }} for a parameter") from error
    except RecursionError as error:
        raise BadTemplateError("the template is nested too deeply", 1, "write it as plain text") from error
    count = 0
    stack: list[tuple[nodes.Node, int]] = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if not isinstance(node, ALLOWED_NODES):
            raise BadTemplateError(
                f"`{type(node).__name__.lower()}` is not allowed in a principle",
                node.lineno,
                "allowed are {{ names }}, simple filters and {% if %}",
            )
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            known = f"filters are {', '.join(sorted(FILTERS))}"
            raise BadTemplateError(f"unknown filter `{node.name}`", node.lineno, known, node.name)
        if isinstance(node, nodes.Name) and node.name not in names:
            known = f"parameters here: {', '.join(sorted(names))}" if names else "this principle has no `parameters:`"
            raise BadTemplateError(f"unknown name `{node.name}`", node.lineno, known, node.name)
        if depth > MAX_DEPTH:
            raise BadTemplateError("the template is nested too deeply", node.lineno, "write it as plain text")
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())
    if count > MAX_NODES:
        raise BadTemplateError(f"the template has {count} parts, more than {MAX_NODES}", 1, "write it as plain text")


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Template:
    return environment().from_string(text)


def render_text(text: str, values: Mapping[str, str | int | float]) -> str:
    """Render one text of a principle with the principle's parameters.

    Raises:
        BadTemplateError: If the text is not an allowed template or gets longer than `MAX_OUTPUT_CHARS`.
    """
    if "{" not in text:
        return text
    check_template(text, frozenset(values))
    try:
        rendered = _compiled(text).render(values)
    except BadTemplateError:
        raise
    except (TypeError, ValueError, UndefinedError) as error:
        raise BadTemplateError(f"the template cannot be rendered: {error}", 1) from error
    _refuse_longer(len(rendered))
    return rendered


@lru_cache(maxsize=32)
def prompt_template(name: str) -> str:
    """The text of one of the package's own prompt templates, `templates/NAME.j2`."""
    return resources.files("constitution").joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")


def render_prompt(name: str, values: Mapping[str, str]) -> str:
    """Fill one of the package's own prompts. Values are data: `{{ }}` inside them stays as it is."""
    return _compiled(prompt_template(name)).render(values).strip()
