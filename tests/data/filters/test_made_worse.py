"""Revisions that labels find worse than their drafts: from a sure label on, or from any where the draft had been found good."""

from __future__ import annotations

import pytest

from cai.data.filters.preferences import draft_verdicts, made_worse, worst
from cai.data.filters.settings import FilterRules
from cai.records import GateCheck, GateRole, GateRuling, PreferenceRecord, RevisionRecord, Round, Verdict
from constitution.messages import user

RULES = FilterRules(made_worse_p=0.8)


def label(p_chosen: float, chosen: str = "draft", rejected: str = "last") -> PreferenceRecord:
    return PreferenceRecord(
        uid="u",
        prompt=(user("q"),),
        chosen=chosen,
        rejected=rejected,
        chosen_source="draft" if chosen == "draft" else "revision",
        rejected_source="draft" if rejected == "draft" else "revision",
        p_chosen=p_chosen,
        margin_nats=1.0,
        method="pointwise",
        principle_ids=("a",),
    )


def step(number: int, verdict: Verdict, revision: str | None, gate: GateRuling | None = None) -> Round:
    return Round(round=number, principle_id="a", critique="c", verdict=verdict, revision=revision, gate=gate)


def record(*rounds: Round) -> RevisionRecord:
    return RevisionRecord(uid="u", messages=(user("q"),), draft="draft", rounds=rounds)


def check(role: GateRole, before_nats: float) -> GateCheck:
    return GateCheck(principle_id=role, role=role, before_nats=before_nats, after_nats=0.0, worse=False)


FAULTED = record(step(0, Verdict.FAULT, "last"))
MOSTLY_GOOD = record(
    step(0, Verdict.NOTHING_TO_CHANGE, None), step(1, Verdict.NOTHING_TO_CHANGE, None), step(2, Verdict.FAULT, "last")
)


@pytest.mark.parametrize(
    ("made", "pairs", "p"),
    [
        (FAULTED, [label(0.81)], 0.81),
        (FAULTED, [label(0.79)], None),
        (MOSTLY_GOOD, [label(0.55)], 0.55),
        (FAULTED, [label(0.95, chosen="last", rejected="draft")], None),
        (FAULTED, [label(0.95, rejected="an earlier revision")], None),
        (FAULTED, [label(0.95, rejected="an earlier revision"), label(0.85), label(0.9)], 0.9),
        (FAULTED, [], None),
    ],
)
def test_the_surest_label_against_the_final_revision_decides(
    made: RevisionRecord, pairs: list[PreferenceRecord], p: float | None
) -> None:
    found = worst(pairs, made, RULES)
    assert (None if found is None else found.score) == p


def test_a_file_of_pairs_is_judged_by_its_labels_alone() -> None:
    assert made_worse(label(0.9), RULES) is not None
    assert made_worse(label(0.7), RULES) is None


def test_only_principles_that_looked_at_the_draft_itself_have_a_say() -> None:
    gate = GateRuling(accepted=True, checks=(check("own", 3.0), check("helpfulness", 2.0), check("harm", -1.0)))
    made = record(
        step(0, Verdict.NOTHING_TO_CHANGE, None),
        step(1, Verdict.FAULT, "first", gate),
        step(2, Verdict.NOTHING_TO_CHANGE, None),
    )
    assert list(draft_verdicts(made)) == [True, False, True, False], "two critiques, the gate's others; not those of `first`"
