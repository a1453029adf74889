"""Messages and conversations: the currency of both packages.

Knows the roles and shape of a conversation, and what a call of a tool is; knows nothing of models, templates or files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_.:/-]{1,64}")
"""No name of a tool can be read as a control token, or end a JSON string."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


DEEPEST = 64
"""Levels of arguments and of schemas. Whoever walks through them may recurse."""
JSON = json.JSONDecoder(parse_constant=_no_constant)
"""Strict: no NaN, no Infinity."""


def json_object(value: object) -> str:
    """A JSON object, given as such or as its text, as text in one spelling; the order of its keys is kept.

    Raises:
        ValueError: If it is no JSON object, is nested more than `DEEPEST` levels, or has no UTF-8 form.
    """
    try:
        found: object = JSON.decode(value) if isinstance(value, str) else value
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair, which has no UTF-8 form") from None
    except TypeError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not text.startswith("{"):
        raise ValueError("not a JSON object")
    if _levels(found) > DEEPEST:
        raise ValueError(f"nested too deeply: more than {DEEPEST} levels")
    return text


def _levels(value: object) -> int:
    """How deep objects and lists of JSON stand in one another; no recursion, which strangers' data would exhaust."""
    level, count = [value], 0
    while inner := [one for each in level for one in _inside(each)]:
        level, count = inner, count + 1
    return count


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _object(text: str) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(text))


JsonObject: TypeAlias = Annotated[str, BeforeValidator(json_object)]
"""The text of a JSON object. Text, and not a dictionary, so that messages are frozen all through and can be keys."""
ToolName: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{TOOL_NAME.pattern}$")]


class _Sparse(BaseModel):
    """Fields that hold nothing are neither stored nor shown: a message without tools is written as it ever was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        values = cast("dict[str, Any]", handler(self))
        return {name: value for name, value in values.items() if value or name not in fields or fields[name].is_required()}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        fields = type(self).model_fields
        return ((name, getattr(self, name)) for name in fields if getattr(self, name) or fields[name].is_required())


class ToolCall(_Sparse):
    """That the assistant calls a tool. `arguments` is a JSON object as text, as OpenAI's API has it."""

    name: ToolName
    arguments: JsonObject = "{}"
    id: str = ""
    """By which a result names the call; "" where they go by their order."""

    @property
    def values(self) -> dict[str, Any]:
        """The arguments as an object."""
        return _object(self.arguments)


class Tool(_Sparse):
    """What the assistant may call. `parameters` is a JSON Schema as text."""

    name: ToolName
    description: str = ""
    parameters: JsonObject = '{"type": "object", "properties": {}}'

    @property
    def parameter_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments as an object."""
        return _object(self.parameters)


class Message(_Sparse):
    """One turn. `content` is data: it is never read as a template and never as control tokens; neither are calls."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of the assistant, after what it says."""
    tool_call_id: str = ""
    """Of a tool's result: the call that it answers, where calls have ids."""
    name: str = ""
    """Of a tool's result: the tool."""
    tools: tuple[Tool, ...] = ()
    """What the assistant may call in this conversation. They stand in its first message."""


Conversation: TypeAlias = Annotated[tuple[Message, ...], Field(min_length=1)]
"""A conversation in order of time. Frozen, so that it can be a key and be shared between stages."""


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def system(content: str) -> Message:
    return Message(role="system", content=content)


def tool_call(name: str, arguments: Mapping[str, object] | None = None, identity: str = "") -> ToolCall:
    """A call with its arguments given as an object."""
    return ToolCall(name=name, arguments=json_object(arguments or {}), id=identity)


def spelt(message: Message) -> list[str]:
    """All that a message is, for fingerprints: role and content, and its calls, tools and the like where there are any."""
    more = message.model_dump_json(exclude={"role", "content"})
    return [message.role, message.content, *([more] if more != "{}" else [])]


def tools_of(messages: Sequence[Message]) -> tuple[Tool, ...]:
    """What the assistant may call in a conversation."""
    return next((each.tools for each in messages if each.tools), ())


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The conversation with these tools, and no others, in its first message."""
    bare = [each.model_copy(update={"tools": ()}) if each.tools else each for each in messages]
    return (bare[0].model_copy(update={"tools": tuple(tools)}), *bare[1:]) if tools else tuple(bare)
