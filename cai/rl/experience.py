"""What is known of a batch of replies before the policy is moved: log-probabilities, divergences, values, advantages.

Shape suffixes: R replies, M their tokens, in the order of pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from cai.rl import advantages as adv
from cai.rl.sampling import Rollout, Sample
from cai.rl.settings import RLSettings
from cai.training.packing import Layout, TokenGroup


@dataclass(frozen=True, slots=True)
class Piece:
    """Replies to one prompt that go through the model together, and where they stand among all replies and tokens."""

    group: TokenGroup
    replies: slice
    tokens: slice
    prompt: int
    """Number of the prompt that they answer, within the batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The replies of a step that can be trained on.

    Args:
        rollouts: Prompts with the replies that have a reward.
        rewards: Of these, [R] in float64.
        pieces: The same replies, cut so that each piece fits into one forward pass.
        lengths: Tokens of each reply.
    """

    rollouts: tuple[Rollout, ...]
    rewards: Tensor
    pieces: tuple[Piece, ...]
    lengths: tuple[int, ...]

    @property
    def samples(self) -> list[Sample]:
        return [sample for rollout in self.rollouts for sample in rollout.samples]


@dataclass(frozen=True, slots=True)
class Known:
    """Of each token [M], float64: log-probability under the policy that drew it and under the reference (nats), and value."""

    logps: Tensor
    ref_logps: Tensor
    values: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What the losses of tokens are made with, [M]; `returns` where there are values."""

    advantages: Tensor
    returns: Tensor | None = None


def batch_of(
    rollouts: Sequence[Rollout], rewards: Sequence[float], layout: Layout, tokens_per_forward: int, *, least: int
) -> Batch:
    """Replies with a finite reward, of prompts that have at least so many of them; the others are left out.

    Args:
        rollouts: Of the step.
        rewards: Of all their replies, in order; NaN where there is none.
        layout: Of forward passes.
        tokens_per_forward: Most positions of one piece (one reply at least).
        least: 2 where replies are compared with their siblings.
    """
    kept: list[Rollout] = []
    values: list[float] = []
    pieces: list[Piece] = []
    lengths: list[int] = []
    place = 0
    for rollout in rollouts:
        own = rewards[place : place + len(rollout.samples)]
        place += len(rollout.samples)
        usable = [at for at, reward in enumerate(own) if math.isfinite(reward)]
        if len(usable) < least:
            continue
        samples = tuple(rollout.samples[at] for at in usable)
        first = 0
        for count in _cut(rollout.prompt_ids, samples, layout, tokens_per_forward):
            some = samples[first : first + count]
            first += count
            replies = slice(len(lengths), len(lengths) + count)
            start = sum(lengths)
            lengths += [len(sample.ids) for sample in some]
            group = TokenGroup(rollout.prompt_ids, tuple(sample.ids for sample in some))
            pieces.append(Piece(group, replies, slice(start, sum(lengths)), len(kept)))
        kept.append(Rollout(rollout.item, rollout.prompt_ids, samples, rollout.failures))
        values += [own[at] for at in usable]
    return Batch(tuple(kept), torch.tensor(values, dtype=torch.float64), tuple(pieces), tuple(lengths))


def _cut(prompt: tuple[int, ...], samples: Sequence[Sample], layout: Layout, tokens_per_forward: int) -> list[int]:
    """How many replies each piece has: as many as fit."""
    counts: list[int] = []
    open_: list[tuple[int, ...]] = []
    for sample in samples:
        lengths = TokenGroup(prompt, (*open_, sample.ids)).row_lengths(layout)
        if open_ and len(lengths) * max(lengths) > tokens_per_forward:
            counts.append(len(open_))
            open_ = []
        open_.append(sample.ids)
    return [*counts, len(open_)] if open_ else counts


def targets_of(batch: Batch, known: Known, settings: RLSettings) -> Targets:
    """Advantages by the algorithm, with KL already paid for where it is paid in the reward."""
    lengths = batch.lengths
    beta = settings.beta if settings.kl_in == "reward" else 0.0
    kl_M = adv.k1(known.logps, known.ref_logps)
    if settings.algorithm == "ppo":
        assert known.values is not None
        rewards_M = adv.token_rewards(batch.rewards, kl_M, lengths, beta)
        advantages_M, returns_M = adv.gae(rewards_M, known.values, lengths, gamma=settings.gamma, lam=settings.lam)
        return Targets(adv.whiten(advantages_M) if settings.whiten else advantages_M, returns_M)
    rewards_R = batch.rewards - beta * adv.reply_sums(kl_M, lengths)
    of_groups: list[Tensor] = []
    first = 0
    for rollout in batch.rollouts:
        own_G = rewards_R[first : first + len(rollout.samples)]
        first += len(rollout.samples)
        scaled = settings.scale_groups
        of_groups.append(adv.leave_one_out(own_G) if settings.algorithm == "rloo" else adv.group_relative(own_G, scaled=scaled))
    return Targets(adv.spread(torch.cat(of_groups), lengths))


def minibatches(batch: Batch, count: int, generator: torch.Generator) -> list[list[Piece]]:
    """Pieces in so many parts (fewer where there are fewer prompts), the replies to one prompt together, in a drawn order."""
    prompts = cast("list[int]", cast("Any", torch.randperm(len(batch.rollouts), generator=generator)).tolist())
    parts = [prompts[at::count] for at in range(min(count, len(prompts)))] if count > 1 else [list(range(len(prompts)))]
    return [[piece for piece in batch.pieces if piece.prompt in set(part)] for part in parts]
