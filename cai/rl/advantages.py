"""From rewards to advantages: how much better a token or a reply was than expected.

Pure tensor functions, no model; float64 in, float64 out. Shape suffixes: R replies, M their tokens one reply behind the other
(`lengths` says how many each has), G replies of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

GROUP_EPSILON = 1e-4
"""Added to a group's standard deviation, as TRL does: without it a group of nearly equal rewards would count for ever more."""
_WHITEN_EPSILON = 1e-8


def k1(logps_M: Tensor, ref_logps_M: Tensor) -> Tensor:
    """Log π − log ref of each token: an unbiased estimate of KL(π ‖ ref) where π drew the tokens; may be negative.

    Schulman 2020, "Approximating KL divergence" (k1).
    """
    return logps_M - ref_logps_M


def k3(logps_M: Tensor, ref_logps_M: Tensor) -> Tensor:
    """R − 1 − log r with r = ref/π: unbiased as `k1`, never negative, and of less variance where both are near (k3, ibid.)."""
    log_ratio_M = ref_logps_M - logps_M
    return torch.expm1(log_ratio_M) - log_ratio_M


def token_rewards(scores_R: Tensor, kl_M: Tensor, lengths: Sequence[int], beta: float) -> Tensor:
    """Reward of each token: −beta · KL, and with a reply's last token its score (Ziegler et al. 2019, eq. 2; InstructGPT).

    Args:
        scores_R: What the reward says of each reply.
        kl_M: Estimates of the divergence at each token (`k1`), in nats.
        lengths: Tokens of each reply, at least one.
        beta: What a nat costs, in units of the reward.
    """
    rewards_M = -beta * kl_M
    rewards_M[torch.tensor(lengths).cumsum(0) - 1] += scores_R
    return rewards_M


def reply_sums(values_M: Tensor, lengths: Sequence[int]) -> Tensor:
    """The sum over each reply's tokens, sums_R."""
    reply_M = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return values_M.new_zeros(len(lengths)).index_add(0, reply_M, values_M)


def spread(values_R: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each reply's value at each of its tokens, values_M."""
    return torch.repeat_interleave(values_R, torch.tensor(lengths))


def gae(rewards_M: Tensor, values_M: Tensor, lengths: Sequence[int], *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16).

    A_t = Σ_l (γλ)^l δ_{t+l}, δ_t = r_t + γ V_{t+1} − V_t, with V = 0 behind a reply's last token.

    Args:
        rewards_M: Of each token, from `token_rewards`.
        values_M: Expected return before each token.
        lengths: Tokens of each reply.
        gamma: Discount of a token later, in [0, 1].
        lam: λ in [0, 1]: 0 trusts the values, 1 the returns.

    Returns:
        advantages_M, and returns_M = advantages + values, what the values are fitted to.
    """
    advantages_M = torch.zeros_like(values_M)
    rewards: list[float] = cast("Any", rewards_M).tolist()
    values: list[float] = cast("Any", values_M).tolist()
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        ahead = following = 0.0
        for at in range(stop - 1, start - 1, -1):
            delta = rewards[at] + gamma * following - values[at]
            ahead = delta + gamma * lam * ahead
            advantages_M[at] = ahead
            following = values[at]
    return advantages_M, advantages_M + values_M


def whiten(values_M: Tensor) -> Tensor:
    """Shifted and scaled to mean 0 and standard deviation 1; a single value becomes 0."""
    if len(values_M) < 2:
        return torch.zeros_like(values_M)
    return (values_M - values_M.mean()) / (values_M.std() + _WHITEN_EPSILON)


def leave_one_out(rewards_G: Tensor) -> Tensor:
    """Each reply's reward less the mean of its siblings' (RLOO: Ahmadian et al. 2024, arXiv 2402.14740, eq. 8).

    A reply without siblings has nothing to be compared with: 0.
    """
    count = len(rewards_G)
    if count < 2:
        return torch.zeros_like(rewards_G)
    return rewards_G - (rewards_G.sum() - rewards_G) / (count - 1)


def group_relative(rewards_G: Tensor, *, scaled: bool) -> Tensor:
    """Each reply's reward less the group's mean, in standard deviations (GRPO: Shao et al. 2024, arXiv 2402.03300, eq. 3.2.2).

    Without `scaled` it is not divided (Dr. GRPO, arXiv 2503.20783: the division makes easy and hard prompts count more).
    """
    if len(rewards_G) < 2:
        return torch.zeros_like(rewards_G)
    centred_G = rewards_G - rewards_G.mean()
    return centred_G / (rewards_G.std() + GROUP_EPSILON) if scaled else centred_G
