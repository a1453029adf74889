"""Conversations with several turns of the assistant: which tokens are learned, and in what context."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
from checkpoints import MISTRAL_TEMPLATE, Architecture, make_tokenizer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from cai.models.chat import ChatTokenizer
from cai.records import SFTRecord
from cai.training.packing import TokenGroup
from cai.training.rows import ReplyRow, encode_replies
from cai.training.settings import SFTSettings
from cai.training.shown_batch import shown_row
from cai.training.turns import turns_group
from constitution.messages import Conversation, assistant, system, user

FAMILIES: tuple[Architecture, ...] = ("llama", "gemma3", "mistral", "phi3")
SHARED = Path(os.environ.get("CAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "tokenizers"
REAL = tuple(sorted(each.name for each in SHARED.glob("*") if each.is_dir()))
FORGETFUL = (  # as Qwen3 and DeepSeek-R1: what the assistant thought before the last user turn is left out
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}\n{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISMARKED = MARKED.replace("== 'assistant' %}{% generation", "== 'user' %}{% generation")


@lru_cache
def chat_of(name: str, template: str | None = None) -> ChatTokenizer:
    real = name in REAL
    tokenizer: Any = AutoTokenizer.from_pretrained(SHARED / name) if real else make_tokenizer(cast("Architecture", name))
    return ChatTokenizer(tokenizer, name=name, chat_template=template)


@pytest.fixture(scope="module", params=[*FAMILIES, *REAL])
def chat(request: pytest.FixtureRequest) -> ChatTokenizer:
    """A family's tokenizer, and the real ones where they are."""
    return chat_of(request.param)


def encoded(chat: ChatTokenizer, messages: Conversation, reply: str, turns: Any = "all") -> TokenGroup:
    (row,), dropped = encode_replies(
        [SFTRecord(uid="u", messages=messages, reply=reply)], chat, SFTSettings(), 10_000, kind="row", turns=turns
    )
    assert dropped == []
    return row.group


def learned(group: TokenGroup) -> list[list[list[int]]]:
    """Of each sequence, the runs of tokens that are learned."""
    return [
        [[group.replies[reply][at] for at in run] for run in group.scored_runs(reply, tokens)]
        for reply, tokens in group.sequences
    ]


def conversation(contents: Sequence[str]) -> tuple[Conversation, str]:
    """User and assistant in turn; the last text is the reply."""
    turns = [assistant(text) if number % 2 else user(text) for number, text in enumerate(contents)]
    return tuple(turns[:-1]), contents[-1]


WORDS = st.text(st.characters(exclude_categories=["Cs", "Co", "Cc"]), min_size=1, max_size=20).map(
    lambda text: unicodedata.normalize("NFC", text).strip()
)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4).flatmap(lambda turns: st.lists(WORDS, min_size=2 * turns, max_size=2 * turns)))
def test_what_is_learned_reads_as_what_the_assistant_said(chat: ChatTokenizer, contents: list[str]) -> None:
    """Each turn with the one token that ends it, and no token of user, system or template beside."""
    names = [str(token.content) for token in chat.tokenizer.added_tokens_decoder.values()]
    assume(all(contents) and not any(name in text for text in contents for name in names))
    messages, reply = conversation(contents)
    group = encoded(chat, messages, reply)
    runs = [run for runs in learned(group) for run in runs]
    assert [chat.decode(run[:-1]).strip() for run in runs] == contents[1::2]
    assert all(run[-1] in chat.stop_ids and not chat.stop_ids & set(run[:-1]) for run in runs)
    if len(group.replies) == 1:
        whole = [*group.prompt_ids, *group.replies[0]]
        prompt, last = chat.encode_reply(messages, reply)
        assert whole == [*prompt, *last]


@pytest.mark.parametrize("name", [*FAMILIES, *REAL])
def test_ordinary_turns_lie_in_one_sequence(name: str) -> None:
    """None of these templates rewrites its history where nobody thinks."""
    messages: Conversation = (user("Hi"), assistant("Hello."), user("2 + 2?"), assistant("5."), user("Sure?"))
    group = encoded(chat_of(name), messages, "No, 4.")
    assert [len(runs) for runs in learned(group)] == [3]


