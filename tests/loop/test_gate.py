"""The gate: what it asks, what it turns down, what a retry is, and that nothing it turned down is ever used."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.data.rows import sft_records, sft_rows
from cai.engines.base import GenerationRequest, RequestFailure, SamplingParams, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import LabelSettings, run_labels
from cai.loop import GateSettings, LoopSettings, gate_problems, gate_tally, run_loop
from cai.records import FailureRecord, GateCheck, Item, LedgerEntry, Outcome, PreferenceRecord, RevisionRecord, Verdict
from constitution.messages import user
from constitution.schema import Constitution, Principle

KIND = Principle(id="kind", principle="Be kind.", critique_request="Is it kind?", revision_request="Make it kind.")
BRIEF = Principle(id="brief", principle="Be brief.", critique_request="Is it brief?", revision_request="Make it brief.")
HELP = Principle(id="help", principle="Help.", critique_request="Does it help?", revision_request="Make it help.")
HARM = Principle(id="harm", principle="No harm.", critique_request="Is it harmless?", revision_request="Make it harmless.")
LIBRARY = Constitution(name="library", principles=(KIND, BRIEF, HELP, HARM))
ONE = Constitution(name="one", principles=(KIND,))
GATE = GateSettings(helpfulness="help", harm="harm", tolerance_nats=0.5)
DRAFT = "a draft"

Odds = Mapping[tuple[str, str], float]


class Judge(ScriptedEngine):
    """Criticises what `faulty` says, revises to the given texts in turn, and has odds for (text, principle id).

    A text that is not in the table has even odds under every principle.
    """

    def __init__(
        self,
        odds: Odds,
        revisions: Sequence[str] | Callable[[GenerationRequest], str],
        faulty: Callable[[str, str], bool] = lambda _text, _principle: True,
        fails: Callable[[GenerationRequest | ScoreRequest], bool] = lambda _request: False,
    ) -> None:
        texts = iter(revisions) if not callable(revisions) else None
        failure = RequestFailure("out_of_memory", "too big")

        def answer(request: GenerationRequest) -> str | RequestFailure:
            if fails(request):
                return failure
            if "Make it" in request.messages[-1].content:
                return revisions(request) if callable(revisions) else next(texts or iter(()))
            return "I see. " + ("Fault: so." if faulty(*judged(request)) else "Nothing to change.")

        def score(request: ScoreRequest) -> Sequence[float] | RequestFailure:
            return failure if fails(request) else (odds.get(judged(request), 0.0), 0.0)

        super().__init__(answer, score)

    def calls(self, stage: str) -> list[GenerationRequest]:
        return [each for each in self.asked if isinstance(each, GenerationRequest) and f"/{stage}/" in each.noise_key]

    @property
    def scored(self) -> list[tuple[str, str]]:
        return [judged(each) for each in self.asked if isinstance(each, ScoreRequest)]


def judged(request: GenerationRequest | ScoreRequest) -> tuple[str, str]:
    """(text, principle id) of a request for a critique."""
    (principle,) = (p for p in LIBRARY.principles if str(p.critique_request) in request.messages[-1].content)
    return request.messages[-2].content, principle.id


def run(
    judge: Judge,
    gate: GateSettings | None = GATE,
    *,
    constitution: Constitution = ONE,
    items: int = 1,
    policy: ScriptedEngine | None = None,
    seed: int = 0,
    **settings: object,
) -> list[RevisionRecord | FailureRecord]:
    rows = [Item(uid=f"i{n}", messages=(user(f"question {n}"),)) for n in range(items)]
    loop = LoopSettings.model_validate({"gate": gate, **settings})
    drafts = policy or ScriptedEngine({"": DRAFT})
    return list(run_loop(rows, constitution, drafts, judge, loop, seed=seed, library=LIBRARY))


def only(records: Sequence[RevisionRecord | FailureRecord]) -> RevisionRecord:
    (record,) = records
    assert isinstance(record, RevisionRecord), record
    return record


def check(principle: str, role: str, before: float, after: float, *, worse: bool) -> GateCheck:
    return GateCheck.model_validate(
        {"principle_id": principle, "role": role, "before_nats": before, "after_nats": after, "worse": worse}
    )


# ---- what is turned down


def test_a_revision_that_no_principle_finds_worse_takes_the_place_of_the_draft() -> None:
    odds = {(DRAFT, "kind"): -3.0, ("better", "kind"): 2.0, (DRAFT, "help"): 4.0, ("better", "help"): 3.75}
    record = only(run(Judge(odds, ["better"])))
    assert record.final == "better"
    ruling = record.rounds[0].gate
    assert ruling is not None
    assert ruling.accepted
    assert ruling.rejected == ()
    assert ruling.checks == (
        check("kind", "own", -3.0, 2.0, worse=False),
        check("help", "helpfulness", 4.0, 3.75, worse=False),
        check("harm", "harm", 0.0, 0.0, worse=False),
    )


@pytest.mark.parametrize(("principle", "role"), [("kind", "own"), ("help", "helpfulness"), ("harm", "harm")])
def test_a_revision_that_one_principle_finds_worse_leaves_the_draft_and_stays_on_record(principle: str, role: str) -> None:
    odds = {(DRAFT, principle): 1.0, ("sorry", principle): -4.0}
    record = only(run(Judge(odds, ["sorry"])))
    assert (record.final, record.changed, record.rounds[0].revision) == (DRAFT, False, None)
    assert record.rounds[0].verdict is Verdict.FAULT
    ruling = record.rounds[0].gate
    assert ruling is not None
    assert not ruling.accepted
    (rejected,) = ruling.rejected
    assert rejected.revision == "sorry"
    assert [each for each in rejected.checks if each.worse] == [check(principle, role, 1.0, -4.0, worse=True)]


def later_undoes_earlier() -> Judge:
    """Round 0 mends kindness, round 1 makes it brief and rude again."""
    odds = {(DRAFT, "kind"): -3.0, ("kind", "kind"): 3.0, ("curt", "kind"): -2.0, ("curt", "brief"): 3.0}
    return Judge(odds, ["kind", "curt"])


def two_rounds() -> tuple[Constitution, int]:
    """A constitution of two, and a seed that draws kindness first and brevity second."""
    from constitution.selection import select_principle

    both = Constitution(name="both", principles=(KIND, BRIEF))
    for seed in count():
        drawn = [select_principle(both, seed=seed, uid="i0", round=number) for number in (0, 1)]
        if [each.id for each in drawn if each] == ["kind", "brief"]:
            return both, seed
    raise AssertionError("unreachable")


def test_a_later_principle_may_not_undo_what_an_earlier_one_mended() -> None:
    """LangChain's constitutional chain does (its issue 9189): its critiques look at one principle at a time."""
    both, seed = two_rounds()
    record = only(run(later_undoes_earlier(), constitution=both, rounds=2, seed=seed))
    assert record.final == "kind"
    ruling = record.rounds[1].gate
    assert ruling is not None
    assert [each for each in ruling.rejected[0].checks if each.worse] == [check("kind", "earlier", 3.0, -2.0, worse=True)]
    without = GATE.model_copy(update={"earlier": False})
    record = only(run(later_undoes_earlier(), without, constitution=both, rounds=2, seed=seed))
    assert record.final == "curt"


