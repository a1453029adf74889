"""Checks and renders the templates of principles.

Template text comes from principle files and from this package, never from a model or a user's prompt. What it may hold is in
`template_language`, what is wrong with one is found by `template_faults`, and how it is evaluated is in `template_trees`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from jinja2 import TemplateSyntaxError, nodes

from constitution.template_faults import is_sound, placed_tree, template_faults, without_faulty_tags
from constitution.template_language import (
    MAX_NODES,
    MAX_OUTPUT_CHARS,
    MAX_TEMPLATE_CHARS,
    NOT_RENDERED,
    TOO_MUCH,
    BadTemplateError,
    environment,
    refuse_longer,
)
from constitution.template_trees import FAILURES, Evaluator

__all__ = [
    "MAX_OUTPUT_CHARS",
    "MAX_TEMPLATE_CHARS",
    "BadTemplateError",
    "Examination",
    "check_template",
    "environment",
    "examine",
    "prompt_template",
    "render_prompt",
    "render_text",
]

Values = Mapping[str, str | int | float]

_NAME = re.compile(r"\{\{ ?([a-z_][a-z0-9_]*) ?\}\}")
_NO_NAMES = frozenset({*keyword.kwlist, "true", "false", "none"})
"""Words that mean something to jinja2, or might."""


def _plain_names(text: str) -> list[str] | None:
    """The text split at its names (text, name, text, …, text); None if it holds anything but text and `{{ name }}`.

    Nearly all templates do not, and jinja2 takes a fifth of a millisecond to parse one.
    """
    parts = _NAME.split(text)
    # n names make 2n + 1 parts and have 2n opening braces between them: one brace more is something that is no name.
    if text.count("{") != len(parts) - 1 or "\r" in text or text.endswith("\n") or not _NO_NAMES.isdisjoint(parts[1::2]):
        return None
    return parts


def _is_plain(text: str, names: frozenset[str]) -> bool:
    """Whether a template is sound and holds nothing but text and a few of `names`: then it costs next to nothing."""
    if "{" not in text:
        return True
    plain = _plain_names(text) if len(text) <= MAX_TEMPLATE_CHARS else None
    return plain is not None and len(plain) < MAX_NODES // 4 and names.issuperset(plain[1::2])


@lru_cache(maxsize=1024)
def _parsed(text: str) -> nodes.Template:
    return environment().parse(text)


@lru_cache(maxsize=8192)
def check_template(text: str, names: frozenset[str]) -> None:
    """Refuse a template that does not parse, uses a forbidden construct or an unknown name.

    Raises:
        BadTemplateError: With the first thing that is wrong; `examine` tells them all.
    """
    faults = () if _is_plain(text, names) else _faults(_as_jinja2_reads(text), names)
    if faults:
        raise faults[0]


class Examination(NamedTuple):
    """What is wrong with a template, in order of place; and what it took to find out, about in characters read and written."""

    faults: Sequence[BadTemplateError]
    effort_chars: int


def examine(text: str, names: frozenset[str], values: Values | None = None) -> Examination:
    """Find everything that is wrong with a template.

    Args:
        text: The template.
        names: What may be filled in.
        values: With these it is rendered, too; where something is wrong already, as much of it as can be.
    """
    plain = _is_plain(text, names)
    if plain and values is None:
        return Examination((), 0)
    text = _as_jinja2_reads(text)
    faults = [] if plain else [*_faults(text, names)]
    effort = 0 if plain else (len(text) + _EFFORT_OF_ANY_CHARS) * (_EFFORT_OF_FAULTS if faults else 1)
    sound = text if not faults else None if len(text) > MAX_TEMPLATE_CHARS else without_faulty_tags(text, faults)
    if values is not None and sound is not None:
        evaluator = Evaluator(environment(), refuse_longer, values)
        try:
            _render(sound, values, evaluator)
        except BadTemplateError:
            faults += _failures(text, sound, evaluator)
            effort += len(text) * _EFFORT_OF_FAULTS
        effort += evaluator.made_chars
    return Examination(sorted(faults, key=lambda fault: fault.offset), effort)


_EFFORT_OF_FAULTS = 3
"""To find every fault a text is read up to three times."""

_EFFORT_OF_ANY_CHARS = 50
"""What even the shortest costs."""


def _as_jinja2_reads(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _faults(text: str, names: frozenset[str]) -> Sequence[BadTemplateError]:
    """What is wrong before rendering; a template that is sound is only parsed and walked once."""
    if len(text) > MAX_TEMPLATE_CHARS:
        problem = f"the template has {len(text)} characters, more than {MAX_TEMPLATE_CHARS}"
        return (BadTemplateError(TOO_MUCH, problem, "write it as plain text"),)
    try:
        if is_sound(_parsed(text), names):
            return ()
    except (TemplateSyntaxError, RecursionError, ValueError, OverflowError):
        pass  # found again, with its place
    return template_faults(text, names)


def _failures(text: str, sound: str, evaluator: Evaluator) -> Iterator[BadTemplateError]:
    """Why a template cannot be rendered: each part that fails, with its place."""
    hint = "compare and add only values of the same kind"
    for place, error in evaluator.failures(placed_tree(sound)):
        if isinstance(error, BadTemplateError):
            error.stand(text, place - 1)
            yield error
        else:
            problem = f"the template cannot be rendered: {error}"
            yield BadTemplateError(NOT_RENDERED, problem, hint, offset=place - 1, text=text)


def render_text(text: str, values: Values) -> str:
    """Render one text of a principle with the principle's parameters.

    Raises:
        BadTemplateError: If the text is not an allowed template or gets longer than `MAX_OUTPUT_CHARS`.
    """
    if "{" not in text:
        return text
    check_template(text, frozenset(values))
    return _render(text, values, Evaluator(environment(), refuse_longer, values))


def _render(text: str, values: Values, evaluator: Evaluator) -> str:
    plain = _plain_names(text)
    try:
        if plain is not None:
            plain[1::2] = [str(values[name]) for name in plain[1::2]]
            refuse_longer(sum(map(len, plain)))
            return "".join(plain)
        return evaluator.render(_parsed(text))
    except BadTemplateError:
        raise
    except FAILURES as error:
        raise BadTemplateError(NOT_RENDERED, f"the template cannot be rendered: {error}") from error


@lru_cache(maxsize=32)
def prompt_template(name: str) -> str:
    """The text of one of the package's own prompt templates, `templates/NAME.j2`."""
    return resources.files("constitution").joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")


def render_prompt(name: str, values: Mapping[str, str]) -> str:
    """Fill one of the package's own prompts. Values are data: `{{ }}` inside them stays as it is."""
    return Evaluator(environment(), _let_pass, values).render(_parsed(prompt_template(name))).strip()


def _let_pass(length: int) -> None:
    """The package's own prompts hold whole conversations, which have their own bounds."""
