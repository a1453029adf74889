"""What a way to a model costs, in tokens that pass through a model: a measure that no other load on the machine changes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cai.engines.base import EngineStatistics

TRAINED_TOKEN_COST = 2.0
"""In forward passes. Backward through frozen weights takes the gradient of activations alone, as much as the way forward; those
of the adapters are small (2N + 2N FLOPs for N weights, where training all of them takes 6N)."""


class Passes(BaseModel):
    """Tokens that went through the policy, its reference or the feedback model, by what was done with them.

    `read`: prompts before an answer, `drawn`: tokens of answers, `scored`: forward alone, to be judged or as
    log-probabilities,
    `trained`: forward and backward. What was shared or remembered did not pass and is not in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    read: int = 0
    drawn: int = 0
    scored: int = 0
    trained: int = 0

    @property
    def cost(self) -> float:
        """In tokens forward."""
        return self.read + self.drawn + self.scored + TRAINED_TOKEN_COST * self.trained

    def __add__(self, other: Passes) -> Passes:
        return Passes(
            read=self.read + other.read,
            drawn=self.drawn + other.drawn,
            scored=self.scored + other.scored,
            trained=self.trained + other.trained,
        )


def passes_of_engine(done: EngineStatistics) -> Passes:
    """Of all that an engine has done since it was opened."""
    return Passes(read=done.prompt_tokens, drawn=done.completion_tokens, scored=done.scored_tokens)
