"""Drawing tokens so that a text depends on its own key and nothing else.

A token is drawn by the Gumbel-max trick: the largest of logit plus noise, where the noise is a hash of (key, position, token).
There is no generator whose state could depend on what else is in the batch, on the order of requests, or on a resume. The hash
is integer arithmetic, so CPU and GPU draw the same noise. Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cai.engines.base import SamplingParams

_MASK64 = 0xFFFFFFFFFFFFFFFF
_ROWS_AT_ONCE = 4
"""The noise of a few rows at a time stays in the processor's cache; a whole batch would go through memory ten times."""
_NUCLEUS_CANDIDATES = 512


def noise_seed(noise_key: str) -> int:
    """64 bits of BLAKE2b of a request's noise key."""
    return int.from_bytes(hashlib.blake2b(noise_key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def position_seed(seed: int, position: int) -> int:
    """32 bits, signed, for one token position: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (seed + 0x9E3779B97F4A7C15 * (position + 1)) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return _signed(x ^ (x >> 31))


def vocabulary_hash(size: int, device: torch.device) -> Tensor:
    """One well-mixed int32 for every token id: computed once for a vocabulary."""
    ids = torch.arange(size, dtype=torch.int32, device=device)
    return _mix(ids * _signed(0x9E3779B1) + _signed(0x7F4A7C15))


def gumbel_noise(position_seeds: Sequence[int] | Tensor, vocabulary_V: Tensor) -> Tensor:
    """Standard Gumbel noise, one row for each seed.

    Args:
        position_seeds: From `position_seed`, B of them; a tensor of int32 is read where it is.
        vocabulary_V: From `vocabulary_hash`.

    Returns:
        float32 noise_BV.
    """
    seeds_B1 = torch.as_tensor(position_seeds, dtype=torch.int32, device=vocabulary_V.device)[:, None]
    x = _mix(vocabulary_V[None] ^ seeds_B1)
    # 31 bits, exact near 0, which is the Gumbel distribution's upper tail: the one that decides.
    uniform = (x & 0x7FFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def penalise(logits_BV: Tensor, seen: Sequence[Tensor], penalty: float) -> Tensor:
    """Make tokens of a row's prompt or answer less likely, as transformers' repetition penalty does (arXiv 1909.05858).

    Args:
        logits_BV: Raw logits.
        seen: The distinct token ids of each row.
        penalty: A positive logit is divided by it, a negative one multiplied.

    Returns:
        float32 logits_BV.
    """
    penalised_BV = logits_BV.float() if logits_BV.dtype != torch.float32 else logits_BV.clone()
    for row, ids in enumerate(seen):
        old = penalised_BV[row, ids]
        penalised_BV[row, ids] = torch.where(old < 0, old * penalty, old / penalty)
    return penalised_BV


def warp(logits_BV: Tensor, params: SamplingParams) -> Tensor:
    """Temperature, then top-k, top-p and min-p, as transformers' `generate` does; what is ruled out becomes −inf.

    Args:
        logits_BV: float32.
        params: Its temperature must be above 0.
    """
    return _warp(logits_BV, params, 0.0)


def draw(logits_BV: Tensor, params: SamplingParams, position_seeds: Sequence[int], vocabulary_V: Tensor) -> Tensor:
    """The next token of each row: the likeliest at temperature 0, else drawn with the row's own noise.

    Args:
        logits_BV: After `penalise`, where there is a penalty.
        params: Of all these rows.
        position_seeds: From `position_seed`, B of them.
        vocabulary_V: From `vocabulary_hash`.

    Returns:
        int64 tokens_B.
    """
    if params.temperature == 0.0:
        return logits_BV.argmax(-1)
    tokens = [
        (warp(logits_BV[part].float(), params) + gumbel_noise(position_seeds[part], vocabulary_V)).argmax(-1)
        for part in _parts(logits_BV)
    ]
    return torch.cat(tokens)


def draw_settled(
    logits_BV: Tensor, params: SamplingParams, position_seeds: Sequence[int], vocabulary_V: Tensor, slack_nats: float
) -> tuple[Tensor, Tensor]:
    """As `draw`, and whether the same token would be drawn from any logits that differ by at most `slack_nats` from these.

    The order in which a kernel adds up depends on the shape of its batch, so logits differ in their last bits with what else is
    computed. A draw that is settled does not depend on that; the few others must be drawn from logits computed alone.

    Returns:
        int64 tokens_B, and boolean settled_B. Where it is false the token means nothing.
    """
    slack_nats *= max(params.repetition_penalty, 1 / params.repetition_penalty)
    tokens: list[Tensor] = []
    settled: list[Tensor] = []
    for part in _parts(logits_BV):
        noisy = logits_BV[part].float()
        surely = torch.ones(len(noisy), dtype=torch.bool, device=noisy.device)
        slack = slack_nats
        if params.temperature > 0.0:
            slack = slack_nats / params.temperature
            warped = _warp(noisy, params, slack)
            noisy = warped + gumbel_noise(position_seeds[part], vocabulary_V)
            winner = noisy.argmax(-1, keepdim=True)
            if params.top_k or params.top_p < 1.0 or params.min_p:
                surely = _surely_kept(logits_BV[part].float() / params.temperature, winner, params, slack)
        else:
            noisy = noisy.clone()
            winner = noisy.argmax(-1, keepdim=True)
        best = noisy.gather(-1, winner)
        second = noisy.scatter_(-1, winner, -torch.inf).amax(-1, keepdim=True)
        tokens.append(winner[:, 0])
        settled.append(surely & (best - second > 2 * slack)[:, 0])
    return torch.cat(tokens), torch.cat(settled)


def _parts(logits_BV: Tensor) -> list[slice]:
    at_once = _ROWS_AT_ONCE if logits_BV.device.type == "cpu" else len(logits_BV)
    return [slice(start, start + at_once) for start in range(0, len(logits_BV), max(1, at_once))]


def _warp(logits_BV: Tensor, params: SamplingParams, slack_nats: float) -> Tensor:
    """`warp`, keeping besides whatever it might keep of logits that differ by up to `slack_nats` after the temperature."""
    warped_BV = logits_BV / params.temperature if params.temperature != 1.0 else logits_BV
    if 0 < params.top_k < warped_BV.shape[-1]:
        least_B1 = warped_BV.topk(params.top_k).values[:, -1:]
        warped_BV = warped_BV.masked_fill(warped_BV < least_B1 - 2 * slack_nats, -torch.inf)
    if params.top_p < 1.0:
        warped_BV = _nucleus(warped_BV, params.top_p, slack_nats)
    if params.min_p > 0.0:
        least_B1 = warped_BV.amax(-1, keepdim=True) + math.log(params.min_p)
        warped_BV = warped_BV.masked_fill(warped_BV < least_B1 - 2 * slack_nats, -torch.inf)
    return warped_BV


def _surely_kept(tempered_BV: Tensor, tokens_B1: Tensor, params: SamplingParams, slack_nats: float) -> Tensor:
    """Whether the warpers keep a token of any logits that differ by at most the slack; true only where it is certain."""
    values_B1 = tempered_BV.gather(-1, tokens_B1)
    rivals_BV = tempered_BV >= values_B1 - 2 * slack_nats  # itself among them
    kept_B = torch.ones(len(values_B1), dtype=torch.bool, device=values_B1.device)
    allowed_BV = tempered_BV
    if 0 < params.top_k < tempered_BV.shape[-1]:
        kept_B &= rivals_BV.sum(-1) <= params.top_k
        least_B1 = tempered_BV.topk(params.top_k).values[:, -1:]
        allowed_BV = tempered_BV.masked_fill(tempered_BV < least_B1 + 2 * slack_nats, -torch.inf)
    if params.top_p < 1.0:
        # The most that the likelier ones can hold: they grow by the slack, and all else (of the fewest top-k lets in) shrinks.
        likelier_BV = tempered_BV.masked_fill(~rivals_BV, -torch.inf).scatter(-1, tokens_B1, -torch.inf)
        before_B = (likelier_BV.logsumexp(-1) - allowed_BV.logsumexp(-1) + 4 * slack_nats).exp()
        kept_B &= (before_B < params.top_p) | ~likelier_BV.isfinite().any(-1)
    if params.min_p > 0.0:
        kept_B &= (values_B1 >= tempered_BV.amax(-1, keepdim=True) + math.log(params.min_p) + 2 * slack_nats)[:, 0]
    return kept_B


def _nucleus(logits_BV: Tensor, top_p: float, slack_nats: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probability reaches `top_p`.

    Among the few hundred likeliest tokens where they hold that much, which is nearly always; sorting 50,000 logits of each row
    would cost more than the model's forward pass.
    """
    V = logits_BV.shape[-1]
    most = top_p * math.exp(4 * slack_nats)
    for candidates in (min(_NUCLEUS_CANDIDATES, V), V):
        best = logits_BV.topk(candidates)
        probabilities_BK = (best.values - logits_BV.logsumexp(-1, keepdim=True)).exp()
        before_BK = probabilities_BK.cumsum(-1) - probabilities_BK
        kept_BK = before_BK < most
        kept_BK[:, 0] = True
        if slack_nats:
            least_B1 = best.values.masked_fill(~kept_BK, torch.inf).amin(-1, keepdim=True)
            kept_BK |= best.values >= least_B1 - 2 * slack_nats
        if candidates == V or not bool(kept_BK[:, -1].any()):
            break
    return torch.full_like(logits_BV, -torch.inf).scatter(-1, best.indices, best.values.masked_fill(~kept_BK, -torch.inf))


def _mix(x: Tensor) -> Tensor:
    """A 32-bit finaliser of low bias (Mueller, Wellons). int32 products wrap, on every device; shifts are made logical."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _signed(0x21F0AAAD)
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _signed(0x735A2D97)
    return x ^ ((x >> 15) & 0x1FFFF)


def _signed(x: int) -> int:
    """The low 32 bits, as int32 reads them."""
    return ((x & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
