"""Preference losses over per-sequence log-probabilities.

Pure tensor functions: no model, no tokenizer, no I/O. All log-probabilities are natural logs (nats), summed over reply
tokens and not divided by length unless a name says `mean`. Shape suffix: B pairs.

A loss is made of two parts, which `loss_table` names: the reward r of one reply, and the form that compares a pair's two
rewards. Unless said otherwise a soft label p is what it means: the reply called chosen is the better one with probability p,
so the loss is the expected one, p·loss(chosen, rejected) + (1−p)·loss(rejected, chosen).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from cai.training.loss_table import LOSSES, FormName, LossOptions, PreferenceLoss, RewardName


@dataclass(frozen=True, slots=True)
class Replies:
    """One side of B pairs: the chosen replies or the rejected ones. All tensors are [B], log-probabilities float64.

    Args:
        logps: Under the policy.
        tokens: Number of reply tokens, at least 1.
        reference: Log-probabilities under the reference; None where the loss needs none.
        openings: The part of `logps` that the first min(|chosen|, |rejected|) tokens have; None unless the loss needs it.
        reference_openings: The same under the reference.
    """

    logps: Tensor
    tokens: Tensor
    reference: Tensor | None = None
    openings: Tensor | None = None
    reference_openings: Tensor | None = None

    @property
    def log_ratios(self) -> Tensor:
        """The logarithm of π/ref of each whole reply, in nats.

        Raises:
            ValueError: The reference is not known.
        """
        return self.logps - _known(self.reference, "the reference's log-probabilities")


class Rewarded(NamedTuple):
    """Replies as the forms see them; both [B]."""

    rewards: Tensor
    tokens: Tensor


Reward: TypeAlias = Callable[[Replies, LossOptions], Tensor]
Form: TypeAlias = Callable[[Rewarded, Rewarded, Tensor, LossOptions], Tensor]
"""(chosen, rejected, p_chosen_B, options) → losses_B."""
_HardForm: TypeAlias = Callable[[Rewarded, Rewarded, LossOptions], Tensor]
"""(better, worse, options) → losses_B."""


@dataclass(frozen=True, slots=True)
class PairLosses:
    """Losses, with gradients, and the rewards that they compare; all [B]."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    satisfied: Tensor
    """True where the loss asks for no larger margin: neither a higher chosen reward nor a lower rejected one would make it
    smaller. For "sigmoid": σ(margin) ≥ p."""


def preference_losses(
    loss: PreferenceLoss, chosen: Replies, rejected: Replies, p_chosen_B: Tensor, options: LossOptions
) -> PairLosses:
    """The loss of each pair.

    Args:
        loss: Its name in `loss_table.LOSSES`.
        chosen: The replies that labels call chosen.
        rejected: The others.
        p_chosen_B: Labels in [0, 1]; a loss that does not bear certainty is infinite at both ends.
        options: Those that the loss does not take are ignored here; the settings refuse them.

    Raises:
        ValueError: The loss needs the reference or the openings, and they are not known.
    """
    traits = LOSSES[loss]
    reward, form = REWARDS[traits.reward], FORMS[traits.form]
    chosen_B, rejected_B = reward(chosen, options), reward(rejected, options)
    losses_B = form(Rewarded(chosen_B, chosen.tokens), Rewarded(rejected_B, rejected.tokens), p_chosen_B, options)
    with torch.enable_grad():
        up_B, down_B = chosen_B.detach().requires_grad_(), rejected_B.detach().requires_grad_()
        again_B = form(Rewarded(up_B, chosen.tokens), Rewarded(down_B, rejected.tokens), p_chosen_B, options)
        by_chosen_B, by_rejected_B = torch.autograd.grad(again_B.sum(), (up_B, down_B))
    return PairLosses(losses_B, chosen_B, rejected_B, (by_chosen_B >= 0) & (by_rejected_B <= 0))


def _known(values_B: Tensor | None, what: str) -> Tensor:
    if values_B is None:
        raise ValueError(f"this loss needs {what}")
    return values_B


# Rewards of one reply ---------------------------------------------------------------------------------------------------


def _log_ratio(replies: Replies, options: LossOptions) -> Tensor:
    """β·log π/ref: DPO's implicit reward, up to a term of the prompt alone (Rafailov et al. 2023, arXiv 2305.18290, eq. 5)."""
    return options.beta * replies.log_ratios


