"""What the meter makes of what stages tell and engines count."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import write_config, write_prompts

from cai.config import read_config
from cai.engines.base import EngineStatistics
from cai.pipeline import Ended, Figures, Meter, ProgressEvent, RowsSettled, StageProgress, open_session, read_inputs, run
from cai.pipeline.metering import Counted
from cai.records import Outcome, Stage
from cai.store import Usage
from cai.store.heartbeat import read_heartbeat


def stages(events: list[ProgressEvent]) -> list[StageProgress]:
    return [event for event in events if isinstance(event, StageProgress)]


def test_the_last_state_of_every_stage_is_told_though_most_of_them_are_not() -> None:
    events: list[ProgressEvent] = []
    with Meter(events.append) as meter:
        for done in range(1, 5001):
            meter.tell("draft", done, 5000)
        meter.tell("critique", 1, 1)
    told = stages(events)
    assert len(told) < 100
    ended = {event.stage: event for event in told if event.ended}
    assert (ended["draft"].done, ended["draft"].total, ended["critique"].done) == (5000, 5000, 1)
    assert events[-1] == Ended("finished")


def test_chunks_that_count_anew_add_up() -> None:
    events: list[ProgressEvent] = []
    with Meter(events.append) as meter:
        for chunk in (512, 512, 100):
            for done in range(1, chunk + 1):
                meter.tell("draft", done, chunk)
    last = stages(events)[-1]
    assert (last.done, last.total) == (1124, 1124)


def test_what_was_remembered_tells_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand answers from the store in no time, then one computed a second: the rest takes as long as computing does."""
    clock = [1000.0]
    monkeypatch.setattr("cai.pipeline.metering.time.monotonic", lambda: clock[0])
    reused = [0]
    events: list[ProgressEvent] = []
    meter = Meter(events.append, lambda: Counted(usage={"draft": Usage(reused=reused[0])}))
    for done in range(1, 1001):
        reused[0] = done
        meter.tell("draft", done, 1100)
    clock[0] += 1
    for second in range(60):
        clock[0] += 1
        meter.tell("draft", 1001 + second, 1100)
    last = stages(events)[-1]
    assert last.per_second == pytest.approx(1.0, rel=0.05)
    assert last.eta is not None
    assert last.eta.low_s <= 40 <= (last.eta.high_s or 0)


def test_rates_and_occupancy_are_those_of_the_last_minute_of_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("cai.pipeline.metering.time.monotonic", lambda: clock[0])
    counted = [Counted()]
    events: list[ProgressEvent] = []
    meter = Meter(events.append, lambda: counted[0])
    with meter.phase("generate"):
        for second in range(1, 200):
            clock[0] = float(second)
            fast = second > 120
            before = counted[0].statistics
            counted[0] = Counted(
                replace(
                    before,
                    prompt_tokens=before.prompt_tokens + (1000 if fast else 10),
                    completion_tokens=before.completion_tokens + 50,
                    row_steps=before.row_steps + 30,
                    slot_steps=before.slot_steps + 40,
                )
            )
            meter._beat("working")  # as its thread does once a second
    figures = [event for event in events if isinstance(event, Figures)][-1]
    assert figures.prompt_tokens_per_s == pytest.approx(1000, rel=0.01)
    assert figures.completion_tokens_per_s == pytest.approx(50, rel=0.01)
    assert figures.occupancy == pytest.approx(0.75)
    with meter.phase("dpo"):  # the engines do nothing here, so there is nothing to tell of them
        clock[0] += 5
        meter._beat("working")
    figures = [event for event in events if isinstance(event, Figures)][-1]
    assert figures.prompt_tokens_per_s is figures.completion_tokens_per_s is figures.occupancy is None
    assert figures.prompt_tokens == counted[0].statistics.prompt_tokens


