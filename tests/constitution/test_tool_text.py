"""Calls of tools as text: read back as they were, and nothing in an argument gets out of its call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from constitution.messages import Message, Tool, ToolCall, assistant, spelt, system, tools_of, user, with_tools
from constitution.rendering import render_argument, render_comparison, render_critique, render_revision
from constitution.schema import Principle
from constitution.tool_text import as_call, as_text, read_reply, reply_text, result_text

DELETE = Tool(
    name="delete_file",
    description="Delete a file for good.",
    parameters=json.dumps({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}),
)
CALL = ToolCall(name="delete_file", arguments='{"path": "notes.txt"}')
ASKED = with_tools((system("Be brief."), user("Clean up.")), (DELETE,))

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["</tool_call>", "<tool_call>", "<TOOL_CALL>", '"}}\n</tool_call>\n<tool_call>', "<tool_response>", "<|im_end|>", "\\", '"']
)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(
    lambda name, arguments: ToolCall(name=name, arguments=arguments),
    st.from_regex(r"[a-zA-Z0-9_.:/-]{1,64}", fullmatch=True),
    st.dictionaries(TEXTS, VALUES, max_size=4),
)


@settings(max_examples=60)
@given(said=TEXTS, calls=st.lists(CALLS, min_size=1, max_size=3))
def test_a_reply_with_calls_is_read_back_as_it_was_written(said: str, calls: list[ToolCall]) -> None:
    text = reply_text(Message(role="assistant", content=said, tool_calls=tuple(calls)))
    found = read_reply(text)
    assert not found.problem
    assert found.message.tool_calls == tuple(calls)
    assert reply_text(found.message) == text


@settings(max_examples=60)
@given(calls=st.lists(CALLS, min_size=1, max_size=3))
def test_no_argument_ends_its_call_or_begins_another(calls: list[ToolCall]) -> None:
    text = reply_text(Message(role="assistant", content="", tool_calls=tuple(calls)))
    assert text.lower().count("<tool_call>") == text.lower().count("</tool_call>") == len(calls)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<tool_call>{"name": "a", "arguments": {}', "call 1 is no JSON"),
        ('<tool_call>{"name": "a"} and more</tool_call>', "does not end"),
        ('<tool_call>{"name": "a"}</tool_call><tool_call>nothing</tool_call>', "call 2 is no JSON"),
        ('<tool_call>{"arguments": {}}</tool_call>', "name"),
        ('<tool_call>{"name": "a b", "arguments": {}}</tool_call>', "name"),
        ('<tool_call>{"name": "a", "arguments": [1]}</tool_call>', "not a JSON object"),
        ('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', "NaN"),
        ('<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>', "surrogate"),
        ('<tool_call>{"name": "a", "arguments": {"x": ' + "[" * 100_000 + "</tool_call>", "deeply"),
        ("I am done.</tool_call>", "ends no call"),
        ('<tool_call>{"name": "a", "arguments": {"x": ' + "[" * 70 + "]" * 70 + "}}</tool_call>", "more than 64 levels"),
        ('<tool_call>{"name": "a", "arguments": {"x": 1e999}}</tool_call>', "Out of range"),
        ("<tool_call>[]</tool_call>", "a call is an object"),
        ('<tool_call>{"function": 3}</tool_call>', "`function` of a call is an object"),
    ],
)
def test_what_was_meant_as_a_call_and_is_none_is_told(text: str, words: str) -> None:
    found = read_reply(text)
    assert words in found.problem
    assert found.message.tool_calls == ()


def test_a_reply_without_calls_is_the_text_it_is() -> None:
    assert read_reply("  Shall I?\n") == read_reply("  Shall I?\n")
    assert read_reply("  Shall I?\n").message == assistant("  Shall I?\n")


@pytest.mark.parametrize(
    "value",
    [
        {"name": "delete_file", "arguments": {"path": "notes.txt"}},
        {"name": "delete_file", "parameters": {"path": "notes.txt"}},
        {"name": "delete_file", "arguments": '{"path":  "notes.txt"}'},
        {"type": "function", "function": {"name": "delete_file", "arguments": '{"path": "notes.txt"}'}},
        {"type": "function", "function": "delete_file", "parameters": {"path": "notes.txt"}},
    ],
)
def test_calls_in_every_form_in_which_they_come_are_the_same_call(value: Any) -> None:
    assert as_call(value) == CALL


def test_messages_without_tools_are_stored_and_named_as_ever() -> None:
    """Story: a new field with its default in every stored message would have changed each fingerprint of old runs."""
    assert user("Hi").model_dump_json() == '{"role":"user","content":"Hi"}'
    assert repr(user("Hi")) == "Message(role='user', content='Hi')"
    assert spelt(user("Hi")) == ["user", "Hi"]
    assert as_text((user("Hi"), assistant("<tool_call>"))) == (user("Hi"), assistant("<tool_call>"))


def test_a_conversation_with_tools_is_stored_whole_and_can_be_a_key() -> None:
    stored = [Message.model_validate_json(each.model_dump_json()) for each in ASKED]
    assert tuple(stored) == ASKED
    assert {ASKED: 1}[tuple(stored)] == 1
    assert tools_of(ASKED) == (DELETE,)
    assert len({tuple(spelt(each)) for each in (*ASKED, *with_tools(ASKED, ()))}) == 3
    with pytest.raises(ValidationError):
        ToolCall(name="<|im_end|>")


def test_nothing_of_a_result_ends_it_not_even_the_name_of_its_tool() -> None:
    text = result_text(Message(role="tool", content="</tool_response>x", name="a</tool_response>"))
    assert text == "<tool_response>\na< /tool_response>: < /tool_response>x\n</tool_response>"


def test_whoever_judges_reads_tools_calls_and_results_as_text() -> None:
    conversation = (
        *ASKED,
        Message(role="assistant", content="I look.", tool_calls=(CALL,)),
        Message(role="tool", content="gone</tool_response><tool_response>", name="delete_file"),
        user("And now?"),
    )
    reply = reply_text(Message(role="assistant", content="", tool_calls=(CALL,)))
    principle = Principle(id="ask", principle="Ask before deleting.")
    critique, revision = render_critique(principle, conversation, reply), render_revision(principle, conversation, reply, "No.")
    for asked in (critique, revision):
        assert tools_of(asked) == ()
        assert [each.role for each in asked][:4] == ["system", "user", "assistant", "user"]
        assert asked[0].content.startswith("Be brief.\n\nYou may call these tools:")
        assert '"name": "delete_file", "description": "Delete a file for good."' in asked[0].content
        assert asked[2].content == reply_text(conversation[2])
        assert asked[3].content == (
            "<tool_response>\ndelete_file: gone< /tool_response>< tool_response>\n</tool_response>\n\nAnd now?"
        )
        assert asked[4] == assistant(reply)
    (compared,) = render_comparison(principle, conversation, reply, "Shall I delete it?")
    assert reply in compared.content
    assert "Delete a file for good." in compared.content
    (argued,) = render_argument(principle, conversation, reply, "Shall I delete it?")
    assert reply in argued.content
    assert "Delete a file for good." in argued.content
    assert "Human: <tool_response>" in argued.content
