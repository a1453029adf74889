"""Tokens are drawn from the softmax, each key with noise of its own; the warpers are those of transformers."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cai.engines.base import SamplingParams
from cai.engines.sampling import (
    draw,
    draw_settled,
    gumbel_noise,
    noise_seed,
    penalise,
    position_seed,
    vocabulary_hash,
    warp,
)

CPU = torch.device("cpu")
DRAWS = 20_000


def logits(V: int, seed: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 2


def transformers_warped(logits_BV: Tensor, params: SamplingParams) -> Tensor:
    ids: Any = torch.zeros(len(logits_BV), 1, dtype=torch.long)
    warped = TemperatureLogitsWarper(params.temperature)(ids, logits_BV) if params.temperature != 1.0 else logits_BV
    warped = TopKLogitsWarper(params.top_k)(ids, warped) if params.top_k else warped
    warped = TopPLogitsWarper(params.top_p)(ids, warped) if params.top_p < 1.0 else warped
    return MinPLogitsWarper(params.min_p)(ids, warped) if params.min_p else warped


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    V=st.sampled_from([5, 64, 700, 3000]),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 3, 50, 10_000]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)
def test_warped_logits_equal_those_of_transformers(
    seed: int, V: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits_BV = logits(V, seed, rows=3)
    ours, theirs = warp(logits_BV, params), transformers_warped(logits_BV, params)
    differing = ours.isinf() != theirs.isinf()
    if differing.any():  # the border of a nucleus, where two sums of thousands of float32 differ in the last bits
        probabilities = theirs.softmax(-1) + ours.softmax(-1)
        assert differing.sum() <= len(logits_BV)
        assert float(probabilities[differing].max()) < 2e-3
    both = ~(ours.isinf() | theirs.isinf())
    assert torch.equal(ours[both], theirs[both])
    assert (~ours.isinf()).any(-1).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([0.5, 1.1, 2.0]), seen=st.lists(st.integers(0, 63), min_size=1))
def test_the_repetition_penalty_equals_that_of_transformers(seed: int, penalty: float, seen: list[int]) -> None:
    logits_1V, ids = logits(64, seed), torch.tensor([seen])
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(cast("Any", ids), cast("Any", logits_1V.clone()))
    assert torch.equal(penalise(logits_1V, [torch.tensor(sorted(set(seen)))], penalty), theirs)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    V=st.sampled_from([5, 64, 700]),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    slack_nats=st.sampled_from([1e-4, 0.01, 0.1]),
)
def test_a_settled_draw_is_the_same_from_any_logits_within_the_slack(
    seed: int, V: int, temperature: float, top_k: int, top_p: float, min_p: float, slack_nats: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits_BV, vocabulary = logits(V, seed, rows=6), vocabulary_hash(V, CPU)
    if seed % 3 == 0:
        logits_BV = (logits_BV * 2).round() / 2  # many ties
    seeds = [position_seed(seed, row) for row in range(6)]
    tokens, settled = draw_settled(logits_BV, params, seeds, vocabulary, slack_nats)
    moves = torch.Generator().manual_seed(seed + 1)
    for trial in range(12):
        off = torch.rand(logits_BV.shape, generator=moves) * 2 - 1
        if trial % 2:
            off = off.sign()  # every logit at the far end of its range
        drawn = draw(logits_BV + 0.999 * slack_nats * off, params, seeds, vocabulary)
        assert torch.equal(drawn[settled], tokens[settled])


def test_nearly_all_draws_are_settled() -> None:
    rows, V = 2000, 500
    logits_BV, vocabulary = logits(V, 3, rows=rows), vocabulary_hash(V, CPU)
    seeds = [position_seed(1, row) for row in range(rows)]
    for params in (SamplingParams(temperature=0.0), SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(top_k=40)):
        _, settled = draw_settled(logits_BV, params, seeds, vocabulary, 4e-4)
        assert float(settled.float().mean()) > 0.99
        _, settled = draw_settled(logits_BV, params, seeds, vocabulary, 0.4)
        assert float(settled.float().mean()) < 0.9


@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(temperature=0.6), SamplingParams(top_k=4), SamplingParams(top_p=0.7, temperature=1.5)],
    ids=["plain", "cooler", "top-k", "top-p"],
)
@pytest.mark.parametrize("over", ["keys", "positions"])
def test_draws_follow_the_softmax(params: SamplingParams, over: str) -> None:
    """Chi-square over 20,000 draws, of as many keys at one position, and of one key at as many positions."""
    logits_1V = logits(24, 5)
    if over == "keys":
        seeds = [position_seed(noise_seed(f"1/item-{number}/0/draft/0"), 3) for number in range(DRAWS)]
    else:
        seeds = [position_seed(noise_seed("1/item/0/draft/0"), position) for position in range(DRAWS)]
    drawn = draw(logits_1V.expand(DRAWS, -1), params, seeds, vocabulary_hash(24, CPU))
    expected = transformers_warped(logits_1V, params)[0].double().softmax(-1) * DRAWS
    counts = torch.bincount(drawn, minlength=24).double()
    assert counts[expected == 0].sum() == 0
    likely = expected > 5
    rare_counts, rare_expected = counts[~likely].sum().item(), expected[~likely].sum().item()
    observed = [*counts[likely].tolist(), rare_counts]
    wanted = [*expected[likely].tolist(), rare_expected]
    if rare_expected == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_the_noise_is_gumbel_and_independent_between_keys_positions_and_tokens() -> None:
    vocabulary = vocabulary_hash(1000, CPU)
    one = gumbel_noise([position_seed(noise_seed("a"), position) for position in range(200)], vocabulary)
    other = gumbel_noise([position_seed(noise_seed("b"), position) for position in range(200)], vocabulary)
    sample = one.flatten()[torch.randperm(one.numel(), generator=torch.Generator().manual_seed(0))[:20_000]].numpy()
    assert stats.kstest(sample, stats.gumbel_r.cdf).pvalue > 1e-3
    noise = 4 / math.sqrt(one.numel())
    pairs = [(one, other), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one[:, 1:], other[:, :-1])]
    for first, second in pairs:
        assert abs(float(torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1])) < noise


def test_equal_keys_draw_equal_noise_and_nearby_keys_do_not() -> None:
    keys = [f"{seed}/item-{item}/{replica}/draft/0" for seed in range(20) for item in range(20) for replica in range(20)]
    assert len({noise_seed(key) for key in keys}) == len(keys)
    assert noise_seed("1/a/0/draft/0") == noise_seed("1/a/0/draft/0")
    assert len({position_seed(noise_seed("a"), position) for position in range(5000)}) == 5000


@given(key=st.text(max_size=20), position=st.integers(0, 10**6))
def test_any_text_is_a_key_and_seeds_fit_the_kernels(key: str, position: int) -> None:
    assert 0 <= noise_seed(key) < 2**64
    assert -(2**31) <= position_seed(noise_seed(key), position) < 2**31


def test_a_row_draws_the_same_alone_and_in_a_batch() -> None:
    logits_BV, vocabulary = logits(3000, 1, rows=37), vocabulary_hash(3000, CPU)
    seeds = [position_seed(noise_seed(str(row)), row) for row in range(37)]
    for params in (SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(temperature=0.0)):
        together = draw(logits_BV, params, seeds, vocabulary)
        alone = [draw(logits_BV[row : row + 1], params, seeds[row : row + 1], vocabulary).item() for row in range(37)]
        assert together.tolist() == alone


def test_the_noise_is_the_same_in_every_version() -> None:
    """A run resumed after an upgrade must go on with the noise it began with."""
    noise = gumbel_noise([position_seed(noise_seed("7/item/0/draft/0"), 0)], vocabulary_hash(4, CPU))
    assert noise[0].tolist() == pytest.approx([0.6251828, 0.1512052, 0.2323421, 0.1112523], abs=1e-6)
