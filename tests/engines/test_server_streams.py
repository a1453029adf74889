"""Streams of a server's engine: nothing waits for the slow, nothing outlives who asked."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from server_requests import GREEDY, ask, engine_for
from small_server import Behaviour, SmallServer

from cai.config.settings import EngineSettings
from cai.engines.base import (
    Generation,
)
from cai.engines.opening import open_engine
from cai.engines.server import ServerEngine
from cai.errors import EngineError
from cai.models.spec import ModelSpec


def test_submitting_returns_at_once_and_follow_ups_overtake_the_slow(served: SmallServer) -> None:
    with engine_for(served, Behaviour(delay_s=0.2)) as engine:
        stream = engine.stream()
        begun = time.monotonic()
        for number in range(6):
            assert stream.submit(ask(f"first {number}")) == number
        assert time.monotonic() - begun < 0.2
        seen = []
        for ticket, _ in stream.results():
            seen.append(ticket)
            if ticket < 6:
                stream.submit(ask(f"second {ticket}"))
        assert sorted(seen) == list(range(12))
        assert list(stream.results()) == []
        stream.close()
        stream.close()
        with pytest.raises(EngineError, match="closed"):
            stream.submit(ask("x"))


def test_a_reader_may_lose_patience_and_come_back(served: SmallServer) -> None:
    with engine_for(served, Behaviour(delay_s=0.6)) as engine:
        stream = engine.stream()
        stream.submit(ask("slow"))
        assert list(stream.results(patience_s=0.05)) == []
        assert [ticket for ticket, _ in stream.results()] == [0]


def test_closing_a_stream_gives_up_its_requests_and_no_others(served: SmallServer) -> None:
    with engine_for(served, Behaviour(delay_s=0.1)) as engine:
        given_up, kept = engine.stream(), engine.stream()
        for number in range(30):
            given_up.submit(ask(f"given up {number}"))
        kept.submit(ask("kept"))
        given_up.close()
        assert [ticket for ticket, _ in kept.results()] == [0]
        assert list(given_up.results()) == []
        assert engine.statistics().waiting == engine.statistics().running == 0
        assert len(served.bodies) < 15


def test_the_window_opens_under_load_and_the_counters_tell(served: SmallServer) -> None:
    with engine_for(served, Behaviour(delay_s=0.01)) as engine:
        served.most_at_once = 0
        answers = dict(engine.generate([ask(f"load {n}", GREEDY) for n in range(60)]))
        statistics = engine.statistics()
    assert len(answers) == 60
    assert served.most_at_once > 4
    assert statistics.completion_tokens == sum(a.completion_tokens for a in answers.values() if isinstance(a, Generation))
    assert statistics.prompt_tokens == sum(a.prompt_tokens for a in answers.values() if isinstance(a, Generation))
    assert 0 < statistics.row_steps <= statistics.slot_steps


def test_never_more_requests_than_allowed(served: SmallServer) -> None:
    served.behaviour = Behaviour(delay_s=0.01)

    engine = open_engine(ModelSpec(name="tiny", server=served.url), EngineSettings(max_batch=2))
    assert isinstance(engine, ServerEngine)
    served.most_at_once = 0
    list(engine.generate([ask(f"few {n}", GREEDY) for n in range(12)]))
    engine.close()
    assert served.most_at_once <= 2


def test_a_forgotten_engine_leaves_no_thread(served: SmallServer) -> None:
    with engine_for(served):
        pass
    served.behaviour = Behaviour()
    before = sum(thread.name == "requests to a server" for thread in threading.enumerate())
    engine = ServerEngine(ModelSpec(name="tiny", server=served.url))
    list(engine.generate([ask("x")]))
    del engine
    gc.collect()
    deadline = time.monotonic() + 5
    while sum(thread.name == "requests to a server" for thread in threading.enumerate()) > before:
        assert time.monotonic() < deadline, "the thread lives on"
        time.sleep(0.02)
