"""Whether calls of tools are what their tools take, by JSON Schema. Loads no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cai.json_schema import argument_faults, schema_problem
from constitution.messages import Message, Tool, ToolCall
from constitution.tool_text import read_reply, reply_text

MOST_CALLS = 64
"""In one reply."""
LARGEST_ARGUMENTS = 100_000
"""Characters of the arguments of one call."""


@dataclass(frozen=True, slots=True)
class CheckedReply:
    """A reply to a conversation with tools.

    Args:
        text: With its calls in the form in which replies are kept; as it was where `problem` is not "".
        message: It as the assistant's message.
        problem: Why one of its calls cannot be made; "": all can.
    """

    text: str
    message: Message
    problem: str = ""


def checked_reply(text: str, tools: Sequence[Tool]) -> CheckedReply:
    """Read a reply's calls, and see whether each is of a tool that there is, with arguments that fit its schema."""
    found = read_reply(text)
    if found.problem:
        return CheckedReply(text, found.message, found.problem)
    problem = next(call_problems(found.message.tool_calls, tools), "")
    return CheckedReply(text if problem else reply_text(found.message), found.message, problem)


def call_problems(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> Iterator[str]:
    """What keeps calls from being made, in words."""
    if len(calls) > MOST_CALLS:
        yield f"{len(calls)} calls in one reply; {MOST_CALLS} are read"
        return
    known = {each.name: each for each in tools}
    for call in calls:
        tool = known.get(call.name)
        if tool is None:
            yield f"there is no tool {call.name!r}; there are {', '.join(known) or 'none'}"
        else:
            yield from (f"{call.name}: {problem}" for problem in argument_problems(call, tool))


def argument_problems(call: ToolCall, tool: Tool) -> list[str]:
    """How the arguments of a call break the schema of its tool, with the place of each fault."""
    if len(call.arguments) > LARGEST_ARGUMENTS:
        return [f"{len(call.arguments):,} characters of arguments; {LARGEST_ARGUMENTS:,} are read"]
    return argument_faults(call.values, tool.parameters)


def tool_problems(tools: Sequence[Tool]) -> Iterator[str]:
    """What keeps tools from being offered: a name twice, a schema that is none or does not speak of an object."""
    names = [each.name for each in tools]
    yield from (f"the tool {name!r} is defined twice" for name in dict.fromkeys(names) if names.count(name) > 1)
    for tool in tools:
        schema = tool.parameter_schema
        if problem := schema_problem(schema):
            yield f"the tool {tool.name!r}: its parameters: {problem}"
        elif schema.get("type", "object") != "object":
            yield f"the tool {tool.name!r}: its parameters have to be of type object, not {schema['type']!r}"
