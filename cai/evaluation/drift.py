"""Signs of a model that has learned to please its judge: distance from the start model, length, and the same words again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cai.data.filters.sentences import normal, words
from cai.engines.base import Engine, RequestFailure, ScoreRequest
from constitution.messages import Conversation

EDGE_WORDS = 3
"""Words that make up an opening or a closing."""


def length_words(text: str) -> int:
    return len(words(text))


def opening(text: str) -> str:
    """The first words, in lower case."""
    return " ".join(normal(text).split()[:EDGE_WORDS])


def closing(text: str) -> str:
    """The last words, in lower case."""
    return " ".join(normal(text).split()[-EDGE_WORDS:])


def alike_share(units_N: np.ndarray, clusters_N: np.ndarray) -> float:
    """How likely two answers to prompts of different clusters are to have the same unit, in [0, 1]; 0 with one cluster.

    A share of the commonest unit would grow where a bootstrap draws rows twice; this does not, for rows of one cluster are
    never compared.

    Args:
        units_N: A number for each unit; −1: none, which is like no other.
        clusters_N: A number for each cluster.
    """
    n = len(units_N)
    pairs = n * n - int((np.bincount(clusters_N) ** 2).sum())
    whole = units_N >= 0
    if not pairs or not whole.any():
        return 0.0
    both = units_N[whole].astype(np.int64) * (int(clusters_N.max()) + 1) + clusters_N[whole]
    alike = int((np.bincount(units_N[whole]) ** 2).sum()) - int((np.unique(both, return_counts=True)[1] ** 2).sum())
    return alike / pairs


def numbered(names: Sequence[str]) -> np.ndarray:
    """A number for each different name, −1 for the empty one."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(name, len(places)) if name else -1 for name in names])


@dataclass(frozen=True, slots=True)
class LogRatio:
    """log π(y | x) − log ref(y | x) in nats, over the whole answer y, and its tokens by the policy's tokenizer."""

    nats: float
    tokens: int


def own_logps(engine: Engine, answered: Sequence[tuple[Conversation, str]]) -> list[tuple[float, int] | RequestFailure]:
    """Log-probability in nats and length in tokens of each answer, under one model. Empty answers are failures."""
    requests = [ScoreRequest(conversation, (text,)) for conversation, text in answered]
    found: list[tuple[float, int] | RequestFailure] = [RequestFailure("empty_answer", "there is no token to score")] * len(
        answered
    )
    written = [index for index, (_, text) in enumerate(answered) if text]
    for position, result in engine.score([requests[index] for index in written]):
        index = written[position]
        if isinstance(result, RequestFailure):
            found[index] = result
            continue
        conversation, text = answered[index]
        tokens = engine.count_tokens(conversation, text) - engine.count_tokens(conversation)
        found[index] = result.logps[0], max(1, tokens)
    return found


def log_ratios(
    policy: Sequence[tuple[float, int] | RequestFailure], start: Sequence[tuple[float, int] | RequestFailure]
) -> list[LogRatio | RequestFailure]:
    """Of the policy's own answers, scored by both models.

    Their mean is an unbiased estimate of KL(π ‖ ref) where answers are drawn from π at temperature 1 and nothing is cut off by
    `top_p` or `top_k`. The text is what is scored: where it is not split into the tokens that were drawn, that is an error of
    the estimate.
    """
    found: list[LogRatio | RequestFailure] = []
    for one, other in zip(policy, start, strict=True):
        if isinstance(one, RequestFailure):
            found.append(one)
        else:
            found.append(other if isinstance(other, RequestFailure) else LogRatio(one[0] - other[0], one[1]))
    return found


def nats_per_token(ratios_N: np.ndarray, tokens_N: np.ndarray) -> float:
    """KL a token: sum of log-ratios over sum of tokens."""
    return float(ratios_N.sum() / tokens_N.sum())
