"""A revision that the gate turned down is drawn again; what cannot be drawn or judged fails its item alone."""

from __future__ import annotations

import pytest
from gate_judges import DRAFT, RETRY, Judge, only, run

from cai.engines.base import GenerationRequest, SamplingParams, ScoreRequest
from cai.records import FailureRecord, RevisionRecord
from constitution.messages import user

# ---- retries


def test_a_retry_draws_the_revision_again_with_noise_of_its_own_until_one_is_let_in() -> None:
    odds = {("bad", "kind"): -5.0, ("worse", "kind"): -6.0, ("fine", "kind"): 1.0}
    judge = Judge(odds, ["bad", "worse", "fine"])
    record = only(run(judge, RETRY))
    assert record.final == "fine"
    ruling = record.rounds[0].gate
    assert ruling is not None
    assert (ruling.accepted, ruling.retries) == (True, 2)
    assert [each.revision for each in ruling.rejected] == ["bad", "worse"]
    (first,) = judge.calls("revision")
    retries = judge.calls("retry")
    assert first.params.temperature == 0.0
    assert [each.noise_key for each in retries] == ["0/i0/0/retry/0.1", "0/i0/0/retry/0.2"]
    assert {each.params.temperature for each in retries} == {RETRY.retry_temperature}
    assert all(each.messages == first.messages for each in retries)


def test_a_sampled_revision_is_drawn_again_at_its_own_temperature() -> None:
    judge = Judge({("bad", "kind"): -5.0}, ["bad", "fine"])
    run(judge, RETRY, revision=SamplingParams(temperature=1.25))
    assert [each.params.temperature for each in judge.calls("retry")] == [1.25]


def test_when_every_retry_is_turned_down_the_draft_stays() -> None:
    judge = Judge({("bad", "kind"): -5.0}, ["bad", "bad", "", "bad"])
    record = only(run(judge, RETRY))
    assert (record.final, record.changed) == (DRAFT, False)
    ruling = record.rounds[0].gate
    assert ruling is not None
    assert (ruling.accepted, ruling.retries) == (False, 3)
    assert [each.revision for each in ruling.rejected] == ["bad", "bad", "", "bad"]
    assert "empty revision" in ruling.rejected[2].note
    assert judge.scored.count(("bad", "kind")) == 1


def test_only_what_was_turned_down_is_drawn_again() -> None:
    def revise(request: GenerationRequest) -> str:
        return "bad" if "/i1/" in request.noise_key and "/revision/" in request.noise_key else f"fine {request.noise_key}"

    judge = Judge({("bad", "kind"): -5.0}, revise)
    records = run(judge, RETRY, items=3)
    assert [each.noise_key for each in judge.calls("retry")] == ["0/i1/0/retry/0.1"]
    assert [r.final for r in records if isinstance(r, RevisionRecord)] == [
        "fine 0/i0/0/revision/0",
        "fine 0/i1/0/retry/0.1",
        "fine 0/i2/0/revision/0",
    ]


# ---- failures


@pytest.mark.parametrize("kind", [GenerationRequest, ScoreRequest])
def test_a_verdict_that_cannot_be_had_fails_its_item_alone(kind: type[GenerationRequest | ScoreRequest]) -> None:
    def fails(request: GenerationRequest | ScoreRequest) -> bool:
        asked = isinstance(request, kind) and request.messages[0] == user("question 1")
        return asked and (not isinstance(request, GenerationRequest) or "/gate/" in request.noise_key)

    records = run(Judge({}, lambda _request: "new", fails=fails), items=3, rounds=2)
    failure = records[1]
    assert isinstance(failure, FailureRecord)
    assert (failure.uid, failure.stage, failure.cause) == ("i1", "gate", "out_of_memory")
    assert [r.final for r in records if isinstance(r, RevisionRecord)] == ["new", "new"]


def test_a_retry_that_cannot_be_drawn_fails_its_item_alone() -> None:
    def fails(request: GenerationRequest | ScoreRequest) -> bool:
        return isinstance(request, GenerationRequest) and "/i0/0/retry/" in request.noise_key

    judge = Judge({("bad", "kind"): -5.0}, lambda _request: "bad", fails=fails)
    first, second = run(judge, RETRY, items=2)
    assert isinstance(first, FailureRecord)
    assert (first.stage, first.cause) == ("retry", "out_of_memory")
    assert only([second]).gate_closed
