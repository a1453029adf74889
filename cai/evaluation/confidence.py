"""How sure a model is of what it answers: by the probabilities of options, and in its own words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cai.engines.base import Engine, RequestFailure, ScoreRequest
from cai.evaluation.suite_cases import Question
from cai.evaluation.suite_results import ConfidenceResult
from cai.labels.calibration import bin_of, binned_error, calibration


@dataclass(frozen=True, slots=True)
class Belief:
    """How sure a model is of one answer, in [0, 1], and whether it is right. `key` names the question and the try."""

    key: str
    cluster: str
    confidence: float
    right: bool
    by_word: bool = False


def token_beliefs(engine: Engine, questions: Sequence[Question]) -> list[Belief | RequestFailure]:
    """The likeliest option of each question, and its share of the probability of all of them (softmax of their sums).

    The options' log-probabilities are summed over their tokens: options should be of similar length.
    """
    requests = [
        ScoreRequest(each.item.messages, tuple(f" {option}" for option in each.options), each.beginning) for each in questions
    ]
    found: list[Belief | RequestFailure] = [RequestFailure("no_answer", "the engine gave no result")] * len(questions)
    for index, result in engine.score(requests):
        found[index] = result if isinstance(result, RequestFailure) else _belief(questions[index], result.logps)
    return found


def _belief(question: Question, logps: Sequence[float]) -> Belief | RequestFailure:
    most = max(logps)
    if any(map(math.isnan, logps)) or not math.isfinite(most):
        return RequestFailure("not_a_number", "an option has no log-probability")
    weights = [math.exp(logp - most) for logp in logps]
    # The first option is true. In a tie with another it is no more right than that one.
    right = logps[0] == most and sum(logp == most for logp in logps) == 1
    return Belief(question.item.uid, question.cluster, 1 / sum(weights), right)


def confidence_result(way: str, beliefs: Sequence[Belief], *, least: float, unparsed: int = 0) -> ConfidenceResult:
    """Reliability of beliefs; `least` is the lowest confidence there can be.

    Raises:
        ValueError: If there is none.
    """
    p_N, right_N = arrays(beliefs)
    return ConfidenceResult.model_validate(
        {
            "way": way,
            "mean_confidence": float(p_N.mean()),
            "accuracy": float(right_N.mean()),
            "unparsed": unparsed,
            "by_word": sum(belief.by_word for belief in beliefs),
            "calibration": calibration(p_N, right_N, least=least, clusters=[belief.cluster for belief in beliefs]),
        }
    )


def arrays(beliefs: Sequence[Belief]) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and truths."""
    return np.array([each.confidence for each in beliefs]), np.array([float(each.right) for each in beliefs])


def expected_error(p_N: np.ndarray, right_N: np.ndarray, *, least: float) -> float:
    """Expected calibration error over the bins of `cai.labels.calibration`."""
    return binned_error(p_N - right_N, bin_of(p_N, least))
