"""Calls of tools as the families of models write them → the one form in which replies are kept (`constitution.tool_text`).

Pure text. Hermes and Qwen write that form themselves; Mistral writes `[TOOL_CALLS]` and a list, or a name and `[ARGS]`; Llama 3
writes bare JSON, with or without `<|python_tag|>`. Where a tokenizer brings a `response_template`, transformers reads the calls
(`cai.models.chat`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from constitution.messages import JSON, TOOL_NAME, Message, Tool, ToolCall
from constitution.tool_text import CLOSED, OPENED, as_call, read_reply, reply_text

_MISTRAL, _ARGS, _CALL_ID, _LLAMA = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"
CALL_MARKS = frozenset({OPENED, CLOSED, _MISTRAL, _ARGS, _CALL_ID, _LLAMA})
"""Texts of tokens without which calls cannot be told from what is said."""

_MARK = re.compile("|".join(map(re.escape, (OPENED, CLOSED, _MISTRAL, _LLAMA))))
_BEGUN = re.compile(rf'\s*\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>{TOOL_NAME.pattern})"')
"""How a call begins that has no mark, as Llama writes it."""


def one_form(text: str, tools: Sequence[Tool]) -> str:
    """A reply in a conversation with tools, its calls in the form in which replies are kept.

    The first mark says whose form it is: a later one may stand in an argument. What was meant as a call and is none keeps a
    mark that nothing closes, so that whoever reads the reply finds the fault.
    """
    first = _MARK.search(text)
    if first is None:
        return _bare(text, {each.name for each in tools})
    if first[0] in {OPENED, CLOSED}:
        found = read_reply(text)
        return text if found.problem else reply_text(found.message)
    rest = text[first.end() :]
    return _kept(text[: first.start()], _mistral_calls(rest) if first[0] == _MISTRAL else _llama_calls(rest), rest)


def _bare(text: str, names: set[str]) -> str:
    """A reply without marks. JSON is calls only where they are of tools that there are; else it is an answer in JSON."""
    calls = _llama_calls(text) if text.lstrip().startswith("{") else None
    if calls and all(call.name in names for call in calls):
        return _kept("", calls, text)
    begun = None if calls else _BEGUN.match(text)
    return _kept("", None, text) if begun is not None and begun["name"] in names else text


def _kept(content: str, calls: Sequence[ToolCall] | None, rest: str) -> str:
    if not calls:
        return f"{content.strip()}\n\n{OPENED}\n{rest.strip()}".strip()
    return reply_text(Message(role="assistant", content=content.strip(), tool_calls=tuple(calls)))


def _mistral_calls(rest: str) -> list[ToolCall] | None:
    """A list of calls; or a name, `[ARGS]` and an object, with the mark between one and the next."""
    calls: list[ToolCall] = []
    try:
        if _ARGS not in rest or rest.lstrip().startswith(("[", "{")):
            value = JSON.decode(rest.strip())
            return [as_call(each) for each in (cast("list[Any]", value) if isinstance(value, list) else [value])]
        while rest:
            name, _, arguments = rest.removeprefix(_MISTRAL).partition(_ARGS)
            arguments = arguments.lstrip()
            value, end = JSON.raw_decode(arguments)
            calls.append(as_call({"name": name.partition(_CALL_ID)[0].strip(), "arguments": value}))
            rest = arguments[end:].lstrip()
            if rest and not rest.startswith(_MISTRAL):
                return None
    except (ValueError, RecursionError):
        return None
    return calls


def _llama_calls(rest: str) -> list[ToolCall] | None:
    """Objects after one another, with `;` or a new line between."""
    calls: list[ToolCall] = []
    try:
        while rest := rest.lstrip(" \t\r\n;"):
            value, end = JSON.raw_decode(rest)
            calls.append(as_call(value))
            rest = rest[end:]
    except (ValueError, RecursionError):
        return None
    return calls
