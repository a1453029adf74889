"""Held-out prompts found again in rows that would be trained on."""

from __future__ import annotations

import pytest

from cai.data.filters.held_out_prompts import HeldOutPrompts
from cai.records import SFTRecord
from constitution.messages import Conversation, assistant, system, user

QUESTION = "Which of the two large rivers that meet in the old town is the longer one, and by how much"
HELD_OUT = HeldOutPrompts([(user(f"{QUESTION}?"),), (system("Be kind."), user("Hi!"), assistant("Hello."), user("?!"))])


def found(*turns: str, reply: str = "So.") -> str | None:
    messages: Conversation = tuple(assistant(text) if n % 2 else user(text) for n, text in enumerate(turns))
    return HELD_OUT.find(SFTRecord(uid="u", messages=messages, reply=reply))


@pytest.mark.parametrize(
    ("turns", "reply", "what"),
    [
        ((QUESTION.upper(),), "So.", "what a held-out prompt asks"),
        (("?!",), "So.", "what a held-out prompt asks"),
        ((f"{QUESTION}?", "So.", "Thanks."), "Welcome.", "what a held-out prompt asks"),
        ((f"Please: {QUESTION}?",), "So.", "nearly what a held-out prompt asks"),
        (("What did I say?",), f"You said: {QUESTION}.", "a passage"),
        (("What did I say?", f"You said: {QUESTION}.", "Yes?"), "Yes.", "a passage"),
    ],
)
def test_a_held_out_prompt_is_found_in_any_turn(turns: tuple[str, ...], reply: str, what: str) -> None:
    detail = found(*turns, reply=reply)
    assert detail is not None
    assert what in detail


@pytest.mark.parametrize("turns", [("Hi!",), ("Which of the two rivers is the longer one?",), ("Be kind.",), ("??",)])
def test_what_only_has_words_in_common_is_none(turns: tuple[str, ...]) -> None:
    """Earlier turns of a held-out conversation, its system turn and its topic are nobody's secret."""
    assert found(*turns) is None
    assert found(*turns) is None, "rows are never compared with one another"
