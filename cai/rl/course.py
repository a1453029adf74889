"""What is optimised on what: a course, read and checked before any weight is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cai.errors import TrainingError
from cai.models.loading import LoadedModel
from cai.models.placement import processes
from cai.models.spec import ModelSpec
from cai.records import Item
from cai.rl.results import DroppedPrompt
from cai.rl.rewards import Reward
from cai.rl.settings import RLSettings
from cai.training.policy import open_policy

_NOT_PART_OF_THE_RUN = {
    "save_every_steps",
    "tokens_per_forward",
    "gradient_checkpointing",
    "shown_samples",
    "merge",
    "reward_timeout_s",
    "reward_limit",
    "reward_patience",
}
"""They decide how a run is computed and when it gives up, not what a step comes to: a run that gave up goes on with others."""


@dataclass(frozen=True)
class RLCourse:
    """What is optimised on what. Reads a tokenizer, and no weights.

    Args:
        model: The policy before training, which is also the reference.
        items: Prompts that fit.
        dropped: Those that do not.
        settings: Of the run.
        reward: What is optimised.
        truth: What is only measured.
    """

    model: LoadedModel
    items: tuple[Item, ...]
    dropped: tuple[DroppedPrompt, ...]
    settings: RLSettings
    reward: Reward
    truth: Reward | None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the trained weights."""
        settings = {
            name: value for name, value in self.settings.model_dump(mode="json").items() if name not in _NOT_PART_OF_THE_RUN
        }
        rewards = [self.reward.fingerprint, None if self.truth is None else self.truth.fingerprint]
        digest = hashlib.sha256(json.dumps([2, self.model.fingerprint, settings, rewards], sort_keys=True).encode())
        for item in self.items:
            content = [item.uid, [[message.role, message.content] for message in item.messages]]
            digest.update(json.dumps(content).encode() + b"\n")
        return digest.hexdigest()


def rl_course(
    model_spec: ModelSpec, items: Sequence[Item], settings: RLSettings, reward: Reward, truth: Reward | None = None
) -> RLCourse:
    """What `train_rl` would do.

    Raises:
        ModelError: The model cannot be found.
        TrainingError: No prompt is left, or several processes were started.
    """
    if processes() > 1:
        raise TrainingError("`cai rl` trains in one process", "start it without torchrun or accelerate launch")
    model = open_policy(model_spec, settings.training)
    longest = min(settings.max_prompt_tokens, model.context_tokens - settings.max_tokens)
    kept: list[Item] = []
    dropped: list[DroppedPrompt] = []
    for item in items:
        tokens = model.tokenizer.count(item.messages)
        if tokens > longest:
            dropped.append(DroppedPrompt(uid=item.uid, reason=f"{tokens} tokens, {longest} allowed"))
        else:
            kept.append(item)
    if not kept:
        told = f"there is no prompt to train on ({len(dropped)} are too long)"
        if longest < settings.max_prompt_tokens:
            raise TrainingError(
                f"{told}: the model reads {model.context_tokens} tokens, and a reply may take {settings.max_tokens} of them",
                "lower rl.max_tokens",
            )
        raise TrainingError(told, "raise rl.max_prompt_tokens")
    return RLCourse(model, tuple(kept), tuple(dropped), settings, reward, truth)
