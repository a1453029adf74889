"""Which preference losses there are, and what each of them needs. Importing this module costs nothing: no torch.

A loss is a reward of a reply, put into a form that compares the rewards of two replies. `cai.training.losses` holds the
formulas of both, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

PreferenceLoss: TypeAlias = Literal[
    "sigmoid",
    "sigmoid_norm",
    "cdpo",
    "robust",
    "ipo",
    "ipo_norm",
    "hinge",
    "exo_pair",
    "apo_zero",
    "apo_down",
    "rdpo",
    "ld_dpo",
    "simpo",
    "orpo",
]
RewardName: TypeAlias = Literal["log_ratio", "mean_log_ratio", "opening_log_ratio", "mean_logp", "log_odds"]
FormName: TypeAlias = Literal[
    "sigmoid",
    "smoothed",
    "debiased",
    "square",
    "hinge",
    "reverse_kl",
    "anchored_up",
    "anchored_down",
    "length_margin",
    "target_margin",
    "weighted_sigmoid",
]
LossSetting: TypeAlias = Literal["label_noise", "length_penalty", "tail_weight", "target_margin"]

LOSS_SETTINGS: tuple[LossSetting, ...] = ("label_noise", "length_penalty", "tail_weight", "target_margin")
"""Settings that only some losses take."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Numbers in the formulas. With its default, a setting leaves no trace in the formula."""

    beta: float
    label_noise: float = 0.0
    length_penalty: float = 0.0
    tail_weight: float = 1.0
    target_margin: float = 0.0


@dataclass(frozen=True, slots=True)
class LossTraits:
    """What a loss is made of and needs.

    Args:
        reward: Of one reply.
        form: How two rewards make a loss.
        takes: The settings it must be given, beside `beta`, each with advice on its value.
        bears_certainty: It is finite for a pair whose label is 1.
        needs_nll: Without `nll_weight` nothing in it would hold the policy in its place.
    """

    reward: RewardName
    form: FormName
    takes: Mapping[LossSetting, str] = field(default_factory=dict[LossSetting, str])
    bears_certainty: bool = True
    needs_nll: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether the log-probabilities of the reference occur in it."""
        return self.reward in {"log_ratio", "mean_log_ratio", "opening_log_ratio"}

    @property
    def needs_openings(self) -> bool:
        """Whether it weighs tokens by their place: sums over the first min(|chosen|, |rejected|) tokens must be known."""
        return self.reward == "opening_log_ratio"


_NOISE = "the share of labels that you believe to be swapped, for example 0.1"

LOSSES: Mapping[PreferenceLoss, LossTraits] = {
    "sigmoid": LossTraits("log_ratio", "sigmoid"),
    "sigmoid_norm": LossTraits("mean_log_ratio", "sigmoid"),
    "cdpo": LossTraits("log_ratio", "smoothed", {"label_noise": _NOISE}),
    "robust": LossTraits("log_ratio", "debiased", {"label_noise": _NOISE}),
    "ipo": LossTraits("log_ratio", "square"),
    "ipo_norm": LossTraits("mean_log_ratio", "square"),
    "hinge": LossTraits("log_ratio", "hinge"),
    "exo_pair": LossTraits("log_ratio", "reverse_kl", bears_certainty=False),
    "apo_zero": LossTraits("log_ratio", "anchored_up"),
    "apo_down": LossTraits("log_ratio", "anchored_down"),
    "rdpo": LossTraits(
        "log_ratio", "length_margin", {"length_penalty": "reward that a token costs, for example 0.01 with a beta of 0.1"}
    ),
    "ld_dpo": LossTraits("opening_log_ratio", "sigmoid", {"tail_weight": "0 to 1, for example 0.5"}),
    "simpo": LossTraits("mean_logp", "target_margin", {"target_margin": "for example 1 with a beta of 2"}),
    "orpo": LossTraits("log_odds", "weighted_sigmoid", needs_nll=True),
}

NOT_OFFERED: Mapping[str, str] = dict.fromkeys(
    ("kto", "kto_pair"),
    "KTO compares every reply with a mean over the batch, of log-ratios of replies to other prompts: that takes a third "
    'forward pass for each pair, and makes its loss depend on what else is in the batch; take "apo_zero", which moves chosen '
    "replies up and rejected ones down in the same way without that mean",
)
"""Losses that people ask for, and why they are not here."""


def misfits(
    loss: PreferenceLoss, given: Mapping[LossSetting, float | None], *, max_p_chosen: float, nll_weight: float
) -> list[str]:
    """What is wrong with these settings for this loss: one sentence each, with what to do; none if they fit.

    `given` holds None for a setting that was not given.
    """
    traits = LOSSES[loss]
    problems: list[str] = []
    for name, value in given.items():
        if value is None and name in traits.takes:
            problems.append(f'the loss "{loss}" needs {name}: {traits.takes[name]}')
        elif value is not None and name not in traits.takes:
            takers = " or ".join(f'"{other}"' for other, its in LOSSES.items() if name in its.takes)
            problems.append(f'the loss "{loss}" takes no {name}: leave it out, or take {takers}')
    if not traits.bears_certainty and max_p_chosen == 1:
        problems.append(f'the loss "{loss}" is infinite for a label of 1: set max_p_chosen, for example to 0.999')
    if traits.needs_nll and nll_weight == 0:
        problems.append(
            f'the loss "{loss}" is incomplete without its likelihood term: set nll_weight (1 in the paper; '
            "its lambda is beta / nll_weight)"
        )
    return problems
