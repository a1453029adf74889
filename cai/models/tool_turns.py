"""Conversations with tools as chat templates take them: OpenAI's form of calls, results and definitions.

Knows messages and no tokenizer. What a message says stays data in its calls, too: marks that keep control tokens apart go into
every string of the arguments and of the definitions.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from constitution.messages import Conversation, Message, Tool, ToolCall, assistant, user, with_tools

Json: TypeAlias = dict[str, Any]

_WORD = re.compile(r"[\w$. -]*", re.ASCII)
"""What schemas are made of (`object`, `$ref`), and no control token."""
_HARMLESS_TOOL = Tool(name="x", description="x")
_HARMLESS_CALL = ToolCall(name="x")

PROBE_WORDS = ("q7tool", "q7about", "q7argument", "q7value", "q7result")
"""All of them stand in what a template writes that knows tools."""


def probe() -> Conversation:
    """A small conversation in which a tool is offered, called, and gives a result."""
    name, about, argument, value, result = PROBE_WORDS
    schema = {"type": "object", "properties": {argument: {"type": "string", "description": "x"}}, "required": [argument]}
    return with_tools(
        (
            user("x"),
            Message(role="assistant", content="", tool_calls=(ToolCall(name=name, arguments=json.dumps({argument: value})),)),
            Message(role="tool", content=result, name=name),
        ),
        (Tool(name=name, description=about, parameters=json.dumps(schema)),),
    )


def definitions(tools: Sequence[Tool]) -> list[Json]:
    """Tools as `apply_chat_template(tools=…)` and OpenAI's API take them."""
    return [
        {
            "type": "function",
            "function": {"name": each.name, "description": each.description, "parameters": each.parameter_schema},
        }
        for each in tools
    ]


def template_turns(messages: Sequence[Message], *, arguments_as_text: bool = False) -> list[Json]:
    """Messages as dictionaries. A message without calls is `role` and `content` and nothing else.

    Calls get ids of nine letters and digits by their order, since Mistral's templates take no others, and results those of
    their calls.

    Args:
        messages: A conversation.
        arguments_as_text: As OpenAI's API has it; templates take objects.
    """
    turns: list[Json] = []
    open_calls: deque[tuple[str, str]] = deque()  # (id in the conversation, id in the turns), not answered yet
    number = 0
    for message in messages:
        turn: Json = {"role": message.role, "content": message.content}
        if message.tool_calls:
            open_calls.clear()
            calls: list[Json] = []
            for call in message.tool_calls:
                number += 1
                open_calls.append((call.id, f"call{number:05}"))
                arguments = call.arguments if arguments_as_text else call.values
                function = {"name": call.name, "arguments": arguments}
                calls.append({"id": open_calls[-1][1], "type": "function", "function": function})
            turn["tool_calls"] = calls
        elif message.role == "tool":
            if message.name:
                turn["name"] = message.name
            found = (
                next((each for each in open_calls if each[0] == message.tool_call_id), None) if message.tool_call_id else None
            )
            if found is not None or open_calls:
                answered = found or open_calls[0]
                open_calls.remove(answered)
                turn["tool_call_id"] = answered[1]
        turns.append(turn)
    return turns


def texts_of(messages: Sequence[Message]) -> Iterator[str]:
    """Every text that stands in messages, as it stands there."""
    for message in messages:
        yield message.content
        yield from (call.arguments for call in message.tool_calls)
        for tool in message.tools:
            yield from (tool.description, tool.parameters)


def mapped(message: Message, change: Callable[[str], str]) -> Message:
    """A message with every text in it changed: what it says, each string of its arguments, and of its tools' definitions."""
    changed: Json = {"content": change(message.content)}
    if message.tool_calls:
        changed["tool_calls"] = tuple(
            each.model_copy(update={"arguments": _mapped_json(each.arguments, change)}) for each in message.tool_calls
        )
    if message.tools:
        changed["tools"] = tuple(
            each.model_copy(
                update={"description": change(each.description), "parameters": _mapped_json(each.parameters, change)}
            )
            for each in message.tools
        )
    if message.name:
        changed["name"] = change(message.name)
    return message.model_copy(update=changed)


def harmless(message: Message) -> Message:
    """A message of the same form that says nothing: what a template writes for it, it writes by itself."""
    if not (message.tool_calls or message.tools or message.role == "tool"):
        return Message(role=message.role, content="x")
    return Message(
        role=message.role,
        content="x" if message.content or not message.tool_calls else "",
        tool_calls=(_HARMLESS_CALL,) * len(message.tool_calls),
        tools=(_HARMLESS_TOOL,) * len(message.tools),
        name="x" if message.name else "",
    )


def harmless_reply(message: Message) -> Message:
    """The same for a reply."""
    return harmless(message) if message.tool_calls else assistant("x")


def _mapped_json(text: str, change: Callable[[str], str]) -> str:
    return json.dumps(_mapped_value(json.loads(text), change), ensure_ascii=False)


def _mapped_value(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else change(value)
    if isinstance(value, list):
        return [_mapped_value(each, change) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return {_mapped_value(key, change): _mapped_value(each, change) for key, each in pairs}
    return value
