"""What an engine does with a prompt in a context of some length: nothing is ever cut out of a prompt.

A prompt that leaves no room is refused, and its row fails as `prompt_too_long` and is counted. A prompt that leaves too little
gets a reply that ends at the context's end and is marked as cut. How an engine batches (`cai.engines.limits`) decides how many
prompts go into one pass, never what becomes of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Fate: TypeAlias = Literal["fits", "reply_cut", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One prompt in one context.

    Args:
        context: Its length in tokens.
        fate: What happens.
        tokens: Of the prompt, with the longest continuation where continuations are scored.
        max_tokens: Of the reply; 0 where nothing is written.
    """

    context: int
    fate: Fate
    tokens: int
    max_tokens: int

    @property
    def spare(self) -> int:
        """Tokens left beside the prompt; negative when it is too long."""
        return self.context - self.tokens

    def __str__(self) -> str:
        where = f"the context of {self.context:,}"
        match self.fate:
            case "refused" if self.spare < 0:
                return f"refused: {self.tokens:,} tokens, {-self.spare:,} over {where}"
            case "refused":
                return f"refused: {self.tokens:,} tokens leave no room for a reply in {where}"
            case "reply_cut":
                return f"reply cut after {self.spare:,} of its {self.max_tokens:,} tokens: {self.tokens:,} stand in {where}"
            case "fits":
                reply = f" with a reply of {self.max_tokens:,}" if self.max_tokens else ""
                return f"fits{reply}: {self.spare - self.max_tokens:,} to spare in {where}"


def outcome(tokens: int, max_tokens: int, context: int) -> Outcome:
    """What becomes of a prompt, by the rule of `LocalEngine`.

    Args:
        tokens: Of the prompt; with the longest continuation where continuations are scored.
        max_tokens: Longest reply; 0 for scores.
        context: The model's, in tokens.
    """
    fate: Fate = "fits"
    if tokens + (1 if max_tokens else 0) > context:
        fate = "refused"
    elif tokens + max_tokens > context:
        fate = "reply_cut"
    return Outcome(context, fate, tokens, max_tokens)
