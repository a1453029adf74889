"""Best-of-n: what the best of n samples is worth, how far it is from the model that drew them, and the rows it gives.

Pure functions of numbers, and a collector of samples; no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from constitution.messages import Conversation


def best_of_n_kl_nats(n: int) -> float:
    """KL(best-of-n ‖ one sample) = log n − (n − 1)/n, in nats (Stiennon et al. 2020, arXiv 2009.01325, appendix G.3).

    For samples that are all different; an upper bound where they may repeat (Beirami et al. 2024, arXiv 2401.01879).

    Raises:
        ValueError: If n is below 1.
    """
    if n < 1:
        raise ValueError(f"the best of {n} samples")
    return math.log(n) - (n - 1) / n


def expected_best(rewards: Sequence[float], n: int) -> float:
    """Unbiased estimate of the expected highest reward of n samples, from N ≥ n of them.

    The mean over all subsets of n: Σᵢ C(i − 1, n − 1) · r₍ᵢ₎ / C(N, n), r₍ᵢ₎ the i-th smallest (Nakano et al. 2021,
    arXiv 2112.09332, appendix I).

    Raises:
        ValueError: If there are fewer than n, or n is below 1.
    """
    if not 1 <= n <= len(rewards):
        raise ValueError(f"the best of {n} from {len(rewards)} samples")
    total = 0.0
    weight = n / len(rewards)  # C(N − 1, n − 1) / C(N, n), of the highest
    for rank, reward in zip(range(len(rewards), n - 1, -1), sorted(rewards, reverse=True), strict=False):
        total += weight * reward
        weight *= (rank - n) / (rank - 1) if rank > 1 else 0.0
    return total


@dataclass(frozen=True, slots=True)
class BestRow:
    """The best of the first n samples of a prompt."""

    uid: str
    messages: Conversation
    reply: str
    reward: float


@dataclass(frozen=True, slots=True)
class BestFigure:
    """Of the prompts with n samples or more: the mean over them of the expected best reward."""

    n: int
    kl_nats: float
    prompts: int
    expected_reward: float


@dataclass
class _Samples:
    uid: str
    rewards: list[float] = field(default_factory=list[float])
    best: tuple[float, str] | None = None


class BestOf:
    """Gathers samples by their prompt.

    Of each prompt the best reply among its first n is kept, and the rewards of all.

    Args:
        n: Samples to choose from.

    Raises:
        ValueError: If n is below 1.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"the best of {n} samples")
        self.n = n
        self._of_prompt: dict[Conversation, _Samples] = {}

    def add(self, uid: str, prompt: Conversation, reply: str, reward: float) -> None:
        """One sample. The first of equal rewards is the best."""
        samples = self._of_prompt.setdefault(prompt, _Samples(uid))
        if len(samples.rewards) < self.n and (samples.best is None or reward > samples.best[0]):
            samples.best = (reward, reply)
        samples.rewards.append(reward)

    @property
    def prompts(self) -> int:
        return len(self._of_prompt)

    @property
    def short_prompts(self) -> int:
        """Prompts with fewer than n samples: they give no row."""
        return sum(len(each.rewards) < self.n for each in self._of_prompt.values())

    def rows(self) -> list[BestRow]:
        """One for each prompt with n samples or more, in the order of their first sample."""
        return [
            BestRow(each.uid, prompt, each.best[1], each.best[0])
            for prompt, each in self._of_prompt.items()
            if len(each.rewards) >= self.n and each.best is not None
        ]

    def figures(self) -> list[BestFigure]:
        """For n = 1, 2, 4 … and the n asked for, as far as there are samples."""
        most = max((len(each.rewards) for each in self._of_prompt.values()), default=0)
        sizes = sorted({self.n, *(2**power for power in range(most.bit_length()))})
        figures: list[BestFigure] = []
        for n in sizes:
            values = [expected_best(each.rewards, n) for each in self._of_prompt.values() if len(each.rewards) >= n]
            if values:
                figures.append(BestFigure(n, best_of_n_kl_nats(n), len(values), math.fsum(values) / len(values)))
        return figures
