"""The constitution as a reward: how sure the feedback model is that a reply keeps its principles.

Of each principle that applies to a prompt, the score of `cai.labels.alone` in nats (by default the log-odds that a critique
finds nothing to change); the reward is their mean, weighted by the principles' weights where the labels' ensemble is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cai.engines.base import Engine
from cai.errors import ConfigError
from cai.labels.alone import AnswerScore, score_answers
from cai.labels.settings import LabelSettings
from cai.records import Item
from cai.rl.rewards import Reply
from cai.store.canonical import fingerprint as hashed
from cai.verdicts import Judged
from constitution.schema import Constitution, Principle
from constitution.selection import applicable, select_principle


class MarginReward:
    """Log-odds of the feedback model, in nats.

    Args:
        engine: The feedback model, which is not the one that is trained: its weights must stay.
        constitution: The principles.
        settings: Of the labels; a method that judges one answer at a time.
        per_reply: Draw so many of the principles that apply, for each prompt; None: all.
        seed: Of that draw.

    Raises:
        ConfigError: If the method compares two answers.
    """

    name = "constitution"

    def __init__(
        self, engine: Engine, constitution: Constitution, settings: LabelSettings, *, per_reply: int | None, seed: int
    ) -> None:
        if settings.method == "letters":
            raise ConfigError(
                "`rl.reward: constitution` judges one reply at a time, and `labels.method: letters` compares two",
                "set labels.method to pointwise, yes_no or contrast",
            )
        self._engine = engine
        self._constitution = constitution
        self._settings = settings
        self._per_reply = per_reply
        self._seed = seed

    @property
    def fingerprint(self) -> str:
        chosen = {name: getattr(self._settings, name) for name in ("method", "ensemble", "ground_tokens", "contrast_against")}
        return hashed([self._engine.fingerprint, self._constitution.fingerprint, chosen, self._per_reply, self._seed])

    def rewards(self, replies: Sequence[Reply]) -> list[float]:
        """Of each reply; NaN where no principle applies, or the model could not judge by any of them."""
        asked: list[Judged] = []
        owners: list[tuple[int, float]] = []
        weighted = self._settings.ensemble == "weighted"
        for at, reply in enumerate(replies):
            for principle in self._principles(reply.item):
                key = f"{self._seed}/{reply.item.uid}/0/reward/{principle.id}"
                asked.append(Judged(reply.item.messages, reply.text, principle, key))
                owners.append((at, principle.weight if weighted else 1.0))
        sums, weights = [0.0] * len(replies), [0.0] * len(replies)
        for (at, weight), score in zip(owners, score_answers(self._engine, asked, self._settings), strict=True):
            if isinstance(score, AnswerScore):
                sums[at] += weight * score.nats
                weights[at] += weight
        return [total / weight if weight else math.nan for total, weight in zip(sums, weights, strict=True)]

    def begin(self) -> None: ...

    def close(self) -> None: ...

    def _principles(self, item: Item) -> Sequence[Principle]:
        if self._per_reply is None:
            return applicable(self._constitution, item.tags)
        drawn = (
            select_principle(self._constitution, seed=self._seed, uid=item.uid, round=at, tags=item.tags)
            for at in range(self._per_reply)
        )
        return list({principle.id: principle for principle in drawn if principle is not None}.values())
