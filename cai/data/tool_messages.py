"""Tools, calls and results in rows, in the forms in which people have them: OpenAI's, and that of `transformers`.

Everything that is wrong with a row's tools is told at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from cai.data.rows import TOOLS
from cai.data.text_files import kind_of
from cai.tool_calls import argument_problems, call_problems, tool_problems
from constitution.messages import Message, Tool, ToolCall, json_object, with_tools
from constitution.tool_text import as_call

_NULL_MEANS_SOMETHING = frozenset({"default", "const"})


class ToolError(ValueError):
    """What is wrong with the tools of one row, all of it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))


def looks_like_tools(value: Any) -> bool:
    """Whether a column holds definitions of tools; one that holds something else is a column like any other."""
    found = _decoded(value)
    if not isinstance(found, list) or not found:
        return False
    return all(isinstance(each, dict) for each in cast("list[Any]", found))


def parse_tools(value: Any) -> tuple[Tool, ...]:
    """Definitions as a list of objects, or as its JSON: `{"type": "function", "function": {…}}`, or the function itself.

    Nulls, with which tables fill columns up, are left out.

    Raises:
        ToolError: If there is no such list, or with what is wrong in it.
    """
    found = _decoded(value)
    if not isinstance(found, list):
        raise ToolError([f"`{TOOLS}` is {kind_of(found)}, not a list of tools"])
    tools: list[Tool] = []
    problems: list[str] = []
    for number, each in enumerate(cast("list[Any]", found), start=1):
        try:
            tools.append(_tool(_without_nulls(each)))
        except ValidationError as error:
            problems += [f"tool {number}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        except ValueError as error:
            problems.append(f"tool {number}: {error}")
        except RecursionError:
            problems.append(f"tool {number}: nested too deeply")
    problems += tool_problems(tools)
    if problems:
        raise ToolError(problems)
    return tuple(tools)


def parse_calls(value: Any) -> tuple[ToolCall, ...]:
    """The `tool_calls` of a message.

    Raises:
        ToolError: If they have no such form.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ToolError([f"`tool_calls` is {kind_of(value)}, not a list of calls"])
    calls: list[ToolCall] = []
    problems: list[str] = []
    for number, each in enumerate(cast("list[Any]", value), start=1):
        try:
            calls.append(as_call(each))
        except ValueError as error:
            problems.append(f"call {number}: {error}")
    if problems:
        raise ToolError(problems)
    return tuple(calls)


def with_checked_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The conversation with its tools, once each call in it is one of them and each result answers a call.

    Arguments that are null where the schema wants no null are left out: tables fill them in.

    Raises:
        ToolError: With what is wrong.
    """
    problems: list[str] = []
    if not tools and any(each.tool_calls or each.role == "tool" for each in messages):
        problems.append(f"a message calls tools or answers a call, and the row has no `{TOOLS}`")
    known = {each.name: each for each in tools}
    found: list[Message] = []
    waiting: dict[str, str] = {}  # id, or place, of a call → the tool's name
    for number, message in enumerate(messages, start=1):
        each = message
        if each.tool_calls:
            if each.role != "assistant":
                problems.append(f"message {number}: only the assistant calls tools, not {each.role}")
            each = each.model_copy(update={"tool_calls": tuple(_without_padding(call, known) for call in each.tool_calls)})
            if tools:
                problems += [f"message {number}: {problem}" for problem in call_problems(each.tool_calls, tools)]
            waiting = {call.id or f"#{place}": call.name for place, call in enumerate(each.tool_calls)}
        elif each.role == "tool":
            key = each.tool_call_id if each.tool_call_id in waiting else next(iter(waiting), None)
            if key is None or (each.tool_call_id and key != each.tool_call_id and not key.startswith("#")):
                problems.append(f"message {number}: a tool's result that answers no call before it")
            elif each.name not in {"", waiting[key]}:
                problems.append(f"message {number}: a result of {each.name!r} answers a call of {waiting[key]!r}")
            else:
                each = each.model_copy(update={"name": waiting[key]})
                del waiting[key]
        found.append(each)
    if problems:
        raise ToolError(problems)
    return with_tools(found, tools)


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _tool(value: Any) -> Tool:
    match value:
        case dict():
            outer = cast("dict[str, Any]", value)
        case _:
            raise ValueError(f"{kind_of(value)}, not an object")
    match function := outer.get("function", outer):
        case dict():
            fields = cast("dict[str, Any]", function)
        case _:
            raise ValueError(f"its `function` is {kind_of(function)}, not an object")
    given: dict[str, Any] = {"name": fields.get("name"), "description": fields.get("description") or ""}
    schema = fields.get("parameters", fields.get("input_schema"))
    if schema not in (None, {}):
        given["parameters"] = json_object(schema)
    return Tool.model_validate(given)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(each) for each in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return {key: _without_nulls(each) for key, each in pairs if each is not None or key in _NULL_MEANS_SOMETHING}
    return value


def _without_padding(call: ToolCall, known: Mapping[str, Tool]) -> ToolCall:
    tool, values = known.get(call.name), call.values
    if tool is None or None not in values.values() or not argument_problems(call, tool):
        return call
    bare = ToolCall(name=call.name, id=call.id, arguments=json_object({k: v for k, v in values.items() if v is not None}))
    return call if argument_problems(bare, tool) else bare
