"""The memo answers as its engine would, and asks it only what is new."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_run import HashEngine

from cai.engines.base import (
    FinishReason,
    Generation,
    GenerationRequest,
    GenerationResult,
    RequestFailure,
    SamplingParams,
    ScoreRequest,
    ScoreResult,
    Scores,
)
from cai.errors import EngineError, StoreError
from cai.store import MemoisedEngine, RunFolder, StoredCall
from cai.store.grouping import REQUESTS_TOGETHER
from constitution.messages import user


def request(text: str, *, stage: str = "draft", seed: int = 0) -> GenerationRequest:
    return GenerationRequest((user(text),), SamplingParams(), f"{seed}/a/b/0/{stage}/0")


def memo(run: RunFolder, log: Path, **settings: int) -> MemoisedEngine:
    return MemoisedEngine(HashEngine(log, "0", 0), run, **settings)


def computed(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_a_second_process_answers_from_the_memo_with_equal_results(tmp_path: Path) -> None:
    requests = [request(f"p{n}") for n in range(50)]
    scores = [ScoreRequest((user(f"p{n}"),), (" A", " B")) for n in range(50)]
    log = tmp_path / "log"
    with RunFolder.open(tmp_path / "run") as run:
        first = dict(memo(run, log).generate(requests))
        first_scores = dict(memo(run, log).score(scores))
    with RunFolder.open(tmp_path / "run") as run:
        again = memo(run, log)
        assert dict(again.generate(requests)) == first
        assert dict(again.score(scores)) == first_scores
        assert again.usage()["draft"].reused == 50
        assert again.usage()["draft"].calls == 0
    assert computed(log) == 100


def test_identical_requests_of_one_call_are_computed_once_and_all_answered(tmp_path: Path) -> None:
    requests = [request("same"), request("other"), request("same"), request("same")]
    with RunFolder.open(tmp_path / "run") as run:
        engine = memo(run, tmp_path / "log")
        answers = dict(engine.generate(requests))
        assert set(answers) == {0, 1, 2, 3}
        assert answers[0] == answers[2] == answers[3] != answers[1]
        assert computed(tmp_path / "log") == 2
        assert (engine.usage()["draft"].calls, engine.usage()["draft"].reused) == (2, 2)


def test_another_seed_is_another_call(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        engine = memo(run, tmp_path / "log")
        list(engine.generate([request("p", seed=0)]))
        list(engine.generate([request("p", seed=1)]))
    assert computed(tmp_path / "log") == 2


def test_a_failure_of_the_request_itself_is_remembered_and_a_passing_one_is_tried_again(tmp_path: Path) -> None:
    requests = [request("x" * 200), request("fails at times")]
    for _ in range(2):
        with RunFolder.open(tmp_path / "run") as run:
            answers = dict(memo(run, tmp_path / "log").generate(requests))
            assert isinstance(answers[0], RequestFailure)
            assert answers[0].cause == "prompt_too_long"
            assert isinstance(answers[1], RequestFailure)
    assert computed(tmp_path / "log") == 3


def test_results_survive_a_caller_who_stops_listening(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        answers = memo(run, tmp_path / "log", commit_every=1000).generate([request(f"p{n}") for n in range(8)])
        for _ in range(5):
            next(answers)
        answers.close()  # type: ignore[attr-defined]
        assert run.calls.waiting == 0
        assert sum(u.calls for u in run.usage().values()) == 5


def test_an_error_of_the_engine_keeps_what_was_finished(tmp_path: Path) -> None:
    class Breaks(HashEngine):
        def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
            for n, answer in enumerate(super().generate(requests)):
                if n == 3:
                    raise EngineError("the accelerator is gone")
                yield answer

    with pytest.raises(EngineError), RunFolder.open(tmp_path / "run") as run:
        list(
            MemoisedEngine(Breaks(tmp_path / "log", "0", 0), run, commit_every=1000).generate(
                [request(str(n)) for n in range(8)]
            )
        )
    with RunFolder.open(tmp_path / "run", create=False) as run:
        assert run.usage()["draft"].calls == 3


def test_when_a_commit_in_the_background_fails_the_next_call_says_so_and_is_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that met the error used to be forgotten, though the disk may be in order again when the run is closed."""
    monkeypatch.setattr("cai.store.calls.COMMIT_SECONDS", 0.02)
    calls = [StoredCall(key, "generate", "draft", '"x"') for key in ("first", "second")]
    with RunFolder.open(tmp_path / "run") as run, closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as other:
        other.execute("ALTER TABLE calls RENAME TO away")
        run.calls.add(calls[0])
        time.sleep(0.3)
        with pytest.raises(StoreError, match="no such table"):
            run.calls.add(calls[1])
        other.execute("ALTER TABLE away RENAME TO calls")
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as other:
        assert other.execute("SELECT key FROM calls").fetchall() == [("first",), ("second",)]


