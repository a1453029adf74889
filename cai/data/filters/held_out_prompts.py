"""Prompts that a model is only asked, before and after, found again in rows that it would be trained on."""

from __future__ import annotations

from collections.abc import Iterable

from cai.data.filters.findings import Reply
from cai.data.filters.leakage import EvaluationSet
from cai.data.filters.near_duplicates import SeenRows
from cai.data.filters.sentences import normal
from cai.data.filters.settings import HELD_OUT_SET, FilterRules
from cai.records import SFTRecord
from constitution.messages import Conversation, user


class HeldOutPrompts:
    """Finds a held-out prompt's last turn in any turn of a row: word for word, nearly so, or a passage of it.

    Args:
        prompts: Each ends with a user turn.
        rules: Say what nearly means.
    """

    def __init__(self, prompts: Iterable[Conversation], rules: FilterRules | None = None) -> None:
        self._rules = rules or FilterRules()
        self._questions = {_said(prompt[-1].content) for prompt in prompts}
        self._passages = EvaluationSet.of(HELD_OUT_SET, self._questions)
        self._seen = SeenRows()
        for question in sorted(filter(normal, self._questions)):
            self._seen.remember(Reply((user(question),), "", uid=question))

    def find(self, row: SFTRecord) -> str | None:
        """What of the held-out prompts is in the row, in words; None for nothing."""
        for question in (_said(message.content) for message in row.messages if message.role == "user"):
            if question in self._questions:
                return "it asks what a held-out prompt asks"
            # Texts without a word are all alike.
            if normal(question) and self._seen.like(Reply((user(question),), ""), self._rules) is not None:
                return "it asks nearly what a held-out prompt asks"
        texts = (*(message.content for message in row.messages if message.role != "system"), row.reply)
        if any(self._passages.find(text) is not None for text in texts):
            return "it holds a passage of a held-out prompt"
        return None


def _said(text: str) -> str:
    """The words, however they are written; of a text without a word, the text."""
    return normal(text) or text.strip()