def test_the_last_turn_alone_is_the_row_that_it_was() -> None:
    messages: Conversation = (user("Hi"), assistant("Hello."), user("2 + 2?"))
    chat = chat_of("llama")
    last, every = encoded(chat, messages, "4.", "last"), encoded(chat, messages, "4.")
    prompt, reply = chat.encode_reply(messages, "4.")
    assert last == TokenGroup(tuple(prompt), (tuple(reply),))
    assert learned(every)[0][-1] == learned(last)[0][0]
    assert encoded(chat, messages[:1], "Hello.", "last") == encoded(chat, messages[:1], "Hello.")


def test_a_greeting_and_a_system_turn_are_read() -> None:
    messages: Conversation = (system("Be kind."), assistant("Welcome!"), user("Hi"))
    chat = chat_of("llama")
    group = encoded(chat, messages, "Hello.")
    assert [chat.decode(run[:-1]) for run in learned(group)[0]] == ["Welcome!", "Hello."]
    assert "Be kind." in chat.tokenizer.decode(group.prompt_ids)


def test_turns_that_the_template_rewrites_later_are_each_learned_as_they_would_be_generated() -> None:
    """Story: one sequence would teach the first turn in a history that no model is ever given, or not at all."""
    chat = chat_of("llama", FORGETFUL)
    messages: Conversation = (user("2 + 2?"), assistant("<think>Hm.</think>4."), user("And 3?"), assistant("7."), user("Sure?"))
    group = encoded(chat, messages, "<think>7 it is.</think>Yes.")
    texts = [[chat.tokenizer.decode(run) for run in runs] for runs in learned(group)]
    assert texts == [["<think>Hm.</think>4.<|im_end|>"], ["7.<|im_end|>", "<think>7 it is.</think>Yes.<|im_end|>"]]
    contexts = [chat.tokenizer.decode([*group.prompt_ids, *reply]) for reply in group.replies]
    assert "<think>Hm.</think>4." in contexts[0]
    assert "<think>Hm." not in contexts[1]
    assert "\n4.<|im_end|>" in contexts[1]


def test_the_plain_form_ends_each_reply_and_no_turn_of_a_history() -> None:
    chat = ChatTokenizer(make_tokenizer("gpt2", chat=False), plain=True)
    group = encoded(chat, (user("Hi"), assistant("Hello."), user("2 + 2?")), "4.")
    eos = chat.tokenizer.eos_token
    assert [[chat.tokenizer.decode(run) for run in runs] for runs in learned(group)] == [[f" Hello.{eos}"], [f" 4.{eos}"]]
    assert [chat.tokenizer.decode(reply).count(eos) for reply in group.replies] == [1, 1]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (MISTRAL_TEMPLATE, "must alternate"),
        (MISMARKED, "do not mark the assistant's turns"),
    ],
)
def test_a_conversation_that_the_template_does_not_take_is_left_out_and_counted(template: str, problem: str) -> None:
    family: Architecture = "mistral" if template == MISTRAL_TEMPLATE else "llama"
    chat = ChatTokenizer(make_tokenizer(family), chat_template=template)
    turns: Conversation = (user("a"), assistant("b"), assistant("c"), user("d"))
    record = SFTRecord(uid="u", messages=turns, reply="e", source="rows.jsonl:7")
    rows, (dropped,) = encode_replies([record], chat, SFTSettings(), 1000, kind="row", turns="all")
    assert (rows, dropped.reason) == ([], "unrenderable")
    assert dropped.detail.startswith("rows.jsonl:7: ")
    assert problem in dropped.detail


def test_a_turn_without_text_is_no_example() -> None:
    record = SFTRecord(uid="u", messages=(user("a"), assistant(" "), user("b")), reply="c")
    rows, (dropped,) = encode_replies([record], chat_of("llama"), SFTSettings(), 1000, kind="row", turns="all")
    assert (rows, dropped.reason) == ([], "empty_reply")
    assert "message 2" in dropped.detail


def training_templates() -> list[Any]:
    """Of those that TRL comes with and that mark what the assistant writes: the ones for tokens that our families have."""
    trl = find_spec("trl")
    folder = Path(str(trl.origin)).parent / "chat_templates" if trl is not None else Path("nowhere")
    found = [("llama", folder / "qwen2_5_training.jinja"), ("gemma3", folder / "gemma3_training.jinja")]
    found += [("phi3", folder / "phi3_training.jinja"), *((name, folder / "qwen2_5_training.jinja") for name in REAL)]
    return [pytest.param(name, path.read_text(), id=f"{name}-{path.stem}") for name, path in found if path.is_file()]