def _mean_log_ratio(replies: Replies, options: LossOptions) -> Tensor:
    """β·log π/ref a token: long replies have no louder say than short ones. TRL's `sigmoid_norm` and `ipo` have it too."""
    return options.beta * replies.log_ratios / replies.tokens


def _opening_log_ratio(replies: Replies, options: LossOptions) -> Tensor:
    """β·log π/ref, in which tokens beyond the shorter reply's length weigh `tail_weight` (LD-DPO's α).

    Liu et al. 2024, arXiv 2409.06411. At 1 it is DPO's reward, at 0 the tail is ignored.
    """
    openings_B = _known(replies.openings, "the log-probabilities of the replies' first tokens")
    reference_B = _known(replies.reference_openings, "the reference's log-probabilities of the replies' first tokens")
    opening_ratios_B = openings_B - reference_B
    return options.beta * (opening_ratios_B + options.tail_weight * (replies.log_ratios - opening_ratios_B))


def _mean_logp(replies: Replies, options: LossOptions) -> Tensor:
    """β·log π a token, without a reference: SimPO's reward (Meng et al. 2024, arXiv 2405.14734, eq. 4)."""
    return options.beta * replies.logps / replies.tokens


CERTAIN_MEAN_LOGP = -1e-6
"""Replies of a larger log-probability a token (nats) count as this probable: float32 logits say no more, and at 0 the odds
are infinite."""


def _log_odds(replies: Replies, options: LossOptions) -> Tensor:
    """Log-odds log P/(1−P), P = exp(log π a token): ORPO's (Hong et al. 2024, arXiv 2403.07691, eq. 4). No β."""
    means_B = (replies.logps / replies.tokens).clamp(max=CERTAIN_MEAN_LOGP)
    return means_B - torch.log(-torch.expm1(means_B))


REWARDS: Mapping[RewardName, Reward] = {
    "log_ratio": _log_ratio,
    "mean_log_ratio": _mean_log_ratio,
    "opening_log_ratio": _opening_log_ratio,
    "mean_logp": _mean_logp,
    "log_odds": _log_odds,
}

# Forms, m = r(better) − r(worse) -----------------------------------------------------------------------------------------


def _expected(of: _HardForm) -> Form:
    def over_labels(chosen: Rewarded, rejected: Rewarded, p_chosen_B: Tensor, options: LossOptions) -> Tensor:
        return p_chosen_B * of(chosen, rejected, options) + (1.0 - p_chosen_B) * of(rejected, chosen, options)

    return over_labels