def test_an_earlier_principle_that_found_nothing_to_change_has_a_say_too() -> None:
    both, seed = two_rounds()
    judge = Judge({(DRAFT, "kind"): 3.0, ("curt", "kind"): -2.0}, ["curt"], lambda _text, principle: principle == "brief")
    record = only(run(judge, constitution=both, rounds=2, seed=seed))
    assert record.rounds[0].verdict is Verdict.NOTHING_TO_CHANGE
    assert record.final == DRAFT
    assert record.gate_closed


def test_a_principle_with_several_roles_is_asked_once_in_the_first_of_them() -> None:
    record = only(run(Judge({}, ["other"]), constitution=Constitution(name="c", principles=(HELP,))))
    ruling = record.rounds[0].gate
    assert ruling is not None
    assert [(each.principle_id, each.role) for each in ruling.checks] == [("help", "own"), ("harm", "harm")]


def test_a_standing_principle_is_asked_only_about_what_it_applies_to() -> None:
    helpful = HELP.model_copy(update={"applies_to": ("requests",)})
    library = LIBRARY.model_copy(update={"principles": (KIND, helpful, HARM)})

    def roles(*tags: str) -> list[str]:
        item = Item(uid="a", messages=(user("q"),), tags=tags)
        settings = LoopSettings(gate=GATE)
        made = run_loop([item], ONE, ScriptedEngine({"": DRAFT}), Judge({}, ["new"]), settings, seed=0, library=library)
        ruling = only(list(made)).rounds[0].gate
        assert ruling is not None
        return [each.role for each in ruling.checks]

    assert roles("claims") == ["own", "harm"]
    assert roles("claims", "requests") == roles() == ["own", "helpfulness", "harm"]


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 5))
def test_worse_is_a_text_with_a_fault_whose_odds_fell_by_more_than_the_tolerance(
    before: float, after: float, tolerance: float
) -> None:
    gate = GateSettings(helpfulness=None, harm=None, tolerance_nats=tolerance)
    record = only(run(Judge({(DRAFT, "kind"): before, ("new", "kind"): after}, ["new"]), gate))
    assert record.changed == (after >= before - tolerance)


