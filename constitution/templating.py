"""The one template environment: sandboxed, strict, bounded.

Template text comes from principle files and from this package, never from a model or a user's prompt. The sandbox stops
attribute tricks; it is no resource limit (`{{ 'a' * 300000000 }}` costs gigabytes), so the syntax tree is walked first and
only what a prompt needs is let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_NODES = 400
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


class TemplateProblem(ValueError):
    """A template that cannot be used. `line` is 1-based inside the template's own text."""

    def __init__(self, problem: str, line: int, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.hint = hint


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    """The shared environment: names that are missing are errors, and only the filters of `FILTERS` exist."""
    shared = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
    shared.filters = {name: function for name, function in shared.filters.items() if name in FILTERS}
    shared.globals = {}
    return shared


@lru_cache(maxsize=8192)
def check_template(text: str, names: frozenset[str]) -> None:
    """Refuse a template that does not parse, uses a forbidden construct or an unknown name.

    Raises:
        TemplateProblem: With the line inside `text`.
    """
    if "{" not in text:
        return
    try:
        tree = environment().parse(text)
    except TemplateSyntaxError as error:
        raise TemplateProblem(f"template syntax: {error.message}", error.lineno, "write {{ name }} for a parameter") from error
    count = 0
    stack: list[nodes.Node] = [tree]
    while stack:
        node = stack.pop()
        count += 1
        if not isinstance(node, ALLOWED_NODES):
            raise TemplateProblem(
                f"`{type(node).__name__.lower()}` is not allowed in a principle",
                node.lineno,
                "allowed are {{ names }}, simple filters and {% if %}",
            )
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            raise TemplateProblem(f"unknown filter `{node.name}`", node.lineno, f"filters are {', '.join(sorted(FILTERS))}")
        if isinstance(node, nodes.Name) and node.name not in names:
            known = f"parameters here: {', '.join(sorted(names))}" if names else "this principle has no `parameters:`"
            raise TemplateProblem(f"unknown name `{node.name}`", node.lineno, known)
        stack.extend(node.iter_child_nodes())
    if count > MAX_NODES:
        raise TemplateProblem(f"the template has {count} parts, more than {MAX_NODES}", 1, "write it as plain text")


def names_in(text: str) -> frozenset[str]:
    """The names a template asks for."""
    return frozenset(meta.find_undeclared_variables(environment().parse(text)))


def render_text(text: str, values: Mapping[str, str | int | float]) -> str:
    """Render one text of a principle with the principle's parameters.

    Raises:
        TemplateProblem: If the text is not an allowed template or gets longer than `MAX_OUTPUT_CHARS`.
    """
    if "{" not in text:
        return text
    check_template(text, frozenset(values))
    try:
        rendered = environment().from_string(text).render(values)
    except (TypeError, ValueError, UndefinedError) as error:
        raise TemplateProblem(f"the template cannot be rendered: {error}", 1) from error
    if len(rendered) > MAX_OUTPUT_CHARS:
        raise TemplateProblem(f"the rendered text has {len(rendered)} characters, more than {MAX_OUTPUT_CHARS}", 1)
    return rendered


@lru_cache(maxsize=32)
def prompt_template(name: str) -> str:
    """The text of one of the package's own prompt templates, `templates/NAME.j2`."""
    return resources.files("constitution").joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")


def render_prompt(name: str, values: Mapping[str, str]) -> str:
    """Fill one of the package's own prompts. Values are data: `{{ }}` inside them stays as it is."""
    return environment().from_string(prompt_template(name)).render(values).strip()
