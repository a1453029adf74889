"""Sampling with the parameters of each row in tensors draws what sampling row by row draws."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.engines.base import SamplingParams
from cai.engines.row_sampling import noisy_rows, penalise_rows, row_arguments
from cai.engines.sampling import draw, position_seed, vocabulary_hash

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 40, 1000]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(PARAMS, min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_tokens_are_those_of_draw(rows: list[SamplingParams], seed: int) -> None:
    logits_BV = 4 * torch.randn(len(rows), 300, generator=torch.Generator().manual_seed(seed))
    vocabulary_V = vocabulary_hash(300, torch.device("cpu"))
    seeds = [position_seed(seed, place) for place in range(len(rows))]
    arguments = row_arguments(rows, seeds, [0] * len(rows))
    tokens = noisy_rows(logits_BV, arguments, vocabulary_V, nucleus=True).argmax(-1)
    expected = [int(draw(logits_BV[n : n + 1], rows[n], seeds[n : n + 1], vocabulary_V)) for n in range(len(rows))]
    assert tokens.tolist() == expected
    if not any(row.top_k or row.top_p < 1 for row in rows):
        assert noisy_rows(logits_BV, arguments, vocabulary_V, nucleus=False).argmax(-1).tolist() == expected


def test_min_p_leaves_out_what_is_less_likely_than_its_share_of_the_likeliest() -> None:
    logits_BV = torch.tensor([[2.0, 1.0, 0.0, -3.0]]).repeat(3, 1)
    rows = [SamplingParams(min_p=min_p) for min_p in (0.0, 0.2, 1.0)]
    scores = noisy_rows(
        logits_BV, row_arguments(rows, [1, 1, 1], [0] * 3), vocabulary_hash(4, torch.device("cpu")), nucleus=False
    )
    assert scores.isfinite().tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]


def test_a_penalty_divides_what_is_above_zero_and_multiplies_what_is_below() -> None:
    logits_BV = torch.tensor([[2.0, -2.0, 3.0]]).repeat(2, 1)
    seen_BV = torch.tensor([[True, True, False], [True, True, True]])
    arguments = row_arguments([SamplingParams(repetition_penalty=2.0), SamplingParams()], [0, 0], [0, 1])
    assert penalise_rows(logits_BV, seen_BV, arguments).tolist() == [[1.0, -4.0, 3.0], [2.0, -2.0, 3.0]]
