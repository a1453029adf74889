"""Evaluates the syntax tree of a template, as jinja2 would, without compiling it to Python: nothing of a template is ever run
as code, every value on the way is bounded in size, and most of the time that jinja2 takes is saved.

Knows the few kinds of nodes in `EVALUATED`; refuses every other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from jinja2 import Environment, UndefinedError, nodes
from jinja2.runtime import Undefined

FAILURES = (ArithmeticError, TypeError, ValueError, UndefinedError)
"""What an operation raises that does not suit its values."""

Refuse = Callable[[int], None]
"""Is told the length of every text that comes about, and raises when it is too long."""

_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda value, whole: value in whole,
    "notin": lambda value, whole: value not in whole,
}

EVALUATED = (
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


class Evaluator:
    """Evaluates trees of one environment.

    Args:
        environment: Whose filters and undefined values are used.
        refuse: Called with the length of each text that comes about.
        values: What the names stand for.
    """

    def __init__(self, environment: Environment, refuse: Refuse, values: Mapping[str, Any]) -> None:
        self.environment: Any = environment
        self.refuse = refuse
        self.values = values
        self.made_chars = 0
        """Characters of all texts that came about on the way."""

    def render(self, tree: nodes.Template) -> str:
        """The text of a whole template.

        Raises:
            jinja2.UndefinedError: If a value is used that is not there.
            TypeError, ValueError, ArithmeticError: If an operation does not suit its values.
        """
        parts: list[str] = []
        length = 0
        for part in self._body(tree.body):
            length += len(part)
            self.refuse(length)
            parts.append(part)
        return "".join(parts)

    def failures(self, tree: nodes.Template) -> Iterator[tuple[int, Exception]]:
        """Every output and condition that cannot be evaluated, as (line, why); what such a condition decides is left out."""
        length = 0
        stack: list[nodes.Node] = [*reversed(tree.body)]
        while stack:
            node = stack.pop()
            asked = node
            try:
                if isinstance(node, nodes.Output):
                    stack.extend(reversed(node.nodes))
                elif isinstance(node, nodes.If):
                    for each in (node, *node.elif_):
                        asked = each.test
                        if self.value(asked):
                            stack.extend(reversed(each.body))
                            break
                    else:
                        stack.extend(reversed(node.else_))
                else:
                    length += len(node.data if isinstance(node, nodes.TemplateData) else str(self.value(node)))
                self.refuse(length)
            except FAILURES as error:
                yield _first_line(asked), error

    def _body(self, body: Iterable[nodes.Node]) -> Iterable[str]:
        for node in body:
            if isinstance(node, nodes.Output):
                for each in node.nodes:
                    yield each.data if isinstance(each, nodes.TemplateData) else str(self.value(each))
            else:
                assert isinstance(node, nodes.If)
                yield from self._body(self._branch(node))

    def _branch(self, node: nodes.If) -> Iterable[nodes.Node]:
        for each in (node, *node.elif_):
            if self.value(each.test):
                return each.body
        return node.else_

    def value(self, node: nodes.Node) -> Any:
        """The value of an expression."""
        value = self._value(node)
        if isinstance(value, str):
            self.made_chars += len(value)
            self.refuse(len(value))
        return value

    def _value(self, node: nodes.Node) -> Any:
        match node:
            case nodes.Const():
                value = node.value
            case nodes.Name():
                value = self.values[node.name] if node.name in self.values else self.environment.undefined(name=node.name)
            case nodes.Filter():
                value = self._filtered(node)
            case nodes.CondExpr():
                value = self._conditional(node)
            case nodes.Compare():
                value = self._compared(node)
            case nodes.And():
                value = self.value(node.left) and self.value(node.right)
            case nodes.Or():
                value = self.value(node.left) or self.value(node.right)
            case nodes.Not():
                value = not self.value(node.node)
            case nodes.Add():
                value = self.value(node.left) + self.value(node.right)
            case nodes.Sub():
                value = self.value(node.left) - self.value(node.right)
            case nodes.Neg():
                value = -self.value(node.node)
            case _:
                assert isinstance(node, nodes.Concat)
                parts = [str(self.value(each)) for each in node.nodes]
                self.refuse(sum(map(len, parts)))
                value = "".join(parts)
        return value

    def _filtered(self, node: nodes.Filter) -> Any:
        assert node.node is not None
        value = self.value(node.node)
        arguments = [self.value(each) for each in node.args]
        if node.dyn_args is not None:
            arguments += self.value(node.dyn_args)
        named = cast("dict[str, Any]", {} if node.dyn_kwargs is None else {**self.value(node.dyn_kwargs)})
        return self.environment.filters[node.name](value, *arguments, **named)

    def _conditional(self, node: nodes.CondExpr) -> Any:
        if self.value(node.test):
            return self.value(node.expr1)
        if node.expr2 is not None:
            return self.value(node.expr2)
        return Undefined("the condition is not met, and there is no else")  # which jinja2 writes as an empty text

    def _compared(self, node: nodes.Compare) -> Any:
        left = self.value(node.expr)
        result: Any = True
        for operand in node.ops:
            right = self.value(operand.expr)
            result = _COMPARISONS[operand.op](left, right)
            if not result:
                return result
            left = right
        return result


def _first_line(node: nodes.Node) -> int:
    """Where an expression begins: jinja2 gives some operations the line of what follows their first operand."""
    lines: list[int] = []
    stack = [node]
    while stack:
        each = stack.pop()
        lines += [each.lineno] if cast("int | None", each.lineno) else []
        stack.extend(each.iter_child_nodes())
    return min(lines, default=1)
