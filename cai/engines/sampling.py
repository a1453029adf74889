"""Drawing tokens so that a text depends on its own key and nothing else.

A token is drawn by the Gumbel-max trick: the largest of logit plus noise, where the noise is a hash of (key, position, token).
There is no generator whose state could depend on what else is in the batch, on the order of requests, or on a resume. The hash
is integer arithmetic, so CPU and GPU draw the same noise. Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
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


def gumbel_noise(position_seeds: Sequence[int], vocabulary_V: Tensor) -> Tensor:
    """Standard Gumbel noise, one row for each seed.

    Args:
        position_seeds: From `position_seed`, B of them.
        vocabulary_V: From `vocabulary_hash`.

    Returns:
        float32 noise_BV.
    """
    seeds_B1 = torch.tensor(position_seeds, dtype=torch.int32, device=vocabulary_V.device)[:, None]
    x = _mix(vocabulary_V[None] ^ seeds_B1)
    # 31 bits, exact near 0, which is the Gumbel distribution's upper tail: the one that decides.
    uniform = (x & 0x7FFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def warp(logits_BV: Tensor, params: SamplingParams) -> Tensor:
    """Temperature, then top-k, then top-p, as transformers' `generate` does; what is ruled out becomes −inf.

    Args:
        logits_BV: float32.
        params: Its temperature must be above 0.
    """
    warped_BV = logits_BV / params.temperature if params.temperature != 1.0 else logits_BV
    if 0 < params.top_k < warped_BV.shape[-1]:
        least_B1 = warped_BV.topk(params.top_k).values[:, -1:]
        warped_BV = warped_BV.masked_fill(warped_BV < least_B1, -torch.inf)
    if params.top_p < 1.0:
        warped_BV = _nucleus(warped_BV, params.top_p)
    return warped_BV


def draw(logits_BV: Tensor, params: SamplingParams, position_seeds: Sequence[int], vocabulary_V: Tensor) -> Tensor:
    """The next token of each row: the likeliest at temperature 0, else drawn with the row's own noise.

    Returns:
        int64 tokens_B.
    """
    if params.temperature == 0.0:
        return logits_BV.argmax(-1)
    if logits_BV.device.type != "cpu":
        return (warp(logits_BV.float(), params) + gumbel_noise(position_seeds, vocabulary_V)).argmax(-1)
    tokens: list[Tensor] = []
    for start in range(0, len(position_seeds), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        noisy = warp(logits_BV[part].float(), params) + gumbel_noise(position_seeds[part], vocabulary_V)
        tokens.append(noisy.argmax(-1))
    return torch.cat(tokens)


def _nucleus(logits_BV: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probability reaches `top_p`.

    Among the few hundred likeliest tokens where they hold that much, which is nearly always; sorting 50,000 logits of each row
    would cost more than the model's forward pass.
    """
    V = logits_BV.shape[-1]
    for candidates in (min(_NUCLEUS_CANDIDATES, V), V):
        best = logits_BV.topk(candidates)
        probabilities_BK = (best.values - logits_BV.logsumexp(-1, keepdim=True)).exp()
        before_BK = probabilities_BK.cumsum(-1) - probabilities_BK
        kept_BK = before_BK < top_p
        if candidates == V or not bool(kept_BK[:, -1].any()):
            break
    kept_BK[:, 0] = True
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