def test_counts_of_two_engines_are_added() -> None:
    one = Counted(EngineStatistics(1, 2, 3, 4, 5, 6, 7, 8, 9), {"draft": Usage(1)}, {"draft: x": 1})
    both = one + Counted(EngineStatistics(1, 1, 1, 1, 1, 1, 1, 1, 1), {"draft": Usage(2), "score": Usage(5)}, {"score: y": 2})
    assert both.statistics == EngineStatistics(2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert both.usage == {"draft": Usage(3), "score": Usage(5)}
    assert both.failures == {"draft: x": 1, "score: y": 2}


@pytest.mark.parametrize(
    ("error", "state", "problem"),
    [(None, "finished", ""), (KeyboardInterrupt(), "interrupted", ""), (ValueError("odd"), "failed", "odd")],
    ids=["finished", "interrupted", "failed"],
)
def test_the_heartbeat_says_how_a_process_ended(tmp_path: Path, error: BaseException | None, state: str, problem: str) -> None:
    def work() -> None:
        with Meter(folder=tmp_path) as meter, meter.phase("label"):
            beat = read_heartbeat(tmp_path)
            assert beat is not None
            assert beat.state == "working"
            meter.tell("label", 3, 9)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    beat = read_heartbeat(tmp_path)
    assert beat is not None
    assert (beat.state, beat.problem) == (state, problem)
    assert [(line.stage, line.phase, line.done, line.total, line.ended) for line in beat.stages] == [
        ("label", "label", 3, 9, True)
    ]
    assert beat.answered is not None
    assert beat.answered <= beat.written


def test_a_heartbeat_that_cannot_be_written_or_read_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Meter(folder=tmp_path / "file") as meter:
        meter.tell("draft", 1, 1)
    for content in (b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"):
        (tmp_path / "progress.json").write_bytes(content)
        assert read_heartbeat(tmp_path) is None


def test_telling_costs_a_run_next_to_nothing() -> None:
    """At 1,000 rows a second there are some 5,000 answers a second: 3 % of the time would be 6 µs for each."""
    with Meter() as meter:

        def once() -> float:
            began = time.process_time()
            for done in range(20_000):
                meter.tell("draft", done, 20_000)
            return (time.process_time() - began) / 20_000

        assert min(once() for _ in range(3)) < 6e-6


def test_a_real_run_tells_its_stages_its_figures_and_its_rows_and_again_from_the_store(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    path = write_config(tmp_path, model, write_prompts(tmp_path / "p.jsonl", 10), dpo=None, holdout_share=0.0)
    inputs = read_inputs(read_config(path, (), {}).config)

    def told() -> list[ProgressEvent]:
        events: list[ProgressEvent] = []
        with open_session(inputs, events.append) as session:
            session.folder.forget_stage(Stage.GENERATE)
            session.folder.forget_stage(Stage.LABEL)
            run(session)
        return events

    first, again = told(), told()
    for events in (first, again):
        ended = {event.stage: (event.phase, event.done, event.total) for event in stages(events) if event.ended}
        assert ended["draft"] == ("generate", 10, 10)
        assert ended["critique"] == ("generate", 10, 10)
        assert ended["label"][0] == "label"
        rows = [event for event in events if isinstance(event, RowsSettled)]
        assert [event.phase for event in rows] == ["generate", "label"]
        assert sum(rows[-1].rows.values()) == sum(rows[-1].reasons.values()) == 10
        assert rows[0].rows[Outcome.PENDING] == 10
        assert rows[-1].rows[Outcome.PENDING] == 0
    one, two = ([event for event in events if isinstance(event, Figures)][-1] for events in (first, again))
    assert one.calls["draft"].calls == 10
    assert one.completion_tokens == sum(each.completion_tokens for each in one.calls.values()) > 0
    assert one.occupancy is None or 0 < one.occupancy <= 1
    assert one.rss_bytes > 2**27
    assert (two.computed, two.completion_tokens) == (0, 0)
    assert two.remembered == one.computed + one.remembered
    assert all(event.per_second is None for event in stages(again))
