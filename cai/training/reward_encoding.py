"""Conversations as token groups whose reward is read at their last token."""

from __future__ import annotations

from dataclasses import dataclass

from cai.models.chat import ChatTokenizer
from constitution.messages import Conversation


@dataclass(frozen=True, slots=True)
class ExchangeEncoder:
    """Encodes a reply with all that the template writes after it, up to the last token that is no padding.

    Args:
        tokenizer: Of the reward model.
        pad_token_id: What its classifier takes for padding; None: nothing.
    """

    tokenizer: ChatTokenizer
    pad_token_id: int | None

    def encode_reply(self, messages: Conversation, reply: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of what follows it.

        Raises:
            ModelError: If the template refuses the conversation.
        """
        prompt_ids, reply_ids = self.tokenizer.encode_exchange(messages, reply)
        while reply_ids and reply_ids[-1] == self.pad_token_id:
            reply_ids.pop()
        return prompt_ids, reply_ids

    def encode_turns(self, messages: Conversation, reply: str) -> list[tuple[list[int], list[int]]]:
        """The last turn alone has a reward."""
        return [self.encode_reply(messages, reply)]
