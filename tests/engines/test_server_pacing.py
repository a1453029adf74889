"""How many requests a server is given, and how long is waited: pure arithmetic, on a clock of our own."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.engines.server.dispatching import Retries
from cai.engines.server.exchange import LONGEST_PAUSE_S, pause_s
from cai.engines.server.pacing import Pacing


def answer(pacing: Pacing, count: int, *, seconds: float = 1.0, start: float = 0.0) -> float:
    """So many answers with the window full; returns the time after them."""
    now = start
    for _ in range(count):
        pacing.answered(now, now + seconds, tokens=9, in_flight=int(pacing.window))
        now += seconds
    return now


def test_a_window_of_answers_makes_it_one_larger_and_a_loss_halves_it_once() -> None:
    pacing = Pacing(64)
    now = answer(pacing, 4)
    assert 4.9 < pacing.window < 5.1
    now = answer(pacing, 200, start=now)
    before = pacing.window
    assert 15 < before < 25
    for _ in range(10):  # a burst: all of them were begun before the first was turned away
        pacing.overloaded(now - 1.0, now)
    assert pacing.window == before / 2
    assert pacing.cuts == 1
    pacing.overloaded(now + 1.0, now + 2.0)
    assert pacing.window == before / 4


def test_it_never_leaves_its_bounds() -> None:
    pacing = Pacing(3)
    answer(pacing, 100)
    assert pacing.window == 3.0
    for second in range(10):
        pacing.overloaded(100.0 + second, 100.5 + second)
    assert pacing.window == 1.0
    assert pacing.may_begin(0, 200.0)
    assert not pacing.may_begin(1, 200.0)


def test_it_does_not_grow_while_it_is_not_used_up() -> None:
    pacing = Pacing(64)
    for second in range(100):
        pacing.answered(float(second), second + 1.0, tokens=9, in_flight=1)
    assert pacing.window == 4.0


def test_slow_answers_stop_its_growth_and_very_slow_ones_shrink_it() -> None:
    pacing = Pacing(64)
    now = answer(pacing, 40)
    grown = pacing.window
    now = answer(pacing, 40, seconds=6.0, start=now)  # six times as long a token
    held = pacing.window
    assert held < grown + 1.5
    answer(pacing, 40, seconds=30.0, start=now)
    assert pacing.window < held


def test_longer_answers_are_not_taken_for_slower_ones() -> None:
    pacing = Pacing(64)
    now = answer(pacing, 10)
    for _ in range(50):
        pacing.answered(now, now + 100.0, tokens=999, in_flight=int(pacing.window))
        now += 100.0
    assert pacing.window > 8


def test_nothing_begins_while_the_server_wants_to_be_left_alone() -> None:
    pacing = Pacing(8)
    pacing.overloaded(0.0, 10.0, wait_s=5.0)
    pacing.overloaded(0.0, 11.0, wait_s=1.0)
    assert not pacing.may_begin(0, 14.9)
    assert pacing.may_begin(0, 15.0)


@given(st.lists(st.tuples(st.sampled_from(["answer", "loss"]), st.floats(0.001, 1000.0), st.integers(0, 4000)), max_size=80))
def test_whatever_happens_the_window_stays_within_its_bounds(events: list[tuple[str, float, int]]) -> None:
    pacing, now = Pacing(16), 0.0
    for kind, seconds, tokens in events:
        now += seconds
        if kind == "answer":
            pacing.answered(now - seconds, now, tokens=tokens, in_flight=int(pacing.window))
        else:
            pacing.overloaded(now - seconds, now)
        assert 1.0 <= pacing.window <= 16.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        ("1e9", LONGEST_PAUSE_S),
        ("", None),
        ("soon", None),
        ("nan", None),
        (formatdate(1_000_060, usegmt=True), 60.0),
        (formatdate(999_000, usegmt=True), 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date_within_reason(header: str, seconds: float | None) -> None:
    assert pause_s(header, now=1_000_000.0) == seconds


def test_waits_double_with_jitter_up_to_the_longest() -> None:
    retries = Retries(first_wait_s=1.0, longest_wait_s=5.0)
    for failed, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (30, 5.0)):
        waits = {retries.wait_s(failed) for _ in range(50)}
        assert len(waits) > 5
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert math.isfinite(max(waits))