@pytest.mark.parametrize(("after", "let_in"), [(15.6, False), (15.9, True), (1.4, False)])
def test_a_sure_judge_may_waver_a_little_but_not_a_lot(after: float, let_in: bool) -> None:
    """A refusal to kill a hung process got +1.4 nats of helpfulness from the embedded model, help before it +15.8: no fault
    found, and yet all but lost. Of 64 good revisions one lost more than a nat, 16.7 to 15.6, under a principle off its topic.
    """
    record = only(
        run(Judge({(DRAFT, "help"): 16.7, ("new", "help"): after}, ["new"]), GATE.model_copy(update={"tolerance_nats": 1.0}))
    )
    assert record.changed == let_in


# ---- what is asked


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
    (label,) = run_labels([record], LIBRARY, judge, LabelSettings(), seed=0)
    assert isinstance(label, PreferenceRecord)
    assert label.margin_nats == 6.0
    labelling = [content(each) for each in judge.asked[before:]]
    assert len(labelling) == 3
    assert all(each in known for each in labelling)


# ---- what becomes of it


def kept(record: RevisionRecord) -> str:
    (entry,) = run_labels([record], LIBRARY, Judge({}, []), LabelSettings(), seed=0)
    assert isinstance(entry, LedgerEntry)
    assert entry.outcome is Outcome.KEPT
    return entry.reason


def test_a_row_whose_only_revision_was_turned_down_is_kept_for_that_reason_and_teaches_nothing() -> None:
    """Its draft has a fault that stayed: a supervised row or an anchor of it would teach the fault."""
    record = only(run(Judge({("bad", "kind"): -5.0}, ["bad"])))
    assert kept(record) == "the gate rejected the revision"
    assert list(sft_records([record])) == list(sft_rows([record])) == []


def test_a_draft_with_a_fault_whose_revision_was_empty_teaches_nothing_either() -> None:
    record = only(run(Judge({}, ["Revision:"]), None))
    assert kept(record) == "the revision was empty"
    assert list(sft_records([record])) == []


def test_a_draft_with_nothing_to_change_is_learned() -> None:
    record = only(run(Judge({}, [], lambda _text, _principle: False)))
    assert kept(record) == "nothing to change"
    assert [each.reply for each in sft_records([record])] == [DRAFT]


# ---- retries


RETRY = GATE.model_copy(update={"on_reject": "retry", "retries": 3})


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


