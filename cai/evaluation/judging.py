"""A model as judge: of one answer under a principle, and of two answers in both orders; and how good a judge it is.

With log-probabilities a judgement is their odds (`cai.verdicts`, `cai.labels.letters`). A served model that gives none is asked
in words instead, and the first verdict or letter that it writes counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from cai.engines.base import Engine, GenerationRequest, RequestFailure, SamplingParams
from cai.evaluation.suites import Judgement
from cai.labels.letters import ORDERS, Compared, compare
from cai.labels.shares import Share
from cai.verdicts import Judged, judge
from constitution.messages import Conversation, user
from constitution.rendering import (
    COMPARISON_PREFIX,
    LETTERS,
    principle_text,
    read_critique,
    render_comparison,
    render_critique,
)
from constitution.schema import Principle, PrincipleTest

By: TypeAlias = Literal["odds", "words"]
LONGEST_LETTER_TOKENS = 24

_LETTER = re.compile(
    rf"(?:{re.escape(COMPARISON_PREFIX)}|^)\W*(?:(?i:reply|answer|response|option)\W+)?([AB])\b(?! (?!is\b|because\b)[a-z])",
    re.MULTILINE,
)
"""An A that goes on in small letters ("A good reply …") is a word; "A is better" names the letter."""


class JudgeQuality(BaseModel):
    """How good a judge is at what is known: printed beside everything it says.

    Args:
        judge: Its name.
        principle: Under which it judges.
        right: Of its verdicts on the principle's own tests: one alone for each answer, or one for each order of a pair.
        same_slot: Pairs of the tests in which both orders name the same letter; None where it judges one answer at a time.
        failed: Verdicts it did not give.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    principle: str
    right: Share | None
    same_slot: Share | None = None
    failed: int = 0

    @property
    def at_chance(self) -> bool:
        """Whether it is not shown to be better than a coin."""
        return self.right is None or self.right.low <= 0.5


@dataclass(frozen=True, slots=True)
class Preference:
    """What a judge says of two answers.

    Args:
        orders: In either order, of the first answer: 1 won, 0 lost, 0.5 where the odds are even (in half precision
            they often are).
    """

    orders: tuple[float, float]

    @property
    def score(self) -> float:
        """Of the first answer: 1 won, 0 lost, 0.5 where the orders contradict each other, as after naming one slot twice."""
        return sum(self.orders) / 2

    @property
    def same_slot(self) -> bool:
        """Both orders name the same place."""
        return abs(self.orders[0] - self.orders[1]) == 1


