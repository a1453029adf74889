"""Tools, calls and results by the chat templates of models, and the calls that models write, read back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from checkpoints import MISTRAL_TOOL_TOKENS, make_checkpoint, make_tokenizer, make_tool_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from cai.models.call_forms import one_form
from cai.models.chat import ChatTokenizer
from cai.models.tool_turns import definitions, template_turns
from constitution.messages import (
    Conversation,
    Message,
    Tool,
    ToolCall,
    assistant,
    system,
    tool_call,
    tools_of,
    user,
    with_tools,
)
from constitution.tool_text import call_text, read_reply, reply_text

SHARED = Path(os.environ.get("CAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "tokenizers"
REAL = tuple(sorted(each.name for each in SHARED.glob("*") if each.is_dir()))
SEND = Tool(
    name="send_mail",
    description="Send a mail.",
    parameters=json.dumps({"type": "object", "properties": {"to": {"type": "string"}, "text": {"type": "string"}}}),
)
TWO_CALLS = Message(
    role="assistant",
    content="One moment.",
    tool_calls=(
        tool_call("send_mail", {"to": "ann@example.org", "text": 'é "quoted"\n'}, "call_abcdefghijkl"),
        tool_call("send_mail", {"to": "bob@example.org"}, "call_2"),
    ),
)
TALK: Conversation = with_tools(
    (
        system("Be brief."),
        user("Write to both."),
        TWO_CALLS,
        Message(role="tool", content="sent", tool_call_id="call_2", name="send_mail"),
        Message(role="tool", content="sent, too", tool_call_id="call_abcdefghijkl", name="send_mail"),
    ),
    (SEND,),
)
FORGED = (
    "<|im_end|>",
    "<|im_start|>",
    "<tool_call>",
    "</tool_call>",
    "</tool_response>",
    "</s>",
    "[INST]",
    *MISTRAL_TOOL_TOKENS,
)


@pytest.fixture(scope="module", params=["hermes", "mistral", *REAL])
def chat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    if request.param in REAL:
        return ChatTokenizer(AutoTokenizer.from_pretrained(SHARED / request.param), name=request.param)
    folder = tmp_path_factory.mktemp("m")
    return ChatTokenizer(
        AutoTokenizer.from_pretrained(make_tool_checkpoint(folder, "llama" if request.param == "hermes" else "mistral"))
    )


def test_a_conversation_with_tools_gets_the_ids_of_the_models_own_template(chat: ChatTokenizer) -> None:
    own = chat.tokenizer.apply_chat_template(
        template_turns(TALK), tools=definitions((SEND,)), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert chat.encode_chat(TALK) == own


def test_a_reply_that_calls_is_learned_as_the_template_writes_it(chat: ChatTokenizer) -> None:
    reply = reply_text(Message(role="assistant", content="", tool_calls=TWO_CALLS.tool_calls[:1]))
    prompt, learned = chat.encode_reply(TALK, reply)
    whole = chat.tokenizer.apply_chat_template(
        template_turns((*TALK, read_reply(reply).message)), tools=definitions((SEND,)), tokenize=True, return_dict=False
    )
    assert [*prompt, *learned] == whole[: len(prompt) + len(learned)]
    assert learned[-1] in chat.stop_ids
    assert not chat.decode(whole[len(prompt) + len(learned) :]).strip()


def test_every_turn_of_a_conversation_with_calls_is_learned(chat: ChatTokenizer) -> None:
    turns = chat.encode_turns(TALK, "Both are sent.")
    assert len(turns) == 2
    assert turns[0] == chat.encode_reply(TALK[:2], reply_text(TWO_CALLS))
    assert turns[1] == chat.encode_reply(TALK, "Both are sent.")


def test_what_a_model_writes_as_a_call_is_read_as_the_call_it_is(chat: ChatTokenizer) -> None:
    """The template's own form of a call, token by token as the model would write it."""
    for calls in (TWO_CALLS.tool_calls[:1], TWO_CALLS.tool_calls):
        bare = tuple(ToolCall(name=each.name, arguments=each.arguments) for each in calls)
        reply = reply_text(Message(role="assistant", content="", tool_calls=bare))
        _, written = chat.encode_reply(TALK[:2], reply)
        ids = written[:-1]
        found = chat.read_calls(ids, chat.read_reply(ids).text, TALK[:2])
        assert [(each.name, each.values) for each in read_reply(found).message.tool_calls] == [(c.name, c.values) for c in bare]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_argument_definition_or_result_holds_a_control_token(chat: ChatTokenizer, data: st.DataObject) -> None:
    """Story: a file's name with the end of a turn in it would have ended the turn in which it was deleted."""
    text = st.lists(st.sampled_from(FORGED) | st.text(max_size=4), max_size=4).map("".join).filter(lambda t: "\ud800" not in t)
    drawn = [data.draw(text.filter(lambda t: t.isprintable())) for _ in range(5)]

    def talk(said: str, about: str, argument: str, result: str, key: str) -> Conversation:
        tool = Tool(name="f", description=f"x{about}", parameters=json.dumps({"type": "object", "properties": {f"x{key}": {}}}))
        called = Message(role="assistant", content="", tool_calls=(tool_call("f", {"a": argument}),))
        return with_tools((user(f"x{said}"), called, Message(role="tool", content=f"x{result}", name="f")), (tool,))

    def controls(ids: list[int]) -> list[int]:
        return [token for token in ids if token in chat.control_ids]

    forged, harmless = talk(*drawn), talk(*"abcde")
    assert controls(chat.encode_chat(forged)) == controls(chat.encode_chat(harmless))
    for made in (forged, harmless):
        assert len(controls(chat.encode_reply(made[:1], reply_text(made[1]))[1])) == len(
            controls(chat.encode_reply(harmless[:1], reply_text(harmless[1]))[1])
        )


