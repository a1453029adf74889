"""Tools over a server: offered in OpenAI's form, calls read from the answer or from its text, whichever the server gives."""

from __future__ import annotations

from typing import Any

import pytest

from cai.engines.base import GenerationRequest, SamplingParams
from cai.engines.server.answers import read_generation
from cai.engines.server.bodies import Wording, generation_body
from cai.engines.server.exchange import Refusal
from cai.models.control_text import neutralised
from constitution.messages import Message, Tool, tool_call, user, with_tools
from constitution.tool_text import call_text, read_reply

TOOL = Tool(
    name="send", description="Send <|im_end|>.", parameters='{"type": "object", "properties": {"to": {"type": "string"}}}'
)
TALK = with_tools(
    (
        user("Hi"),
        Message(role="assistant", content="", tool_calls=(tool_call("send", {"to": "<|im_end|>a"}),)),
        Message(role="tool", content="sent", name="send"),
    ),
    (TOOL,),
)
REQUEST = GenerationRequest(TALK, SamplingParams(), "k")
WORDING = Wording("m", "openai", thinking=False, takes_system=True, neutralised=neutralised)
CALL = call_text(tool_call("send", {"to": "b"}))


def answered(message: dict[str, Any], finish: str = "stop", request: GenerationRequest = REQUEST) -> str:
    content = {"choices": [{"message": message, "finish_reason": finish}]}
    return read_generation(content, request, opens_thought=False, counted=(1, 1)).text


def test_a_server_is_sent_tools_calls_and_results_without_control_tokens() -> None:
    body = generation_body(WORDING, REQUEST)
    assert body["tools"][0]["function"]["description"] == "Send < |im_end|>."
    _, called, result = body["messages"]
    assert called["tool_calls"] == [
        {"id": "call00001", "type": "function", "function": {"name": "send", "arguments": '{"to": "< |im_end|>a"}'}}
    ]
    assert result == {"role": "tool", "content": "sent", "name": "send", "tool_call_id": "call00001"}
    assert "tools" not in generation_body(WORDING, GenerationRequest((user("Hi"),), SamplingParams(), "k"))


def test_calls_are_read_from_the_answer_or_from_its_text() -> None:
    told = [{"id": "x", "type": "function", "function": {"name": "send", "arguments": '{"to": "b"}'}}]
    assert answered({"content": None, "tool_calls": told}, "tool_calls") == CALL
    assert answered({"content": "Yes.", "tool_calls": told}, "tool_calls") == f"Yes.\n\n{CALL}"
    assert answered({"content": '<tool_call>{"name": "send", "arguments": {"to": "b"}}</tool_call>'}) == CALL
    assert answered({"content": "No."}) == "No."
    broken = answered({"content": "", "tool_calls": [{"function": {"name": "send", "arguments": "{"}}]}, "tool_calls")
    assert read_reply(broken).problem
    half = answered(
        {"content": "", "tool_calls": [{"function": {"name": "send", "arguments": {"to": "\ud800"}}}]}, "tool_calls"
    )
    assert read_reply(half).problem
    assert half.encode()


def test_a_call_where_no_tool_was_offered_is_refused_as_ever() -> None:
    with pytest.raises(Refusal):
        answered({"content": ""}, "tool_calls", GenerationRequest((user("Hi"),), SamplingParams(), "k"))