class JudgeModel:
    """A model that judges.

    Args:
        name: Shown beside its figures.
        open_engine: Called when it is first needed.
        by: Whether it gives log-probabilities.
        ground_tokens: The longest reasoning before a verdict.
        seed: Of its noise; it answers greedily.
    """

    def __init__(
        self, name: str, open_engine: Callable[[], Engine], *, by: By = "odds", ground_tokens: int = 48, seed: int = 0
    ) -> None:
        self.name = name
        self.by: By = by
        self._open = open_engine
        self._ground_tokens = ground_tokens
        self._seed = seed

    @cached_property
    def _engine(self) -> Engine:
        return self._open()

    @property
    def description(self) -> str:
        """For tables."""
        return f"{self.name}, {'by the odds of its verdicts' if self.by == 'odds' else 'in its own words'}"

    def verdicts(self, asked: Sequence[tuple[Conversation, str, Principle]]) -> list[Judgement]:
        """Does each answer follow its principle? In the order given."""
        if self.by == "words":
            return self._verdicts_in_words(asked)
        questions = [
            Judged(conversation, reply, principle, f"{self._seed}/{principle.id}/0/verdict/0")
            for conversation, reply, principle in asked
        ]
        return [
            Judgement("unjudged", each.cause)
            if isinstance(each, RequestFailure)
            else Judgement("good" if each.log_odds_nats > 0 else "bad", each.ground)
            for each in judge(self._engine, questions, ground_tokens=self._ground_tokens)
        ]

    def _verdicts_in_words(self, asked: Sequence[tuple[Conversation, str, Principle]]) -> list[Judgement]:
        prompts = [render_critique(principle, conversation, reply) for conversation, reply, principle in asked]
        found: list[Judgement] = []
        for text in self._written(prompts, self._ground_tokens + LONGEST_LETTER_TOKENS, "verdict"):
            if isinstance(text, RequestFailure):
                found.append(Judgement("unjudged", text.cause))
                continue
            reading = read_critique(text)
            if reading.nothing_to_change:
                found.append(Judgement("good", reading.ground))
            elif reading.fault != text.strip():
                found.append(Judgement("bad", reading.fault))
            else:
                found.append(Judgement("unjudged", "the judge writes no verdict"))
        return found

    def preferences(
        self, asked: Sequence[tuple[Conversation, str, str]], principle: Principle
    ) -> list[Preference | RequestFailure]:
        """Which of two answers follows the principle better, in both orders."""
        if self.by == "words":
            return self._preferences_in_words(asked, principle)
        compared = compare(self._engine, [Compared(conversation, a, b, principle) for conversation, a, b in asked])
        return [
            each if isinstance(each, RequestFailure) else Preference((_won(each.margins_nats[0]), _won(each.margins_nats[1])))
            for each in compared
        ]

    def _preferences_in_words(
        self, asked: Sequence[tuple[Conversation, str, str]], principle: Principle
    ) -> list[Preference | RequestFailure]:
        prompts = [
            render_comparison(principle, conversation, *((a, b) if order == "first_second" else (b, a)))
            for conversation, a, b in asked
            for order in ORDERS
        ]
        letters = [
            text if isinstance(text, RequestFailure) else read_letter(text)
            for text in self._written(prompts, LONGEST_LETTER_TOKENS, "preference")
        ]
        found: list[Preference | RequestFailure] = []
        for straight, swapped in zip(letters[::2], letters[1::2], strict=True):
            if isinstance(straight, RequestFailure):
                found.append(straight)
            elif isinstance(swapped, RequestFailure):
                found.append(swapped)
            else:
                found.append(Preference((float(straight == LETTERS[0]), float(swapped == LETTERS[1]))))
        return found

    def _written(self, prompts: Sequence[Conversation], max_tokens: int, stage: str) -> list[str | RequestFailure]:
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        requests = [GenerationRequest(prompt, params, f"{self._seed}/judge/0/{stage}/0") for prompt in prompts]
        texts: list[str | RequestFailure] = [RequestFailure("no_answer", "the engine gave no result")] * len(prompts)
        for index, result in self._engine.generate(requests):
            texts[index] = result if isinstance(result, RequestFailure) else result.text
        return texts

    def quality(self, principle: Principle, tests: Sequence[PrincipleTest], *, pairwise: bool) -> JudgeQuality:
        """Ask what is known: the tests of a principle."""
        if pairwise:
            pairs = self.preferences([((user(test.prompt),), test.better, test.worse) for test in tests], principle)
            given = [each for each in pairs if isinstance(each, Preference)]
            return JudgeQuality(
                judge=self.description,
                principle=principle_text(principle),
                right=Share.of(sum(sum(each.orders) for each in given), 2 * len(given)),
                same_slot=Share.of(sum(each.same_slot for each in given), len(given)),
                failed=2 * (len(pairs) - len(given)),
            )
        asked = [((user(test.prompt),), reply, principle) for test in tests for reply in (test.better, test.worse)]
        outcomes = [each.outcome for each in self.verdicts(asked)]
        right = [outcome == wanted for outcome, wanted in zip(outcomes, ("good", "bad") * len(tests), strict=True)]
        given_count = sum(outcome != "unjudged" for outcome in outcomes)
        return JudgeQuality(
            judge=self.description,
            principle=principle_text(principle),
            right=Share.of(sum(right), given_count),
            failed=len(outcomes) - given_count,
        )


def _won(margin_nats: float) -> float:
    return 0.5 if margin_nats == 0 else float(margin_nats > 0)


def read_letter(text: str) -> str | RequestFailure:
    """The letter that an answer to a comparison names first."""
    found = _LETTER.search(text)
    return found[1] if found else RequestFailure("no_letter", f"the judge names neither A nor B: {text[:60]!r}")
