"""Calls of tools as text, and back: one form for all models, in which replies are kept, shown, criticised and revised.

The form is that of Hermes and Qwen: what the assistant says, then each call as JSON between `<tool_call>` and `</tool_call>`.
No argument can end its own call, since within JSON the two marks are escaped. A reply in this form is a text like any other to
what compares, counts and shows texts; with the tools of its conversation it is a structured message again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from pydantic import ValidationError

from constitution.messages import JSON, Conversation, Message, Tool, ToolCall, assistant, json_object, system, tools_of, user
from constitution.templating import render_prompt

OPENED, CLOSED = "<tool_call>", "</tool_call>"
RESULT_OPENED, RESULT_CLOSED = "<tool_response>", "</tool_response>"
_MARK_IN_JSON = re.compile(r"<(?=/?tool_call>)", re.IGNORECASE)
_CALL_MARK = re.compile(r"<(?=/?tool_call>)")
_RESULT_MARK = re.compile(r"<(?=/?tool_response>)")
_ESCAPED = r"\\u003c"
_EXAMPLE = '{"name": "tool", "arguments": {"parameter": "value"}}'


@dataclass(frozen=True, slots=True)
class ReadReply:
    """A reply that was read. `problem` says why one of its calls is none ("": all are); the message is whole only without."""

    message: Message
    problem: str = ""


def call_text(call: ToolCall) -> str:
    """One call as text."""
    body = f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
    return f"{OPENED}\n{_MARK_IN_JSON.sub(_ESCAPED, body)}\n{CLOSED}"


def reply_text(message: Message) -> str:
    """An assistant's message as text; `read_reply` reads it back."""
    if not message.tool_calls:
        return message.content
    said = _CALL_MARK.sub("< ", message.content).strip()
    return "\n\n".join([*([said] if said else []), "\n".join(map(call_text, message.tool_calls))])


def read_reply(text: str) -> ReadReply:
    """What the assistant says in a reply, and what it calls. What it says between calls and after them goes before them."""
    said: list[str] = []
    calls: list[ToolCall] = []
    place = 0
    while (start := text.find(OPENED, place)) >= 0:
        said.append(text[place:start])
        body = start + len(OPENED)
        body += len(text[body:]) - len(text[body:].lstrip())
        try:
            value, end = JSON.raw_decode(text, body)
            calls.append(as_call(value))
        except (ValueError, RecursionError) as error:
            problem = f"call {len(calls) + 1} is no JSON of a name and arguments: {_brief(error)}"
            return ReadReply(assistant(text.strip()), problem)
        rest = text[end:].lstrip()
        if rest and not rest.startswith(CLOSED):
            return ReadReply(assistant(text.strip()), f"call {len(calls)} does not end with {CLOSED}")
        place = len(text) - len(rest.removeprefix(CLOSED))
    said.append(text[place:])
    if any(CLOSED in part for part in said):
        return ReadReply(assistant(text.strip()), f"a {CLOSED} ends no call")
    content = "\n\n".join(part for part in map(str.strip, said) if part)
    return ReadReply(Message(role="assistant", content=content if calls else text, tool_calls=tuple(calls)))


def as_call(value: object) -> ToolCall:
    """A call in one of the forms in which it comes as JSON: `arguments` or `parameters`, object or text, bare or in `function`.

    Raises:
        ValueError: If it is none of them.
    """
    match value:
        case dict():
            outer = cast("dict[str, Any]", value)
        case _:
            raise ValueError("a call is an object")
    inner: Any = outer.get("function", outer)
    match inner:
        case dict():
            call = cast("dict[str, Any]", inner)
        case str(name):  # as in {"type": "function", "function": "name", "parameters": …}
            call = outer | {"name": name}
        case _:
            raise ValueError("`function` of a call is an object")
    given = call.get("arguments", call.get("parameters"))
    identity = outer.get("id") or ""
    try:
        return ToolCall(
            name=cast("str", call.get("name")),
            arguments=json_object({} if given in (None, "") else given),
            id=identity if isinstance(identity, str) else str(identity),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def as_reply(text: str, tools: Sequence[Tool]) -> Message:
    """A stored reply as the assistant's message: with its calls, where its conversation has tools."""
    return read_reply(text).message if tools else assistant(text)


def as_text(conversation: Conversation) -> Conversation:
    """A conversation with tools as one without: the tools told by the system, calls and results as text of the two speakers.

    So every model can read it, whatever its chat template knows of tools. One without tools comes back as it is.
    """
    tools = tools_of(conversation)
    if not tools and not any(each.role == "tool" or each.tool_calls for each in conversation):
        return conversation
    turns: list[Message] = []
    for message in conversation:
        if message.role == "assistant":
            turns.append(assistant(reply_text(message)))
            continue
        content = result_text(message) if message.role == "tool" else message.content
        role = "user" if message.role == "tool" else message.role
        if turns and turns[-1].role == role == "user":  # results and what the user says next are one turn: speakers alternate
            turns[-1] = user(f"{turns[-1].content}\n\n{content}")
        else:
            turns.append(Message(role=role, content=content))
    if not tools:
        return tuple(turns)
    told = tools_told(tools)
    if turns[0].role == "system":
        return (system(f"{turns[0].content}\n\n{told}"), *turns[1:])
    return (system(told), *turns)


def result_text(message: Message) -> str:
    """A tool's result as text; nothing in it can end it."""
    name = f"{message.name}: " if message.name else ""
    told = _RESULT_MARK.sub("< ", f"{name}{message.content}")
    return f"{RESULT_OPENED}\n{told}\n{RESULT_CLOSED}"


@lru_cache(maxsize=256)
def tools_told(tools: tuple[Tool, ...]) -> str:
    """What a model without a place for tools in its template is told of them."""
    lines = "\n".join(
        f'{{"name": {json.dumps(each.name)}, "description": {json.dumps(each.description, ensure_ascii=False)}, '
        f'"parameters": {each.parameters}}}'
        for each in tools
    )
    return render_prompt("tools", {"tools": _CALL_MARK.sub("< ", lines), "example": _EXAMPLE})


def _brief(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:160]
