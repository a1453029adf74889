"""What the gate asks: what the loop asked before, its own verdicts, and nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from gate_judges import DRAFT, GATE, LIBRARY, Judge, judged, only, run, two_rounds

from cai.engines.base import GenerationRequest, SamplingParams, ScoreRequest
from cai.labels import LabelSettings, run_labels
from cai.loop import GateSettings


def test_the_gate_off_asks_exactly_what_the_loop_asked_before_there_was_one() -> None:
    """The digest was made by the loop without a gate; equal keys mean that nothing in a run folder is asked again."""
    both, _ = two_rounds()
    judge = Judge({}, lambda request: f"{request.messages[-4].content}+")
    run(judge, None, constitution=both, rounds=3, items=4, replicas=2)
    assert len(judge.asked) == 48
    keys = "".join(sorted(judge.request_key(each) for each in judge.asked))
    assert hashlib.sha256(keys.encode()).hexdigest()[:16] == "728bdff23f9de946"


def test_the_gate_only_adds_calls_and_all_of_them_are_its_own() -> None:
    def keys(gate: GateSettings | None) -> list[str]:
        judge = Judge({}, lambda request: f"{request.messages[-4].content}+")
        run(judge, gate, constitution=two_rounds()[0], rounds=3, items=4)
        loop = [*judge.calls("critique"), *judge.calls("revision")]
        assert len(loop) + len(judge.calls("gate")) + len(judge.scored) == len(judge.asked)
        return [judge.request_key(each) for each in loop]

    assert keys(GATE) == keys(None)


def test_a_text_is_judged_once_under_each_principle_and_a_greedy_critique_is_its_ground() -> None:
    both, seed = two_rounds()
    judge = Judge({}, ["one", "two"])
    run(judge, constitution=both, rounds=2, seed=seed)
    assert sorted(judge.scored) == sorted(set(judge.scored))
    assert set(judge.scored) == {(t, p) for t in (DRAFT, "one", "two") for p in ("kind", "help", "harm")} | {
        ("one", "brief"),
        ("two", "brief"),
    }
    grounds = [judged(each) for each in judge.calls("gate")]
    assert (DRAFT, "kind") not in grounds
    assert ("one", "brief") not in grounds
    assert len(grounds) == len(judge.scored) - 2


def test_the_ground_of_a_sampled_critique_is_not_compared_with_a_greedy_one() -> None:
    judge = Judge({}, ["new"])
    run(judge, critique=SamplingParams(temperature=1.0))
    assert (DRAFT, "kind") in [judged(each) for each in judge.calls("gate")]


@pytest.mark.parametrize("revision", [DRAFT, "Revision:"])
def test_a_revision_that_is_the_same_or_empty_costs_no_verdict(revision: str) -> None:
    judge = Judge({}, [revision])
    record = only(run(judge))
    assert record.final == DRAFT
    assert not judge.scored
    assert (record.rounds[0].gate is None) == (revision != DRAFT)


def test_all_items_of_a_chunk_are_judged_in_one_batch() -> None:
    batches: list[int] = []

    class Counted(Judge):
        def score(self, requests: Sequence[ScoreRequest]):  # type: ignore[no-untyped-def]
            batches.append(len(requests))
            return super().score(requests)

    run(Counted({}, lambda request: "new"), items=5)
    assert batches == [5 * 3 * 2]


def test_revisions_without_a_critique_pass_the_gate_as_well() -> None:
    judge = Judge({(DRAFT, "kind"): 1.0, ("worse", "kind"): -1.0}, ["worse"])
    record = only(run(judge, critique_free=True))
    assert record.final == DRAFT
    assert record.gate_closed
    assert not record.unmended, "nobody found a fault in this draft"


def test_the_labels_of_one_round_ask_for_nothing_that_the_gate_has_asked() -> None:
    judge = Judge({(DRAFT, "kind"): -3.0, ("new", "kind"): 3.0}, ["new"])
    record = only(run(judge))

    def content(request: GenerationRequest | ScoreRequest) -> object:
        return (request.messages, request.params if isinstance(request, GenerationRequest) else request.response_prefix)

    known = [content(each) for each in judge.asked]
    before = len(judge.asked)
    (made,) = run_labels([record], LIBRARY, [judge], LabelSettings(), seed=0)
    assert [pair.margin_nats for pair in made.pairs] == [6.0]
    labelling = [content(each) for each in judge.asked[before:]]
    assert len(labelling) == 3
    assert all(each in known for each in labelling)
