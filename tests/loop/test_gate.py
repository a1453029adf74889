"""The gate: what it turns down, what becomes of it, and that nothing it turned down is ever used."""

from __future__ import annotations

import random

import pytest
from gate_judges import DRAFT, GATE, HARM, HELP, KIND, LIBRARY, ONE, RETRY, Judge, check, only, run, two_rounds
from hypothesis import given
from hypothesis import strategies as st

from cai.data.rows import sft_records, sft_rows
from cai.engines.base import GenerationRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import LabelSettings, run_labels
from cai.loop import GateSettings, LoopSettings, gate_problems, gate_tally, run_loop
from cai.records import Item, Outcome, RevisionRecord, Verdict
from constitution.messages import user
from constitution.schema import Constitution

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


# ---- what becomes of it


def kept(record: RevisionRecord) -> str:
    (made,) = run_labels([record], LIBRARY, [Judge({}, [])], LabelSettings(), seed=0)
    assert made.entry.outcome is Outcome.KEPT
    return made.entry.reason


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
