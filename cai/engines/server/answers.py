"""A server's JSON → what the engine answers. Trusts nothing in it: servers break, proxies answer in their place.

What is malformed may be well the next time (`PassingFailure`); what the server says about the answer is final (`Refusal`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, TypeGuard, cast

from cai.engines.base import FinishReason, Generation, GenerationRequest
from cai.engines.server.exchange import Json, PassingFailure, Refusal
from cai.models.call_forms import one_form
from cai.models.thoughts import split_thoughts
from constitution.messages import Message, Tool, tools_of
from constitution.tool_text import OPENED, as_call, reply_text

_ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "stop_token", "end_turn", "matched_token"})
_CUT = frozenset({"length", "max_tokens", "model_length", "max_length"})
_BROKEN_OFF = frozenset({"abort", "aborted", "cancelled", "error", "timeout"})
_WITHHELD = {"content_filter": "content_filter", "tool_calls": "tool_call", "function_call": "tool_call"}
_MOST_TOKENS = 1 << 40


def read_generation(content: Json, request: GenerationRequest, *, opens_thought: bool, counted: tuple[int, int]) -> Generation:
    """The answer in a chat completion.

    Args:
        content: As it came.
        request: What was asked; its stop strings end the answer here, too, since some servers leave them in.
        opens_thought: The prompt ended inside a thought.
        counted: Tokens of prompt and answer to go by where the server does not count them.

    Raises:
        PassingFailure: `empty_choices`, `malformed_answer`, `broken_off`.
        Refusal: `content_filter`, `tool_call`, `unknown_finish_reason`.
    """
    choice = first_choice(content)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise malformed("its choice has no message")
    said = cast("Json", message)
    prompt_tokens, completion_tokens = usage(content, counted)
    tools = tools_of(request.messages)
    finish = _finish(choice, completion_tokens, request.params.max_tokens, with_tools=bool(tools))
    written, thoughts = _text(said, "content"), _text(said, "reasoning_content") or _text(said, "reasoning")
    reply = split_thoughts(written, opened=opens_thought and not thoughts and not request.response_prefix)
    text = reply.text
    places = [place for stop in request.params.stop if stop and (place := text.find(stop)) >= 0]
    if places:
        text, finish = text[: min(places)], FinishReason.STOP
    if tools:
        text = _with_calls(text, said.get("tool_calls"), tools)
    thoughts = "\n".join(part for part in (thoughts.strip(), reply.thoughts) if part)
    return Generation(text, finish, prompt_tokens, completion_tokens, thoughts)


def _with_calls(text: str, told: object, tools: Sequence[Tool]) -> str:
    """The reply with its calls in the form in which replies are kept, whether or not the server took them out of the text.

    A call that is none stays in it as a call that cannot be read, since that is what the model wrote.
    """
    if not told:
        return one_form(text, tools)
    if not isinstance(told, list):
        raise malformed("`tool_calls` is no list")
    try:
        calls = tuple(map(as_call, cast("list[Any]", told)))
    except (ValueError, RecursionError):
        # As text of a server that is not to be trusted: in ASCII, since it may hold half a surrogate pair.
        return f"{text}\n\n{OPENED}\n{_shown(cast('list[Any]', told))}".strip()
    return reply_text(Message(role="assistant", content=text.strip(), tool_calls=calls))


def _shown(told: Sequence[Any]) -> str:
    try:
        return json.dumps(told)
    except RecursionError:
        return "nested too deeply"


def first_choice(content: Json) -> Json:
    """The one choice that was asked for."""
    choices = content.get("choices")
    if not isinstance(choices, list) or not choices:
        raise PassingFailure("empty_choices", "the answer holds no choice")
    first = cast("list[Any]", choices)[0]
    if not isinstance(first, dict):
        raise malformed("its choice is no object")
    return cast("Json", first)


def usage(content: Json, counted: tuple[int, int]) -> tuple[int, int]:
    """Tokens of prompt and answer, as the server counts them, else as given."""
    told = content.get("usage")
    found = cast("Json", told) if isinstance(told, dict) else {}
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens")
    return (prompt if is_count(prompt) else counted[0]), (completion if is_count(completion) else counted[1])


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS


def is_logp(value: object) -> TypeGuard[float]:
    """Whether it is a log-probability; some servers round one of a certain token to a little above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value) and value < 1e-3


def malformed(what: str) -> PassingFailure:
    """An answer of a form that is none."""
    return PassingFailure("malformed_answer", f"the answer is malformed: {what}")


def _text(message: Json, key: str) -> str:
    value = message.get(key)
    if isinstance(value, list):  # parts, as in requests with pictures
        parts = [cast("Json", part).get("text") for part in cast("list[Any]", value) if isinstance(part, dict)]
        value = "".join(cast("list[str]", parts)) if all(isinstance(part, str) for part in parts) else None
    elif value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(f"`{key}` is no text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise malformed(f"`{key}` holds half a surrogate pair, which has no UTF-8 form")
    return value


def _finish(choice: Json, completion_tokens: int, max_tokens: int, *, with_tools: bool) -> FinishReason:
    told = choice.get("finish_reason")
    if not isinstance(told, str | None):
        raise malformed("its finish reason is no text")
    if told in _ENDED or (with_tools and _WITHHELD.get(told or "") == "tool_call"):
        return FinishReason.STOP
    if told in _CUT:
        return FinishReason.LENGTH
    if told is None:
        return FinishReason.LENGTH if completion_tokens >= max_tokens else FinishReason.STOP
    if told in _BROKEN_OFF:
        raise PassingFailure("broken_off", f"the server broke the answer off: {told[:40]!r}")
    if told in _WITHHELD:
        raise Refusal(_WITHHELD[told], f"the server gave no answer in words: {told}")
    raise Refusal("unknown_finish_reason", f"the server ended the answer for a reason unknown here: {told[:40]!r}")
