"""How likely a judge's next word is one of two: the probabilities of letters, or of yes and no.

A word has two spellings, with a space before it and without; those count that are one token of the model, since the probability
of one that is several tokens is also that of everything else that begins so. Both are added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cai.engines.base import RequestFailure
from cai.errors import EngineError
from cai.verdicts import NOT_A_NUMBER
from constitution.messages import Conversation, user

CountTokens: TypeAlias = Callable[[Conversation, str], int]
"""Length in tokens of a conversation and of the beginning of the judge's turn: `Engine.count_tokens`."""

_PROBE = (user("Hello"),)


@dataclass(frozen=True, slots=True)
class Spellings:
    """Token variants of two words, as continuations of one score request: those of the first word come first."""

    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def continuations(self) -> tuple[str, ...]:
        return (*self.first, *self.second)

    def odds(self, logps: Sequence[float]) -> tuple[float, float] | RequestFailure:
        """Log-odds in nats of the first word against the second, and the probability, in [0, 1], of neither."""
        if any(math.isnan(logp) for logp in logps):
            return NOT_A_NUMBER
        first, second = _log_sum(logps[: len(self.first)]), _log_sum(logps[len(self.first) :])
        if not math.isfinite(first - second):
            words = f"{self.first[0].strip()} or {self.second[0].strip()}"
            return RequestFailure("no_odds", f"the labelling model gives {words} no probability at all")
        return first - second, min(1.0, max(0.0, 1.0 - math.exp(first) - math.exp(second)))


def spellings(count: CountTokens, words: tuple[str, str], prefix: str = "") -> Spellings:
    """The spellings of two words after `prefix` that are one token each; no weights are needed.

    The usual one comes first: with a space after a prefix, without at the beginning of a turn.

    Raises:
        EngineError: If a word is several tokens in every spelling.
    """
    empty = count(_PROBE, prefix)

    def found(word: str) -> tuple[str, ...]:
        single = tuple(each for each in _variants(word, prefix) if count(_PROBE, prefix + each) <= empty + 1)
        if not single:
            raise EngineError(
                f"“{word}” is more than one token of the labelling model, so it has no probability of its own.",
                "Label with `labels.method: pointwise`, or with another model.",
            )
        return single

    return Spellings(found(words[0]), found(words[1]))


def every_spelling(words: tuple[str, str], prefix: str = "") -> Spellings:
    """Both spellings of each word, whatever the tokens of a model are."""
    return Spellings(_variants(words[0], prefix), _variants(words[1], prefix))


def _variants(word: str, prefix: str) -> tuple[str, str]:
    return (f" {word}", word) if prefix else (word, f" {word}")


def _log_sum(logps: Sequence[float]) -> float:
    top = max(logps)
    if math.isinf(top):
        return top
    return top + math.log(sum(math.exp(logp - top) for logp in logps))