def _sigmoid(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """−log σ(m) (Rafailov et al. 2023, eq. 7).

    With a soft label: the cross-entropy between it and the Bradley–Terry probability that the rewards give, which is
    Mitchell's conservative DPO with a smoothing 1−p of its own for each pair. Least at m = log(p / (1−p)); log 2 at m = 0.
    TRL's `sigmoid` leaves its label_smoothing out.
    """
    return -logsigmoid(better.rewards - worse.rewards)


def _smoothed(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """−(1−ε)·log σ(m) − ε·log σ(−m), ε = `label_noise`: conservative DPO.

    Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO". It takes each label for as unsure as the noise
    makes it: the same as "sigmoid" with labels (1−ε)p + ε(1−p).
    """
    noise = options.label_noise
    return (1.0 - noise) * _sigmoid(better, worse, options) + noise * _sigmoid(worse, better, options)


def _debiased(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """(−(1−ε)·log σ(m) + ε·log σ(−m)) / (1−2ε), ε = `label_noise`: robust DPO (Chowdhury et al. 2024, arXiv 2403.00409).

    Its mean over labels of which a share ε was swapped is DPO's loss of the labels before that. It has no least value for
    labels p > 1−ε (and p < ε): there the pull towards the label never ends. Else least at m = log(q / (1−q)),
    q = (p−ε) / (1−2ε).
    """
    noise = options.label_noise
    straight_B, swapped_B = _sigmoid(better, worse, options), _sigmoid(worse, better, options)
    return ((1.0 - noise) * straight_B - noise * swapped_B) / (1.0 - 2.0 * noise)


def _square(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """(m/β − 1/2β)²: IPO (Azar et al. 2023, arXiv 2310.12036, eq. 17), whose τ is β.

    Least at m = (2p−1)/2, where the gradient vanishes: margins stay finite. On sequence sums ("ipo") as the paper has it, or
    on means over tokens ("ipo_norm") as TRL's `ipo` has it.
    """
    return ((better.rewards - worse.rewards - 0.5) / options.beta) ** 2


def _hinge(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """max(0, 1 − m): SLiC's hinge on log-ratios, RSO's "hinge-norm" with γ = β (Liu et al. 2023, arXiv 2309.06657).

    Least at m = 1 whatever the label's p > ½: how soft the label is decides the pull, not where it ends.
    """
    return relu(1.0 - (better.rewards - worse.rewards))


def _reverse_kl(chosen: Rewarded, rejected: Rewarded, p_chosen_B: Tensor, options: LossOptions) -> Tensor:
    """KL((σ(m), σ(−m)) ‖ (p, 1−p)): EXO for pairs (Ji et al. 2024, arXiv 2402.00856, eq. 16), whose ε is 1−p.

    Least, 0, at m = log(p / (1−p)). The label is inside the logarithm, so this is not an expectation over hard labels, for
    which it is infinite. A pair far on the wrong side is hardly pulled: σ(m) is then 0 and its divergence flat.
    """
    margins_B = chosen.rewards - rejected.rewards
    for_chosen_B = torch.sigmoid(margins_B) * (logsigmoid(margins_B) - torch.log(p_chosen_B))
    return for_chosen_B + torch.sigmoid(-margins_B) * (logsigmoid(-margins_B) - torch.log1p(-p_chosen_B))


def _anchored_up(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """1 − σ(r(better)) + σ(r(worse)): APO-zero (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7).

    The constant 1 keeps the loss above 0 and has no gradient. Better replies go up and worse ones down, each for itself. A
    soft label scales the pull by 2p−1.
    """
    return torch.sigmoid(-better.rewards) + torch.sigmoid(worse.rewards)


def _anchored_down(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """σ(r(better)) + 1 − σ(m): APO-down (D'Oosterlinck et al. 2024, eq. 8), with a 1 as above.

    For a model that is better than both replies: both go down, the worse one further.
    """
    return torch.sigmoid(better.rewards) + torch.sigmoid(worse.rewards - better.rewards)


def _length_margin(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """−log σ(m + α·(|better| − |worse|)), α = `length_penalty`: R-DPO (Park et al. 2024, arXiv 2403.19159).

    What a longer reply is credited with here, its log-ratio need not show: least at m = log(p / (1−p)) − α·(|better| −
    |worse|). The rewards that are logged are without this term.
    """
    longer_B = (better.tokens - worse.tokens).to(better.rewards.dtype)  # else integers become float32
    return -logsigmoid(better.rewards - worse.rewards + options.length_penalty * longer_B)


def _target_margin(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """−log σ(m − γ), γ = `target_margin`: SimPO (Meng et al. 2024, eq. 6).

    With a soft label γ is asked of whichever reply is the better one. TRL's label_smoothing asks it of the chosen reply in
    both terms, so that there swapping the replies and the label is not the same pair.
    """
    return -logsigmoid(better.rewards - worse.rewards - options.target_margin)


def _weighted_sigmoid(better: Rewarded, worse: Rewarded, options: LossOptions) -> Tensor:
    """−β·log σ(m): ORPO's odds-ratio term (Hong et al. 2024, eq. 7), β its λ.

    Its likelihood term (eq. 6) is the objective's `nll_weight`: with that at 1 the sum is the paper's.
    """
    return options.beta * _sigmoid(better, worse, options)


FORMS: Mapping[FormName, Form] = {
    "sigmoid": _expected(_sigmoid),
    "smoothed": _expected(_smoothed),
    "debiased": _expected(_debiased),
    "square": _expected(_square),
    "hinge": _expected(_hinge),
    "reverse_kl": _reverse_kl,
    "anchored_up": _expected(_anchored_up),
    "anchored_down": _expected(_anchored_down),
    "length_margin": _expected(_length_margin),
    "target_margin": _expected(_target_margin),
    "weighted_sigmoid": _expected(_weighted_sigmoid),
}
