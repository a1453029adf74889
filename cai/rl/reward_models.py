"""A reward model as a reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from cai.models.spec import ModelSpec
from cai.rl.rewards import Reply
from cai.training.packing import TokenGroup
from constitution.messages import Message


class RewardModel(Protocol):
    """What is asked of `cai.training.reward_model.RewardModel`. N conversations, K heads."""

    @property
    def fingerprint(self) -> str: ...

    def read(self) -> None:
        """Read its weights."""
        ...

    def encode(self, conversation: Sequence[Message]) -> Any:
        """A conversation as tokens; something else where it has no reward."""
        ...

    def of_groups(self, groups: Sequence[TokenGroup]) -> np.ndarray:
        """rewards_NK."""
        ...


def open_reward_model(spec: ModelSpec) -> RewardModel:
    """Find what `cai reward` wrote, or any decoder's sequence classifier; its weights are not read yet.

    Raises:
        ModelError: If it cannot be found, or is none.
    """
    return cast("RewardModel", import_module("cai.training.reward_model").RewardModel.open(spec))


class ModelReward:
    """The mean over a reward model's heads; NaN for replies that it cannot read (without text, too long).

    Args:
        model: The reward model.
        name: What tables call it.
    """

    def __init__(self, model: RewardModel, name: str) -> None:
        self._model = model
        self.name = name

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint

    def begin(self) -> None:
        self._model.read()

    def rewards(self, replies: Sequence[Reply]) -> list[float]:
        encoded = [
            self._model.encode((*reply.item.messages, Message(role="assistant", content=reply.text))) for reply in replies
        ]
        readable = [at for at, each in enumerate(encoded) if isinstance(each, TokenGroup)]
        found = [math.nan] * len(replies)
        if readable:
            means: list[float] = self._model.of_groups([encoded[at] for at in readable]).mean(axis=1).tolist()
            for at, mean in zip(readable, means, strict=True):
                found[at] = mean
        return found

    def close(self) -> None: ...
