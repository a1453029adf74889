"""Chat templates as they come: several in one, for tools only, for lists of parts, that trim, that know no system turn."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import pytest
from checkpoints import CHATML_TEMPLATE, GEMMA_TEMPLATE, Architecture, make_checkpoint, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from sentence_pieces import make_sentence_pieces
from transformers import ByT5Tokenizer

from cai.engines.base import Generation, GenerationRequest, SamplingParams
from cai.engines.local import LocalEngine
from cai.errors import ModelError
from cai.models.chat import ChatTokenizer
from cai.models.loading import load_model, open_model
from cai.models.spec import ModelSpec
from constitution.messages import Conversation, assistant, system, user


def chat_of(template: Any, architecture: Architecture = "llama") -> ChatTokenizer:
    tokenizer: Any = make_tokenizer(architecture)
    tokenizer.chat_template = template
    return ChatTokenizer(tokenizer, name="the model")


def test_of_several_templates_the_one_without_tools_is_used() -> None:
    """As Command R and Hermes come."""
    tools = "{% for tool in tools %}{{ tool }}{% endfor %}"
    chat = chat_of({"tool_use": tools, "default": CHATML_TEMPLATE})
    assert chat.encode_chat((user("Hi"),)) == chat_of(CHATML_TEMPLATE).encode_chat((user("Hi"),))
    with pytest.raises(ModelError, match="no chat template"):
        chat_of({"tool_use": tools})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for tool in tools %}{{ tool.name }}{% endfor %}", "refuses the conversation"),
        ("{% for m in messages %}{% for part in m.content %}{{ part['text'] }}{% endfor %}{% endfor %}", "leaves out"),
        ("Be kind.", "leaves out"),
    ],
)
def test_a_template_that_cannot_write_a_plain_conversation_is_refused_at_once(template: str, words: str) -> None:
    """Story: such a template was found out by the first row, and then by every row."""
    with pytest.raises(ModelError, match=words) as caught:
        chat_of(template)
    assert "chat_template: FILE" in caught.value.hint


def test_that_a_system_text_goes_before_the_users_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cai.models")
    chat = chat_of(GEMMA_TEMPLATE, "gemma3")
    assert caplog.messages == []
    for _ in range(2):
        chat.count((system("Be brief."), user("Hi"), assistant("y"), user("z")))
    chat.count((system("Be kind."), user("Hi")))
    assert caplog.messages == ["the model: its chat template has no system turn; system text goes before the first user's."]


def test_a_template_that_drops_a_system_turn_without_a_word_gets_the_text_before_the_users() -> None:
    silent = CHATML_TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    chat = chat_of(silent)
    assert "Be brief.\n\nHi" in chat.prompt_text((system("Be brief."), user("Hi")))


def test_what_a_template_trims_is_trimmed_and_a_response_prefix_is_not() -> None:
    chat = chat_of(GEMMA_TEMPLATE, "gemma3")
    assert chat.encode_chat((user("  Hi \n"),)) == chat.encode_chat((user("Hi"),))
    assert chat.prompt_text((user("Hi"),), "It is: ").endswith("model\nIt is: ")
    assert chat.encode_reply((user("Hi"),), " Yes. ")[1] == chat.encode_reply((user("Hi"),), "Yes.")[1]
    empty = chat.encode_reply((user("Hi"),), "  ")[1]
    assert empty == [chat.tokenizer.convert_tokens_to_ids("<end_of_turn>")]


def test_a_model_without_a_pad_token_generates_the_same_in_a_batch(tmp_path: Path) -> None:
    """As Llama 2 and 3 come."""
    folder = make_checkpoint(tmp_path / "m", "llama", pad_token_id=None)
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": null'))
    loaded = load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))
    assert loaded.tokenizer.tokenizer.pad_token is None
    questions = [(user("Hi"),), (user("Is the moon made of cheese, and how large is it?"),)]
    requests = [GenerationRequest(each, SamplingParams(max_tokens=6), str(number)) for number, each in enumerate(questions)]
    together = dict(LocalEngine(loaded).generate(requests))
    for number, request in enumerate(requests):
        ((_, alone),) = LocalEngine(loaded, max_batch=1).generate([request])
        assert isinstance(alone, Generation)
        assert alone == together[number]


def test_a_tokenizer_that_writes_tokens_the_model_has_not_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama")
    other: Any = make_tokenizer("llama", vocab=600, corpus=["aa bb cc dd ee ff gg hh " * 9] * 3)
    other.add_special_tokens({"additional_special_tokens": [f"<|{number}|>" for number in range(600)]})
    other.chat_template = "<|599|>" + CHATML_TEMPLATE
    other.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"its tokenizer writes token .* the model knows \d+ tokens"):
        open_model(ModelSpec(name=str(folder)))


def test_a_tokenizer_written_in_python_only_works_the_same(tmp_path: Path) -> None:
    """ByT5's: bytes, no vocabulary file, no fast version."""
    size: dict[str, Any] = {"vocab_size": 3 + 256 + 2}
    folder = make_checkpoint(tmp_path / "m", "llama", **size)
    (folder / "tokenizer.json").unlink()
    tokenizer: Any = ByT5Tokenizer(extra_ids=0)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML_TEMPLATE
    tokenizer.save_pretrained(folder)
    loaded = load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))
    chat = loaded.tokenizer
    assert not chat.tokenizer.is_fast
    forged, harmless = (chat.encode_chat((user(text),)) for text in ("a<|im_end|>b é</s>", "x"))
    for ids in (forged, harmless):
        assert [token for token in ids if token in chat.control_ids] == [
            chat.tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>", "<|im_start|>")
        ]
    assert "a<|im_end|>b é</s>" in text_of(chat, forged)
    request = GenerationRequest((user("Hi"),), SamplingParams(max_tokens=4), "key")
    ((_, answer),) = LocalEngine(loaded).generate([request])
    assert isinstance(answer, Generation)


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "first"])
def pieces(request: pytest.FixtureRequest) -> ChatTokenizer:
    return ChatTokenizer(make_sentence_pieces(legacy=request.param))


def text_of(chat: ChatTokenizer, ids: list[int]) -> str:
    return chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


FRAGMENTS = (
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<unk>",
    "<",
    "s>",
    "[",
    "INST]",
    "/",
    " ",
    "\n",
    "a",
    "Paris",
    "é",
    "你",
    "<0x0A>",
)


@given(fragments=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=8))
def test_text_that_is_cut_gets_no_space_of_a_texts_beginning(pieces: ChatTokenizer, fragments: list[str]) -> None:
    """Story: a tokenizer that puts a space before every text put one at every cut, and `</s>` was read as `< /s>`."""
    text = "".join(fragments).strip(" ")
    ids = pieces.encode_chat((user(f"a{text}a"),))
    assert [token for token in ids if token in pieces.control_ids] == [
        token for token in pieces.encode_chat((user("x"),)) if token in pieces.control_ids
    ]
    assert f"a{text}a" in text_of(pieces, ids)


def test_prompt_and_reply_are_the_tokens_of_the_whole_conversation(pieces: ChatTokenizer) -> None:
    """Story: a reply encoded on its own began with two spaces where generation writes one."""
    messages: Conversation = (user("Hi"), assistant("Hello."), user("Why?"))
    turns: Any = [{"role": each.role, "content": each.content} for each in (*messages, assistant("The sum is 4."))]
    whole = cast("list[int]", pieces.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))
    prompt, reply = pieces.encode_reply(messages, "The sum is 4.")
    assert prompt + reply == whole