def test_an_engine_that_leaves_a_request_unanswered_is_found_out(tmp_path: Path) -> None:
    class Forgets(HashEngine):
        def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
            yield from list(super().generate(requests))[1:]

    with RunFolder.open(tmp_path / "run") as run, pytest.raises(EngineError, match="answered 7 of 8"):
        list(MemoisedEngine(Forgets(tmp_path / "log", "0", 0), run).generate([request(str(n)) for n in range(8)]))


def test_usage_is_booked_by_stage_and_totals_over_processes(tmp_path: Path) -> None:
    for number in range(2):
        with RunFolder.open(tmp_path / "run") as run:
            engine = memo(run, tmp_path / "log")
            list(engine.generate([request("ab", stage="draft", seed=number), request("abc", stage="critique", seed=number)]))
            with engine.stage("labels"):
                list(engine.score([ScoreRequest((user(str(number)),), (" A",))]))
            assert engine.usage()["draft"].prompt_tokens == 2
            assert engine.usage()["critique"].completion_tokens == 3
            assert engine.usage()["labels"].calls == 1
    with RunFolder.open(tmp_path / "run") as run:
        assert run.usage()["critique"].prompt_tokens == 6
        assert run.usage()["labels"].calls == 2


@settings(max_examples=30, deadline=None)
@given(
    st.text(st.characters(codec=None), max_size=20),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=4),
)
def test_any_text_and_any_number_come_back_as_they_were(text: str, logps: list[float]) -> None:
    """Story: thoughts were written to the memo and forgotten by its reader, so that a resumed run lost them."""
    import tempfile

    class Says(HashEngine):
        def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, GenerationResult]]:
            yield 0, Generation(text, FinishReason.STOP, 1, 2, thoughts=text[::-1])

        def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
            yield 0, Scores(tuple(logps), 1)

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            with RunFolder.open(Path(folder) / "run") as run:
                engine = MemoisedEngine(Says(Path(folder) / "log", "0", 0), run)
                (_, generation), (_, scores) = (
                    *engine.generate([request("p")]),
                    *engine.score([ScoreRequest((user("p"),), (" A",))]),
                )
                assert generation == Generation(text, FinishReason.STOP, 1, 2, thoughts=text[::-1])
                assert scores == Scores(tuple(logps), 1)


class Batched(HashEngine):
    """Scores that depend, in the last bit, on what is computed together: as every kernel's do."""

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, ScoreResult]]:
        together = "".join(self.request_key(request) for request in requests)
        for index, result in super().score(requests):
            assert isinstance(result, Scores)
            last_bit = (hash(together) % 1000) * 1e-12
            yield index, Scores(tuple(logp + last_bit for logp in result.logps), result.prompt_tokens)


@pytest.mark.parametrize("broken_after", [1, 5, REQUESTS_TOGETHER, REQUESTS_TOGETHER + 7, 3 * REQUESTS_TOGETHER - 1])
def test_scores_after_an_interruption_are_those_of_an_uninterrupted_run_to_the_last_bit(
    tmp_path: Path, broken_after: int
) -> None:
    """A killed run used to score what was left in batches of another make-up; one kill in a few changed a data set's bytes."""
    requests = [ScoreRequest((user(f"p{n % 700}"),), (" A", " B")) for n in range(3 * REQUESTS_TOGETHER + 5)]
    with RunFolder.open(tmp_path / "straight") as run:
        straight = dict(MemoisedEngine(Batched(tmp_path / "log-1", "0", 0), run).score(requests))
    with RunFolder.open(tmp_path / "broken") as run:
        answers = MemoisedEngine(Batched(tmp_path / "log-2", "0", 0), run, commit_every=1).score(requests)
        for _ in range(broken_after):
            next(answers)
        answers.close()  # type: ignore[attr-defined]
    with RunFolder.open(tmp_path / "broken") as run:
        assert dict(MemoisedEngine(Batched(tmp_path / "log-2", "0", 0), run).score(requests)) == straight
