"""Servers and networks break in every way: what is lost is sent again, what fails for good is one failure, or is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from naive import OpenTiny
from small_server import FAULTS, Behaviour, Fault, SmallServer, running

from cai.engines.base import Generation, GenerationRequest, RequestFailure, SamplingParams
from cai.engines.server import Retries, ServerEngine
from cai.errors import EngineError, ModelError
from cai.models.spec import ModelSpec
from constitution.messages import user

QUICK = Retries(attempts=4, time_outs=2, first_wait_s=0.01, longest_wait_s=0.05)
GREEDY = SamplingParams(temperature=0.0, max_tokens=6)
KEY = "sk-Zq7-secret/key+1"
WAITS = {"hang", "half_closed"}
"""Found out by the time limit, which has to be long enough for a busy machine: slow tests, but for one."""
WAIT_LIMIT_S = 4.0
FINAL: dict[Fault, str] = {
    "400": "refused_by_server",
    "key_in_400": "refused_by_server",
    "huge": "body_too_large",
}
"""Not sent again."""
ANSWERS: frozenset[Fault] = frozenset({"slow", "wrong_type", "null_content", "key_in_text"})
"""Odd, and an answer all the same."""
CAUSES: dict[Fault, str] = {
    "429": "server_overloaded",
    "503": "server_overloaded",
    "500": "server_error",
    "hang": "time_out",
    "half_closed": "time_out",
    "reset": "connection",
    "closed": "connection",
    "short_body": "connection",
    "not_json": "not_json",
    "truncated_json": "not_json",
    "no_object": "not_json",
    "deep_json": "not_json",
    "bad_gzip": "damaged_body",
    "empty_choices": "empty_choices",
    "no_message": "malformed_answer",
    "number_content": "malformed_answer",
    "half_surrogate": "malformed_answer",
    "error_in_200": "server_error",
    "key_in_500": "server_error",
}


def marked(faults: Iterable[str]) -> list[Any]:
    """Parameters of a test, those that wait marked as slow."""
    return [pytest.param(fault, marks=pytest.mark.slow) if fault in WAITS else fault for fault in sorted(faults)]


@pytest.fixture(scope="module")
def served(open_tiny: OpenTiny) -> Iterator[SmallServer]:
    with running(open_tiny("llama"), Behaviour(key=KEY)) as server:
        yield server


@pytest.fixture(autouse=True)
def the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", KEY)


@contextmanager
def engine_for(server: SmallServer, *, limit_s: float = 5.0, retries: Retries = QUICK) -> Iterator[ServerEngine]:
    """An engine that was opened while all was well."""
    server.behaviour = Behaviour(key=KEY)
    server.bodies.clear()
    server.faults.clear()
    engine = ServerEngine(
        ModelSpec(name="tiny", server=server.url, api_key_env="SMALL_KEY", time_limit_s=limit_s), retries=retries
    )
    try:
        yield engine
    finally:
        engine.close()


def ask(text: str) -> GenerationRequest:
    return GenerationRequest((user(text),), GREEDY, "k")


def says(body: dict[str, Any], text: str) -> bool:
    return bool(body["messages"][-1]["content"].startswith(text)) if "messages" in body else False


def first_times(fault: Fault, count: int, text: str = "") -> Callable[[int, dict[str, Any]], Fault | None]:
    """The first so many requests that begin with a text break so."""
    left, lock = [count], threading.Lock()

    def decide(number: int, body: dict[str, Any]) -> Fault | None:
        with lock:
            if left[0] and says(body, text):
                left[0] -= 1
                return fault
        return None

    return decide


def test_every_fault_is_known_here() -> None:
    assert set(FAULTS) == {*CAUSES, *FINAL, *ANSWERS, "key_in_404"}


@pytest.mark.parametrize("fault", [*marked(set(CAUSES) - {"hang"}), "hang"])
def test_what_is_lost_once_is_answered_all_the_same(served: SmallServer, fault: Fault) -> None:
    with engine_for(served, limit_s=WAIT_LIMIT_S if fault in WAITS else 20.0) as engine:
        before = dict(engine.generate([ask("q 0"), ask("q 1"), ask("q 2")]))
        served.behaviour.fault = first_times(fault, 1 if fault in WAITS else 2)
        assert dict(engine.generate([ask("q 0"), ask("q 1"), ask("q 2")])) == before
        assert served.faults == {fault: 1 if fault in WAITS else 2}
        assert engine.statistics().retries >= sum(served.faults.values())


@pytest.mark.parametrize("fault", marked({*CAUSES, *FINAL}))
def test_one_request_that_always_fails_is_one_failure(served: SmallServer, fault: Fault) -> None:
    with engine_for(served, limit_s=WAIT_LIMIT_S if fault in WAITS else 20.0) as engine:
        served.behaviour.fault = first_times(fault, 1000, "poison")
        answers = dict(engine.generate([ask("poison"), ask("good")]))
    failure = answers[0]
    assert isinstance(failure, RequestFailure)
    assert failure.cause == (CAUSES | FINAL)[fault]
    assert isinstance(answers[1], Generation)
    attempts = 1 if fault in FINAL else QUICK.time_outs if fault in WAITS else QUICK.attempts
    assert served.faults == {fault: attempts}
    assert KEY not in failure.detail
    assert failure.detail.isprintable()
    assert len(failure.detail) < 500


@pytest.mark.parametrize("fault", sorted(ANSWERS))
def test_what_is_odd_and_an_answer_is_taken(served: SmallServer, fault: Fault) -> None:
    with engine_for(served) as engine:
        served.behaviour.fault = lambda number, body: fault
        ((_, result),) = engine.generate([ask("x")])
    assert isinstance(result, Generation)
    assert KEY not in result.text
    assert served.faults == {fault: 1}


def test_a_burst_of_503_halves_the_window_and_loses_nothing(served: SmallServer) -> None:
    with engine_for(served, retries=Retries(attempts=100, first_wait_s=0.01, longest_wait_s=0.05)) as engine:
        served.behaviour.fault = first_times("503", 30)
        answers = dict(engine.generate([ask(f"q {n}") for n in range(40)]))
        assert engine.statistics().smaller_batches >= 1
        assert engine.statistics().retries >= 30
    assert all(isinstance(answer, Generation) for answer in answers.values())
    assert len(answers) == 40


def test_retry_after_is_kept_by_all_requests(served: SmallServer) -> None:
    import time

    with engine_for(served) as engine:
        served.behaviour.retry_after = "0.7"
        seen: list[float] = []

        def decide(number: int, body: dict[str, Any]) -> Fault | None:
            seen.append(time.monotonic())
            return "429" if len(seen) == 1 else None

        served.behaviour.fault = decide
        served.behaviour.delay_s = 0.05
        assert len(dict(engine.generate([ask(f"q {n}") for n in range(12)]))) == 12
    turned_away = seen[0]
    assert not [moment for moment in seen if turned_away + 0.3 < moment < turned_away + 0.65]


@pytest.mark.parametrize("fault", marked({"503", "reset", "not_json", "empty_choices", "hang"}))
def test_a_server_that_answers_nothing_any_more_stops_the_run_with_one_error(served: SmallServer, fault: Fault) -> None:
    retries = Retries(attempts=3, time_outs=2, first_wait_s=0.01, longest_wait_s=0.02)
    with engine_for(served, limit_s=WAIT_LIMIT_S if fault == "hang" else 20.0, retries=retries) as engine:
        done = iter(range(1000))
        served.behaviour.fault = lambda number, body: fault if next(done) >= 10 else None
        stream = engine.stream()
        for number in range(60):
            stream.submit(ask(f"q {number}"))
        answers: list[Any] = []
        with pytest.raises(EngineError, match="answers nothing any more") as caught:
            answers.extend(answer for _, answer in stream.results())
        assert "what is finished is kept" in caught.value.hint
        # With waits as short as here, one may fail for good beside others that still went well: a failure of its own.
        assert sum(isinstance(answer, Generation) for answer in answers) == 10
        assert len(answers) < 20
        assert engine.statistics().running == engine.statistics().waiting == 0
        served.behaviour.fault = lambda number, body: None  # it was started again: so can the stream be
        assert len(dict(engine.generate([ask("again")]))) == 1


def test_many_failures_in_a_row_are_failures_of_rows_while_the_server_is_there(served: SmallServer) -> None:
    """A resumed run may have nothing left but rows that fail: they must not look like a server that is gone."""
    with engine_for(served) as engine:
        served.behaviour.fault = lambda number, body: "400" if says(body, "bad") else None
        answers = dict(engine.generate([ask(f"bad {n}") for n in range(60)]))
    assert {a.cause for a in answers.values() if isinstance(a, RequestFailure)} == {"refused_by_server"}
    assert len(answers) == 60


def test_a_key_that_is_refused_later_stops_the_run(served: SmallServer) -> None:
    with engine_for(served) as engine:
        served.behaviour.key = "another"
        with pytest.raises(ModelError, match="refuses the key in \\$SMALL_KEY") as caught:
            list(engine.generate([ask("x"), ask("y")]))
    assert KEY not in str(caught.value)


def test_a_model_that_is_gone_stops_the_run_and_the_key_is_in_no_text(
    served: SmallServer, caplog: pytest.LogCaptureFixture
) -> None:
    with engine_for(served) as engine, caplog.at_level(logging.DEBUG):
        served.behaviour.fault = lambda number, body: "key_in_404"
        with pytest.raises(EngineError, match="HTTP 404") as caught:
            list(engine.generate([ask("x")]))
    assert "[api key]" in str(caught.value)
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(engine.__dict__)


def test_a_server_that_is_not_there_is_told_when_the_engine_is_opened() -> None:
    with pytest.raises(EngineError, match="does not answer: the connection failed"):
        ServerEngine(ModelSpec(name="tiny", server="http://127.0.0.1:1/v1"), retries=QUICK)


def test_opening_waits_for_a_server_that_still_loads_its_model(served: SmallServer) -> None:
    served.behaviour = Behaviour(key=KEY, fault=first_times("503", 3))
    engine = ServerEngine(ModelSpec(name="tiny", server=served.url, api_key_env="SMALL_KEY"), retries=QUICK)
    assert isinstance(dict(engine.generate([ask("x")]))[0], Generation)
    engine.close()


def test_a_fault_of_the_callers_is_raised_where_the_results_are_read(served: SmallServer) -> None:
    """Nothing that goes wrong in the background may leave the reader waiting."""
    no_key: Any = 7
    with engine_for(served) as engine, pytest.raises(AttributeError):
        list(engine.generate([GenerationRequest((user("x"),), SamplingParams(), no_key)]))
