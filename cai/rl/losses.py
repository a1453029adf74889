"""Losses of single tokens: the clipped policy loss, the KL penalty, the clipped value loss.

Pure tensor functions. Shape suffix M: tokens of replies, those of one reply behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.rl.advantages import k3
from cai.rl.settings import Average


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Of each token [M], and whether its ratio lay beyond the clip where that stops its gradient."""

    losses: Tensor
    clipped: Tensor


def policy_losses(logps_M: Tensor, old_logps_M: Tensor, advantages_M: Tensor, clip: float) -> PolicyLoss:
    """−min(ρA, clip(ρ, 1 − ε, 1 + ε)A), ρ = π/π_old of each token (PPO: Schulman et al. 2017, arXiv 1707.06347, eq. 7).

    Args:
        logps_M: Under the policy as it is, in nats, with gradients.
        old_logps_M: Under the policy that drew the tokens.
        advantages_M: Without gradients.
        clip: ε.
    """
    ratios_M = (logps_M - old_logps_M).exp()
    held_M = ratios_M.clamp(1 - clip, 1 + clip)
    losses_M = -torch.minimum(ratios_M * advantages_M, held_M * advantages_M)
    clipped_M = (held_M * advantages_M < ratios_M * advantages_M).detach()
    return PolicyLoss(losses_M, clipped_M)


def kl_losses(logps_M: Tensor, old_logps_M: Tensor, ref_logps_M: Tensor) -> Tensor:
    """ρ · k3 of each token, ρ = π/π_old: its gradient is then without bias that of KL(π ‖ ref), which k3 alone's is not.

    DeepSeek-V3.2 (arXiv 2512.02556, eq. 7), and TRL's default. ρ is 1 where nothing has moved yet, its gradient is not 0.
    """
    return (logps_M - old_logps_M).exp() * k3(logps_M, ref_logps_M)


def value_losses(values_M: Tensor, old_values_M: Tensor, returns_M: Tensor, clip: float | None) -> Tensor:
    """Half the squared error, the larger of that of the value and of the value held within `clip` of the old one.

    As PPO's own code has it (openai/baselines); None: plain squared errors.
    """
    plain_M = (values_M - returns_M).square()
    if clip is None:
        return 0.5 * plain_M
    held_M = old_values_M + (values_M - old_values_M).clamp(-clip, clip)
    return 0.5 * torch.maximum(plain_M, (held_M - returns_M).square())


def token_weights(lengths: Sequence[int], average: Average) -> Tensor:
    """Weight of each token in the loss of a batch of replies, weights_M in float64.

    `token`: all tokens alike (DAPO, arXiv 2503.14476). `reply`: all replies alike, whatever their lengths (GRPO, eq. 3).
    `sum`: a reply counts by its length: the gradient of its whole log-probability (REINFORCE, RLOO).
    """
    each = torch.repeat_interleave(torch.tensor(lengths), torch.tensor(lengths)).double()
    match average:
        case "token":
            return torch.full_like(each, 1.0 / max(1, len(each)))
        case "reply":
            return 1.0 / (each * len(lengths))
        case "sum":
            return torch.full_like(each, 1.0 / max(1, len(lengths)))
