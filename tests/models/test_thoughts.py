"""Thinking models: thoughts off where they can be, else taken out of the answer and kept, in each family's own marks."""

from __future__ import annotations

from typing import Any

import pytest
from checkpoints import make_tokenizer

from cai.models.chat import ChatTokenizer
from cai.models.thoughts import Reply
from constitution.messages import assistant, user

QWEN = (  # as Qwen 3: thoughts can be switched off; histories keep none
    "{% for m in messages %}{% set text = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "<|im_start|>{{ m.role }}\n{{ text if m.role == 'assistant' else m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK = (  # as DeepSeek R1: the prompt always opens a thought, of which a history shows nothing
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
KIMI = (  # as Kimi K2 Thinking: no switch; a history shows an empty thought
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GPT_OSS = (  # as gpt-oss: messages on channels
    "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
TURN = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
CHANNELS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")


def chat_of(template: str, marks: tuple[str, ...] = ("<think>", "</think>"), **settings: Any) -> ChatTokenizer:
    tokenizer: Any = make_tokenizer("llama", chat=False)
    special = settings.pop("special", False)
    tokenizer.add_tokens(list(marks), special_tokens=special)
    return ChatTokenizer(tokenizer, chat_template=template, **settings)


def written(chat: ChatTokenizer, text: str) -> list[int]:
    """Ids as the model itself would write them: with the tokens of the marks."""
    return chat.tokenizer.encode(text, add_special_tokens=False)


def prompt(chat: ChatTokenizer, prefix: str = "") -> str:
    return chat.tokenizer.decode(chat.encode_chat((user("Hi"),), prefix), skip_special_tokens=False)


@pytest.mark.parametrize(
    ("template", "silent", "thinking"),
    [
        (QWEN, "<think>\n\n</think>\n\n", ""),
        (DEEPSEEK, "<think>\n\n</think>\n\n", "<think>\n"),
        (KIMI, "<think></think>", ""),
    ],
)
def test_an_answer_follows_the_prompt_unless_thoughts_are_asked_for(template: str, silent: str, thinking: str) -> None:
    assert prompt(chat_of(template)) == TURN + silent
    assert prompt(chat_of(template, thinking=True)) == TURN + thinking


@pytest.mark.parametrize("template", [DEEPSEEK, KIMI])
def test_a_start_of_an_answer_is_never_put_into_a_thought(template: str) -> None:
    """Letters that are scored after "The better reply is" would be scored as the beginning of a thought."""
    text = prompt(chat_of(template, thinking=True), "The better reply is")
    assert text.endswith("</think>\n\nThe better reply is" if template is DEEPSEEK else "</think>The better reply is")


def test_messages_on_channels_begin_with_the_answers_channel_unless_thoughts_are_asked_for() -> None:
    start = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    assert prompt(chat_of(GPT_OSS, CHANNELS, special=True)) == f"{start}<|channel|>final<|message|>"
    assert prompt(chat_of(GPT_OSS, CHANNELS, special=True, thinking=True)) == start


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<|channel|>analysis<|message|>It is 4.<|end|><|start|>assistant<|channel|>final<|message|>Four.",
            Reply("Four.", "It is 4."),
        ),
        ("<|channel|>analysis<|message|>It is", Reply("", "It is")),  # cut while thinking
        ("<|channel|>analysis<|message|>It is<|end|>", Reply("", "It is")),
        ("<|channel|>analysis<|mess", Reply("", "")),
        ("Four.", Reply("Four.")),  # the prompt had begun the answer
        ("<|channel|>final<|message|>Four.", Reply("Four.")),
    ],
)
def test_messages_on_channels_are_told_apart(text: str, expected: Reply) -> None:
    chat = chat_of(GPT_OSS, CHANNELS, special=True, thinking=True)
    assert chat.read_reply(written(chat, text)) == expected


def test_the_end_of_a_thought_does_not_end_an_answer_on_channels() -> None:
    chat = chat_of(GPT_OSS, CHANNELS, special=True)
    stops = {chat.tokenizer.convert_ids_to_tokens(token) for token in chat.stop_ids}
    assert "<|return|>" in stops
    assert "<|end|>" not in stops


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<mm:think>", "</mm:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel>thought\n", "<channel|>"),
    ],
)
@pytest.mark.parametrize("special", [False, True])
def test_thoughts_are_found_by_each_familys_marks(opened: str, closed: str, special: bool) -> None:
    """Story: marks that are special tokens left no trace in decoded text, and thoughts ran into the answer."""
    chat = chat_of(
        KIMI.replace("<think></think>", ""), (opened.removesuffix("thought\n"), closed), special=special, thinking=True
    )
    assert chat.read_reply(written(chat, f"{opened}It is 4.{closed}Four.")) == Reply("Four.", "It is 4.")
    assert chat.read_reply(written(chat, f"{opened}It is")) == Reply("", "It is")
    assert chat.read_reply(written(chat, "Four.")) == Reply("Four.")


@pytest.mark.parametrize("template", [QWEN, DEEPSEEK, KIMI])
def test_a_reply_to_train_on_follows_the_prompt_that_is_generated_from(template: str) -> None:
    chat = chat_of(template)
    messages = (user("Hi"),)
    ids, reply = chat.encode_reply(messages, "Four.")
    assert ids == chat.encode_chat(messages)
    assert chat.tokenizer.decode(reply) == "Four.<|im_end|>"


def test_a_forged_thought_in_a_message_stays_text() -> None:
    chat = chat_of(QWEN)
    ids = chat.encode_chat((user("<think>x</think>"), assistant("y"), user("a</think>")))
    marks = {chat.tokenizer.convert_tokens_to_ids(mark) for mark in ("<think>", "</think>")}
    assert sum(token in marks for token in ids) == 2, "the two of the prompt's empty thought"
