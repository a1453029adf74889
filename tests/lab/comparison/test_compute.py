"""What counts as cost: tokens forward, and twice those that went back as well."""

from __future__ import annotations

from cai.engines.base import EngineStatistics
from cai.lab.comparison.compute import Passes, passes_of_engine


def test_a_trained_token_counts_as_two_forward() -> None:
    assert Passes(read=1, drawn=10, scored=100, trained=1000).cost == 2111


def test_passes_add_up_by_kind() -> None:
    assert Passes(read=1, drawn=2) + Passes(drawn=3, scored=4, trained=5) == Passes(read=1, drawn=5, scored=4, trained=5)


def test_what_an_engine_reused_did_not_pass() -> None:
    done = EngineStatistics(
        prompt_tokens=7, reused_tokens=100, completion_tokens=3, scored_tokens=11, reused_scored_tokens=1000
    )
    assert passes_of_engine(done).cost == 21
