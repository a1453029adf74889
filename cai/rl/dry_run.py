"""What a run of `cai rl` would do, before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from cai.rl.course import RLCourse
from cai.rl.sampling import items_of_step
from cai.training.memory import TrainingMemory, training_memory
from cai.training.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class RLDryRun:
    """What would be.

    Args:
        model: It starts from this one.
        reward: What is optimised, and `truth` what is only measured.
        prompts: That fit; `dropped` of others, with why.
        replies: Drawn in all.
        most_reply_tokens: Of these, if none ended early.
        optimizer_steps: In all.
        learning_rate: The peak.
        parameters: Of the model; `trainable` of these or of the adapter.
        memory: Of the policy in training; the reward's models come on top.
        free_bytes: Of the machine's memory now.
        first_prompts: Rendered prompts of the first step.
    """

    model: str
    algorithm: str
    reward: str
    truth: str | None
    prompts: int
    dropped: dict[str, str]
    steps: int
    replies: int
    most_reply_tokens: int
    optimizer_steps: int
    learning_rate: float
    parameters: int
    trainable: int
    memory: TrainingMemory
    free_bytes: int
    first_prompts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        plain = {name: getattr(self, name) for name in type(self).__dataclass_fields__ if name != "memory"}
        return plain | {"memory_bytes": self.memory.process_bytes, "device_bytes": self.memory.device_bytes}


def rl_dry_run(course: RLCourse) -> RLDryRun:
    """Find out what training would do; nothing is drawn or judged."""
    settings = course.settings
    skeleton = Skeleton(course.model, settings.training)
    per_step = min(settings.prompts_per_step, len(course.items)) * settings.samples_per_prompt
    replies = settings.steps * per_step
    slots = min(settings.tokens_per_forward, per_step * settings.max_tokens)
    optimizer_steps = settings.steps * settings.epochs * settings.minibatches
    first = items_of_step(course.items, 1, settings.prompts_per_step, settings.seed)
    return RLDryRun(
        model=str(course.model.spec),
        algorithm=settings.algorithm,
        reward=course.reward.name,
        truth=None if course.truth is None else course.truth.name,
        prompts=len(course.items),
        dropped={each.uid: each.reason for each in course.dropped},
        steps=settings.steps,
        replies=replies,
        most_reply_tokens=replies * settings.max_tokens,
        optimizer_steps=optimizer_steps,
        learning_rate=settings.peak_learning_rate,
        parameters=skeleton.parameters,
        trainable=skeleton.trainable,
        memory=training_memory(
            skeleton,
            settings.training,
            course.model.device,
            tokens=settings.tokens_per_forward,
            slots=slots,
            passes=settings.steps + optimizer_steps,  # at least: replies are scored once, then learned
        ),
        free_bytes=psutil.virtual_memory().available,
        first_prompts=tuple(course.model.tokenizer.prompt_text(item.messages) for item in first),
    )
