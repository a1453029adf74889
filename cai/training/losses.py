"""Preference losses over per-sequence log-probabilities.

Pure tensor functions: no model, no tokenizer, no I/O. All log-probabilities are natural logs (nats), summed over reply
tokens and not divided by length. Shape suffix: B pairs.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def log_ratio_margins(chosen_B: Tensor, rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor) -> Tensor:
    """Δ = log π(chosen)/ref(chosen) − log π(rejected)/ref(rejected), in nats: DPO's implicit reward margin without its beta."""
    return (chosen_B - ref_chosen_B) - (rejected_B - ref_rejected_B)


def sigmoid_preference_loss(
    chosen_logps_B: Tensor,
    rejected_logps_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    p_chosen_B: Tensor | float = 1.0,
) -> Tensor:
    """DPO's loss of each pair, with a soft label.

    −p·log σ(βΔ) − (1−p)·log σ(−βΔ), Δ = `log_ratio_margins`: the cross-entropy between the label and the Bradley–Terry
    probability that the policy's implicit rewards give (Rafailov et al. 2023, eq. 7, whose labels are p = 1; a p between is
    Mitchell's conservative DPO with a smoothing of its own for each pair). Least at βΔ = log(p / (1−p)).

    `p_chosen_B`, in [0, 1], is the probability that `chosen` is the better reply. The result is losses_B, in nats: log 2
    wherever policy and reference agree.
    """
    scaled = beta * log_ratio_margins(chosen_logps_B, rejected_logps_B, ref_chosen_B, ref_rejected_B)
    return -p_chosen_B * logsigmoid(scaled) - (1.0 - p_chosen_B) * logsigmoid(-scaled)


def ipo_preference_loss(
    chosen_logps_B: Tensor,
    rejected_logps_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    p_chosen_B: Tensor | float = 1.0,
) -> Tensor:
    """IPO's loss of each pair (Azar et al. 2023, arXiv 2310.12036, eq. 17), with a soft label.

    Eq. 17 regresses Δ onto 1/(2·beta) for a pair labelled 1 and onto −1/(2·beta) for its mirror image; a pair labelled p is
    the mixture of both: p·(Δ − 1/2β)² + (1−p)·(Δ + 1/2β)². Least at Δ = (2p−1)/2β, where the gradient vanishes: margins
    stay finite. Sequence sums, as in the paper; TRL's `ipo` divides by length.
    """
    margins = log_ratio_margins(chosen_logps_B, rejected_logps_B, ref_chosen_B, ref_rejected_B)
    target = 1.0 / (2.0 * beta)
    return p_chosen_B * (margins - target) ** 2 + (1.0 - p_chosen_B) * (margins + target) ** 2