def test_a_template_that_knows_no_tools_is_told_them_in_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cai.models")
    chat = ChatTokenizer(make_tokenizer("llama"), name="the model")
    assert chat.encode_chat((user("Hi"),))
    assert caplog.messages == []
    text = chat.prompt_text(TALK)
    assert "You may call these tools:" in text
    assert '"to": "ann@example.org"' in text
    assert "<tool_response>\nsend_mail: sent\n</tool_response>" in text
    assert chat.encode_turns(TALK, "Done.")[1] == chat.encode_reply(TALK, "Done.")
    assert caplog.messages == ["the model: its chat template knows no tools; they are told, called and answered in words."]
    reply = reply_text(TWO_CALLS)
    assert chat.decode(chat.encode_reply(TALK[:2], reply)[1]) == reply
    plain = ChatTokenizer(make_tokenizer("gpt2", chat=False), plain=True)
    assert "Human: Write to both." in plain.prompt_text(TALK)


def test_of_several_templates_the_one_for_tools_writes_conversations_with_tools(tmp_path: Path) -> None:
    folder = make_tool_checkpoint(tmp_path / "m")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    alone = ChatTokenizer(tokenizer).encode_chat(TALK)
    simple: Any = AutoTokenizer.from_pretrained(make_checkpoint(tmp_path / "n"))
    tokenizer.chat_template = {"default": simple.chat_template, "tool_use": tokenizer.chat_template}
    chat = ChatTokenizer(tokenizer)
    assert chat.encode_chat(TALK) == alone
    tokenizer.chat_template = simple.chat_template
    assert chat.template_fingerprint == ChatTokenizer(tokenizer).template_fingerprint


CALL = '<tool_call>\n{"name": "send_mail", "arguments": {"to": "a"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('<tool_call>{"name": "send_mail", "arguments": {"to": "a"}}</tool_call>', CALL),
        ('Yes. <tool_call>{"name":"send_mail","arguments":{"to":"a"}}</tool_call>', f"Yes.\n\n{CALL}"),
        ('[TOOL_CALLS] [{"name": "send_mail", "arguments": {"to": "a"}, "id": "call00001"}]', CALL.replace("}}", "}}")),
        ('Yes.[TOOL_CALLS]send_mail[CALL_ID]x[ARGS]{"to": "a"}', f"Yes.\n\n{CALL}"),
        ('{"name": "send_mail", "parameters": {"to": "a"}}', CALL),
        (
            '<|python_tag|>{"name": "send_mail", "parameters": {"to": "a"}}; {"name": "send_mail", "parameters": {"to": "a"}}',
            f"{CALL}\n{CALL}",
        ),
        ('{"name": "Ann", "age": 4}', '{"name": "Ann", "age": 4}'),
        ("An answer.", "An answer."),
        ('[TOOL_CALLS] [{"name": "send_mail", ', '<tool_call>\n[{"name": "send_mail",'),
        ("<tool_call>{", "<tool_call>{"),
        ("<|python_tag|>print(1)", "<tool_call>\nprint(1)"),
        ('{"name": "send_mail", "parameters": {"to": ', '<tool_call>\n{"name": "send_mail", "parameters": {"to":'),
        ('{"type": "function", "name": "send_mail", "param', '<tool_call>\n{"type": "function", "name": "send_mail", "param'),
        ('{"name": "Ann", "age": ', '{"name": "Ann", "age": '),
        ('[TOOL_CALLS]send_mail[ARGS]{"to": "a"} and more', '<tool_call>\nsend_mail[ARGS]{"to": "a"} and more'),
        ('[TOOL_CALLS]send_mail[ARGS]{"to": "a"}[TOOL_CALLS]send_mail[ARGS]{"to": "a"}', f"{CALL}\n{CALL}"),
    ],
)
def test_the_forms_of_the_families_become_one(written: str, kept: str) -> None:
    assert one_form(written, (SEND,)) == kept
    assert one_form(kept, (SEND,)) == kept


@pytest.mark.parametrize("mark", [*MISTRAL_TOOL_TOKENS, "<|python_tag|>", "<tool_call>", "</tool_call>"])
def test_a_mark_within_an_argument_is_part_of_the_argument(mark: str) -> None:
    """Story: a mail about Mistral's `[TOOL_CALLS]`, called in Hermes's form, became a call that nobody could read."""
    arguments = json.dumps({"to": f"a {mark} b"})
    kept = call_text(ToolCall(name="send_mail", arguments=arguments))
    for written in (
        kept,
        f'[TOOL_CALLS] [{{"name": "send_mail", "arguments": {arguments}}}]',
        f"[TOOL_CALLS]send_mail[ARGS]{arguments}",
        f'<|python_tag|>{{"name": "send_mail", "parameters": {arguments}}}',
    ):
        assert one_form(written, (SEND,)) == kept


def test_a_tokenizer_that_says_how_its_replies_are_read_is_believed(tmp_path: Path) -> None:
    """transformers' `response_template`: here calls between brackets, which are none of the forms known otherwise."""
    tokenizer: Any = AutoTokenizer.from_pretrained(make_tool_checkpoint(tmp_path / "m"))
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "tool_calls": {
                "open": "[[",
                "close": "]]",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {},
        },
    }
    chat = ChatTokenizer(tokenizer)
    ids = tokenizer.encode('Yes.[[{"name": "send_mail", "arguments": {"to": "a"}}]]', add_special_tokens=False)
    assert chat.read_calls(ids, chat.read_reply(ids).text, TALK[:2]) == f"Yes.\n\n{CALL}"
    assert tools_of(TALK) == (SEND,)
    assert chat.encode_chat((user("x"), assistant("y"), user("z")))
