"""`sampling.draw` with the parameters of each row in tensors: no step of it waits for the device or depends on a value there.

That is what a CUDA graph needs: recorded once, it is replayed for other rows with other parameters. Shape suffixes: B rows,
V vocabulary, A arguments of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cai.engines.base import SamplingParams
from cai.engines.sampling import gumbel_noise

ARGUMENTS = 7
"""Numbers of a row, each in 32 bits: position seed, top-k, slot; as floats temperature, top-p, min-p, repetition penalty."""
_WHOLE = 3


def row_arguments(params: Sequence[SamplingParams], position_seeds: Sequence[int], slots: Sequence[int]) -> Tensor:
    """The parameters of some rows as the device reads them.

    Args:
        params: B of them.
        position_seeds: From `sampling.position_seed`.
        slots: Which line of the table of seen tokens is a row's.

    Returns:
        int32 arguments_AB, on the CPU.
    """
    whole = torch.tensor([list(position_seeds), [each.top_k for each in params], list(slots)], dtype=torch.int32)
    parts = [[each.temperature, each.top_p, each.min_p, each.repetition_penalty] for each in params]
    return torch.cat([whole, torch.tensor(parts, dtype=torch.float32).T.contiguous().view(torch.int32)])


def penalise_rows(logits_BV: Tensor, seen_BV: Tensor, arguments_AB: Tensor) -> Tensor:
    """`sampling.penalise`, with a table of the tokens each row has seen.

    Args:
        logits_BV: float32.
        seen_BV: Boolean.
        arguments_AB: From `row_arguments`.
    """
    penalty_B1 = arguments_AB[_WHOLE:].view(torch.float32)[3][:, None]
    penalised_BV = torch.where(logits_BV < 0, logits_BV * penalty_B1, logits_BV / penalty_B1)
    return torch.where(seen_BV, penalised_BV, logits_BV)


def noisy_rows(logits_BV: Tensor, arguments_AB: Tensor, vocabulary_V: Tensor, *, nucleus: bool) -> Tensor:
    """Scores whose largest is the token that `sampling.draw` draws.

    Args:
        logits_BV: float32, after `penalise_rows` where there is a penalty.
        arguments_AB: From `row_arguments`.
        vocabulary_V: From `sampling.vocabulary_hash`.
        nucleus: Whether any row has top-k or top-p. Without, no vocabulary is sorted.

    Returns:
        float32 scores_BV.
    """
    seeds_B, top_k_B, _ = arguments_AB[:_WHOLE]
    temperature_B1, top_p_B1, min_p_B1 = arguments_AB[_WHOLE:].view(torch.float32)[:3, :, None]
    greedy_B1 = temperature_B1 == 0
    warped_BV = logits_BV / temperature_B1.masked_fill(greedy_B1, 1.0)
    if nucleus:
        warped_BV = _nucleus(warped_BV, top_k_B[:, None].long(), top_p_B1)
    least_B1 = warped_BV.amax(-1, keepdim=True) + min_p_B1.log()  # log 0 = −inf: all are kept
    warped_BV = warped_BV.masked_fill(warped_BV < least_B1, -torch.inf)
    return torch.where(greedy_B1, logits_BV, warped_BV + gumbel_noise(seeds_B, vocabulary_V))


def _nucleus(logits_BV: Tensor, top_k_B1: Tensor, top_p_B1: Tensor) -> Tensor:
    """Top-k, then the smallest set of likeliest tokens whose probability reaches top-p."""
    V = logits_BV.shape[-1]
    values_BV, ids_BV = logits_BV.sort(-1, descending=True)
    last_B1 = top_k_B1.masked_fill(top_k_B1 == 0, V).clamp(max=V) - 1
    least_B1 = values_BV.gather(-1, last_B1)
    values_BV = values_BV.masked_fill(values_BV < least_B1, -torch.inf)
    total_B1 = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf).logsumexp(-1, keepdim=True)
    probabilities_BV = (values_BV - total_B1).exp()
    kept_BV = (probabilities_BV.cumsum(-1) - probabilities_BV < top_p_B1) | (top_p_B1 >= 1)
    kept_BV[:, 0] = True
    return torch.full_like(logits_BV, -torch.inf).scatter(-1, ids_BV, values_BV.masked_fill(~kept_BV, -torch.inf))