# ---- whatever the verdicts


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["keep", "retry"]), st.booleans(), st.booleans())
def test_what_the_gate_turned_down_is_neither_the_final_text_nor_learned(
    seed: int, rounds: int, on_reject: str, critique_free: bool, earlier: bool
) -> None:
    """Every draw is a text of its own; odds, verdicts and empty draws are random."""
    chance = random.Random(seed)
    table: dict[tuple[str, str], float] = {}

    class Random(dict[tuple[str, str], float]):
        def get(self, key: tuple[str, str], default: float = 0.0) -> float:  # type: ignore[override]
            return table.setdefault(key, chance.gauss(0, 3))

    judge = Judge(
        Random(),
        lambda request: request.noise_key if chance.random() < 0.9 else "",
        lambda _text, _principle: chance.random() < 0.8,
    )
    gate = GATE.model_copy(update={"on_reject": on_reject, "earlier": earlier})
    records = run(judge, gate, constitution=LIBRARY, items=4, rounds=rounds, critique_free=critique_free)
    for record in records:
        assert isinstance(record, RevisionRecord)
        rulings = [each.gate for each in record.rounds if each.gate is not None]
        rejected = {each.revision for ruling in rulings for each in ruling.rejected}
        assert record.final not in rejected
        for mode in ("final", "all"):
            assert not rejected & {each.reply for each in sft_records([record], rounds=mode)}
        text = record.draft
        for each in record.rounds:
            if each.gate is not None:
                assert (each.revision is not None) == each.gate.accepted
                for turned_down in each.gate.rejected:
                    assert turned_down.revision == "" or any(check.worse for check in turned_down.checks)
                for made in each.gate.checks:
                    assert made.before_nats == table[text, made.principle_id]
                    assert made.after_nats == table[each.revision or "", made.principle_id]
                    assert not made.worse
            text = each.revision or text
        assert record.final == text
    tally = gate_tally([r for r in records if isinstance(r, RevisionRecord)])
    assert tally.turned_down == sum(
        not each.gate.accepted for r in records if isinstance(r, RevisionRecord) for each in r.rounds if each.gate
    )


# ---- settings, tally, records


def test_principles_that_are_not_there_are_named_with_the_setting_to_change() -> None:
    problems = gate_problems(GateSettings(harm="kind"), ONE)
    assert [str(each) for each in problems] == [
        "`loop.gate.helpfulness`: there is no principle `help-harmless-requests` here\n"
        "  → there are kind; name the one that speaks for helpfulness, or set it to null to do without"
    ]
    assert not gate_problems(GateSettings(helpfulness=None, harm=None), ONE)


def test_a_gate_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the gate asks nothing"):
        GateSettings(own=False, earlier=False, helpfulness=None, harm=None)


def test_the_tally_counts_rounds_retries_and_reasons_by_the_principle_that_asked() -> None:
    odds = {("bad", "kind"): -5.0, ("bad", "harm"): -5.0, ("worse", "help"): -5.0}
    texts = {"i0": ["fine"], "i1": ["bad", "fine"], "i2": ["bad", "worse", "bad", "bad"]}
    drawn: dict[str, int] = {}

    def revise(request: GenerationRequest) -> str:
        uid = request.noise_key.split("/")[1]
        drawn[uid] = drawn.get(uid, 0) + 1
        return texts[uid][drawn[uid] - 1]

    records = [r for r in run(Judge(odds, revise), RETRY, items=3) if isinstance(r, RevisionRecord)]
    tally = gate_tally(records)
    (one,) = tally.by_principle
    assert (one.principle_id, one.revisions, one.let_in, one.let_in_after_retry) == ("kind", 3, 2, 1)
    assert (one.turned_down, one.retries) == (1, 4)
    assert [(r.principle_id, r.role, r.count) for r in tally.reasons] == [
        ("kind", "own", 4),
        ("harm", "harm", 4),
        ("help", "helpfulness", 1),
    ]
    assert gate_tally([]).by_principle == ()


def test_records_of_runs_without_a_gate_are_read_as_they_were_written() -> None:
    old = (
        '{"version":1,"uid":"a","messages":[{"role":"user","content":"q"}],"draft":"d","rounds":'
        '[{"round":0,"principle_id":"kind","critique":"Fault: so.","verdict":"fault","revision":"r"}]}'
    )
    record = RevisionRecord.model_validate_json(old)
    assert record.final == "r"
    assert record.rounds[0].gate is None
