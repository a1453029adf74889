"""The loss that a reward model is trained for: Bradley and Terry's, with the label's own strength as target.

For a pair with the label p and rewards r_c, r_r of each head, d = r_c − r_r − margin · (2p − 1):

    −p · log σ(d) − (1 − p) · log σ(−d) + centre_weight · (r_c + r_r)²

InstructGPT (arXiv 2203.02155, eq. 1) where p is 1 and the last two terms are none; soft labels as in RLAIF (2309.00267,
section 2.2.2); margins Llama 2 (2307.09288, eq. 2); the centring Eisenstein et al. (2312.09244). Shape suffixes as in
`objectives`, and K heads.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from cai.training.objectives import StepSize, Sums, first_sequences
from cai.training.reward_scorer import reply_tokens
from cai.training.rows import Pair, PreferenceRow, TrainingRow
from cai.training.settings import RewardSettings


def preference_loss(margins: Tensor, p_chosen: Tensor) -> Tensor:
    """Cross-entropy, in nats, of labels and of σ(margin), the probability that the chosen reply is the better one."""
    return -p_chosen * logsigmoid(margins) - (1 - p_chosen) * logsigmoid(-margins)


class RewardObjective:
    """The loss above: the mean over the step's pairs and over heads.

    Args:
        settings: Of the training.
        bootstrap: Whether each head weighs each pair by its own draw; held-out pairs all count once.
    """

    metric_names = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "loss/preference",
        "loss/centre",
        "heads/spread",
        "length/chosen",
        "length/rejected",
        "length_margin/product",
        "length_margin/length_squared",
        "length_margin/margin_squared",
    )
    """Means over pairs, each reward the mean over heads.

    - `loss/preference`: without centring; the mean over heads.
    - `loss/centre`: (r_c + r_r)², without its weight.
    - `heads/spread`: standard deviation of the margin over heads; missing with one head.
    - `length/*`, `length_margin/*`: as `PreferenceObjective`.
    """

    def __init__(self, settings: RewardSettings, *, bootstrap: bool) -> None:
        self._settings = settings
        self._bootstrap = bootstrap and settings.heads > 1

    def __call__(self, rows: Sequence[TrainingRow], logps_R: Tensor, lengths_R: Tensor, step: StepSize) -> tuple[Tensor, Sums]:
        """Of rewards_RK, which stand in the place of log-probabilities; see `Objective`."""
        del lengths_R  # rewards have one place each
        settings, rewards_RK = self._settings, logps_R
        pairs: list[tuple[PreferenceRow, int, Pair]] = [
            (row, first, pair)
            for row, first in zip(rows, first_sequences(rows), strict=True)
            if isinstance(row, PreferenceRow)
            for pair in row.pairs
        ]

        def numbers(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=rewards_RK.dtype, device=rewards_RK.device)

        def places(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, device=rewards_RK.device)

        chosen_BK = rewards_RK[places([first + pair.chosen for _, first, pair in pairs])]
        rejected_BK = rewards_RK[places([first + pair.rejected for _, first, pair in pairs])]
        sure_B = numbers([pair.p_chosen for _, _, pair in pairs])
        p_chosen_B = torch.ones_like(sure_B) if settings.labels == "hard" else sure_B
        gaps_BK = chosen_BK - rejected_BK - (settings.margin * (2 * sure_B - 1))[:, None]
        losses_BK = preference_loss(gaps_BK, p_chosen_B[:, None])
        centre_BK = (chosen_BK + rejected_BK) ** 2
        total_BK = losses_BK + settings.centre_weight * centre_BK
        if self._bootstrap:
            total_BK = total_BK * numbers([w for row, _, pair in pairs for w in self._weights(row, pair)]).view_as(total_BK)
        loss = total_BK.mean(1).sum() / step.pairs
        with torch.no_grad():
            margins_BK = chosen_BK - rejected_BK
            margins_B = margins_BK.mean(1)
            lengths = [reply_tokens(row.group) for row, _, _ in pairs]
            chosen_B = numbers([own[pair.chosen] for own, (_, _, pair) in zip(lengths, pairs, strict=True)])
            rejected_B = numbers([own[pair.rejected] for own, (_, _, pair) in zip(lengths, pairs, strict=True)])
            longer_B = chosen_B - rejected_B
            of_each = {
                "rewards/chosen": chosen_BK.mean(1),
                "rewards/rejected": rejected_BK.mean(1),
                "rewards/margins": margins_B,
                "rewards/accuracies": (margins_B > 0).to(margins_B.dtype),
                "loss/preference": losses_BK.mean(1),
                "loss/centre": centre_BK.mean(1),
                "length/chosen": chosen_B,
                "length/rejected": rejected_B,
                "length_margin/product": longer_B * margins_B,
                "length_margin/length_squared": longer_B**2,
                "length_margin/margin_squared": margins_B**2,
            }
            if settings.heads > 1:
                of_each["heads/spread"] = margins_BK.std(1)
            return loss, {name: (values.detach().sum(), len(pairs)) for name, values in of_each.items()}

    def _weights(self, row: PreferenceRow, pair: Pair) -> list[int]:
        """How often each head's sample of the pairs holds this one: a matter of seed, pair and head, and of nothing else."""
        replies = row.group.replies[pair.chosen], row.group.replies[pair.rejected]
        content = repr((self._settings.seed, pair.uid, pair.replica, row.group.prompt_ids, replies))
        draw = random.Random(hashlib.blake2b(content.encode(), digest_size=16).digest())  # noqa: S311 - weights are no secret
        return [poisson(draw.random()) for _ in range(self._settings.heads)]


def poisson(share: float) -> int:
    """The count at which the distribution function of a Poisson variable of mean 1 passes `share`, in [0, 1).

    With such weights each head is trained as on a bootstrap sample drawn while the pairs go by (Oza and Russell 2001).
    """
    count, chance = 0, math.exp(-1)
    below = chance
    while share >= below and chance > 0:
        count += 1
        chance /= count
        below += chance
    return count