@pytest.mark.parametrize(("name", "template"), [pytest.param("llama", MARKED, id="ours"), *training_templates()])
def test_what_is_learned_is_what_a_templates_own_marks_say(name: str, template: str) -> None:
    """transformers' masks from `{% generation %}`, but for markup around a turn, which some templates mark too."""
    chat = chat_of(name, template)
    messages: Conversation = (user("Hi there"), assistant("Hello."), user("2 + 2?"), assistant("5 it is."), user("Sure?"))
    plain = [{"role": each.role, "content": each.content} for each in (*messages, assistant("No, 4."))]
    marked = chat.tokenizer.apply_chat_template(
        plain, chat_template=template, return_dict=True, return_assistant_tokens_mask=True, enable_thinking=False
    )
    group = encoded(chat, messages, "No, 4.")
    whole = [*group.prompt_ids, *group.replies[0]]
    assert marked["input_ids"][: len(whole)] == whole
    ours = {len(group.prompt_ids) + at for run in group.scored_runs(0, len(group.replies[0])) for at in run}
    theirs = {at for at, mark in enumerate(marked["assistant_masks"]) if mark}
    assert theirs
    if template == MARKED:
        assert ours == theirs
    markup = chat.control_ids | set(chat.tokenizer.encode("\n", add_special_tokens=False))
    assert {marked["input_ids"][at] for at in ours ^ theirs} <= markup


IDS = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@given(IDS, st.lists(st.tuples(IDS, IDS, st.booleans()), min_size=1, max_size=5))
def test_each_turn_follows_its_own_prompt_and_is_learned_once(
    start: list[int], parts: list[tuple[list[int], list[int], bool]]
) -> None:
    """Whatever of the history a template keeps; as few sequences as there can be."""
    history: list[int] = start
    turns: list[tuple[list[int], list[int]]] = []
    breaks = 0
    for more, reply, rewrites in parts:
        prompt = [*(start if rewrites else history), *more]
        turns.append((prompt, reply))
        breaks += len(turns) > 1 and prompt[: len(history)] != history
        history = [*prompt, *reply]
    group = turns_group(turns)
    assert len(group.replies) == breaks + 1
    found: list[tuple[list[int], list[int]]] = []
    for sequence, (reply, tokens) in enumerate(group.sequences):
        whole = [*group.prompt_ids, *group.replies[reply]]
        first = len(group.prompt_ids)
        marks = [at for run in group.scored_runs(sequence, tokens) for at in run]
        # Runs may touch where a prompt adds nothing to the turn before: then cut them by the turns themselves.
        for prompt, ids in turns[len(found) :]:
            here = range(len(prompt) - first, len(prompt) + len(ids) - first)
            if not set(here) <= set(marks) or whole[: len(prompt)] != prompt:
                break
            found.append((whole[: len(prompt)], whole[len(prompt) : len(prompt) + len(ids)]))
            marks = [at for at in marks if at not in here]
        assert marks == []
    assert found == turns


def test_a_dry_run_shows_every_turn_that_is_learned() -> None:
    """In the plain form too, where what one turn's sequence learns another's only reads."""
    messages: Conversation = (user("Hi"), assistant("Hello."), user("2 + 2?"))
    for chat in (chat_of("llama"), ChatTokenizer(make_tokenizer("gpt2", chat=False), plain=True)):
        group = encoded(chat, messages, "4.")
        shown = shown_row(ReplyRow("u", 0, group), chat)
        assert shown.learnt_tokens == group.scored_tokens
        assert "".join(piece.text for piece in shown.pieces if piece.learnt).count("Hello.") == 1


def test_rows_keep_the_names_of_their_records() -> None:
    record = SFTRecord(uid="u", replica=2, round=1, messages=(user("a"),), reply="b")
    (row,), _ = encode_replies([record], chat_of("llama"), SFTSettings(), 1000, kind="row")
    assert isinstance(row, ReplyRow)
    assert (row.uid, row.replica, row.round) == ("u", 2, 1)
