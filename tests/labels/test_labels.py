"""AI feedback: odds worked out by hand, position bias, abstention, failures, and what a run says of its labeller."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import (
    Compared,
    Judged,
    LabelSettings,
    LetterMargins,
    VerdictOdds,
    compare,
    judge,
    label_quality,
    run_labels,
)
from cai.labels.labelling import ItemLabels
from cai.labels.shares import Share
from cai.records import (
    FailureRecord,
    LedgerEntry,
    Outcome,
    PreferenceRecord,
    RevisionRecord,
    Round,
    UndecidedRecord,
    Verdict,
)
from constitution.messages import assistant, user
from constitution.rendering import COMPARISON_PREFIX
from constitution.schema import Constitution, Principle

KIND = Principle(id="kind", principle="Be kind.", preference_question="Which is kinder?")
BRIEF = Principle(id="brief", principle="Be brief.", preference_question="Which is shorter?")
BOTH = Constitution(name="both", principles=(KIND, BRIEF))
CONVERSATION = (user("question"),)
LETTERS = LabelSettings(method="letters", max_p_chosen=1.0, min_margin_nats=0.0)
POINTWISE = LabelSettings(method="pointwise", max_p_chosen=1.0, min_margin_nats=0.0)


def letters(a: float, b: float) -> tuple[float, ...]:
    """Probabilities of A and B, each split unevenly over " X" and "X"."""
    return tuple(math.log(p * share) for p in (a, b) for share in (0.75, 0.25))


def by_letters(odds_of_a: Callable[[str, str, str], tuple[float, ...] | RequestFailure]) -> ScriptedEngine:
    """A judge that is asked with (reply A, reply B, the principle's line)."""

    def score(request: ScoreRequest) -> tuple[float, ...] | RequestFailure:
        assert request.response_prefix == COMPARISON_PREFIX
        assert request.continuations == (" A", "A", " B", "B")
        text = request.messages[-1].content
        a, rest = text.split("Reply A:\n")[1].split("\n\nReply B:\n")
        b, principle = rest.split("\n\nPrinciple: ")
        return odds_of_a(a, b, principle)

    return ScriptedEngine({}, score)


def record(
    uid: str = "a",
    *,
    draft: str = "a draft",
    revision: str | None = "a revision",
    critique: str = "It is rude. Fault: so.",
    principle: str = "kind",
    replica: int = 0,
    tags: tuple[str, ...] = (),
) -> RevisionRecord:
    verdict = Verdict.FAULT if revision is not None else Verdict.NOTHING_TO_CHANGE
    only = Round(round=0, principle_id=principle, critique=critique, verdict=verdict, revision=revision)
    return RevisionRecord(uid=uid, replica=replica, messages=CONVERSATION, draft=draft, rounds=(only,), tags=tags)


Label = PreferenceRecord | LedgerEntry | FailureRecord


def only(made: ItemLabels) -> Label:
    """The pair of an item that has one, else its failure, else why there is none."""
    return made.pairs[0] if made.pairs else made.failure or made.entry


def label(
    records: Sequence[RevisionRecord], engine: Any, settings: LabelSettings, constitution: Constitution = BOTH
) -> list[Label]:
    return [only(made) for made in run_labels(records, constitution, [engine], settings, seed=0)]


def pair(label: Label) -> PreferenceRecord:
    assert isinstance(label, PreferenceRecord), label
    return label


# ---- letters


def test_two_orders_are_averaged_in_log_odds() -> None:
    """P(A) = 0.6, P(B) = 0.2 with the revision as A; swapped, P(A) = 0.3, P(B) = 0.5.

    Margins for the revision: log(0.6/0.2) = log 3 and −log(0.3/0.5) = log(5/3); their mean is log(5)/2, so
    p = √5 / (1 + √5) = 0.690983; 0.2 of the probability went to neither letter each time.
    """
    engine = by_letters(lambda a, _b, _p: letters(0.6, 0.2) if a == "a revision" else letters(0.3, 0.5))
    found = pair(label([record()], engine, LETTERS)[0])
    assert (found.chosen, found.rejected, found.chosen_source) == ("a revision", "a draft", "revision")
    assert found.margin_nats == pytest.approx(math.log(5) / 2)
    assert found.p_chosen == pytest.approx(0.6909830056250525)
    assert [c.order for c in found.comparisons] == ["first_second", "second_first"]
    assert [c.margin_nats for c in found.comparisons] == pytest.approx([math.log(3), math.log(5 / 3)])
    assert [c.mass_outside for c in found.comparisons] == pytest.approx([0.2, 0.2])


@given(st.floats(-4, 4), st.floats(-6, 6))
def test_a_preference_for_a_position_cancels(margin: float, bias: float) -> None:
    """Whatever log-odds the judge adds to the letter A, in either order."""

    def score(a: str, _b: str, _p: str) -> tuple[float, ...]:
        p = 1 / (1 + math.exp(-((margin if a == "first" else -margin) + bias)))
        return letters(p, 1 - p)

    (found,) = compare(by_letters(score), [Compared(CONVERSATION, "first", "second", KIND)])
    assert isinstance(found, LetterMargins)
    assert sum(found.margins_nats) / 2 == pytest.approx(margin, abs=1e-6)


def test_several_principles_are_averaged_and_each_is_recorded() -> None:
    """log-odds log 4 for kindness and −log 2 for brevity: their mean is log(2)/2."""

    def score(a: str, _b: str, principle: str) -> tuple[float, ...]:
        p = 0.8 if principle.startswith("Be kind.") else 1 / 3
        return letters(p, 1 - p) if a == "a revision" else letters(1 - p, p)

    found = pair(label([record()], by_letters(score), LETTERS.model_copy(update={"principles": "applicable"}))[0])
    assert found.principle_ids == ("kind", "brief")
    assert found.margin_nats == pytest.approx(math.log(2) / 2)
    assert {(c.principle_id, round(c.margin_nats, 6)) for c in found.comparisons} == {
        ("kind", round(math.log(4), 6)),
        ("brief", round(-math.log(2), 6)),
    }


def test_a_preferred_draft_is_chosen_against_its_revision() -> None:
    engine = by_letters(lambda a, _b, _p: letters(0.1, 0.9) if a == "a revision" else letters(0.9, 0.1))
    found = pair(label([record()], engine, LETTERS)[0])
    assert (found.chosen, found.rejected, found.chosen_source) == ("a draft", "a revision", "draft")
    assert found.p_chosen == pytest.approx(0.9)
    assert found.margin_nats == pytest.approx(math.log(9))
    assert found.comparisons[0].margin_nats == pytest.approx(-math.log(9)), "comparisons always speak of the revision"


def test_orders_that_contradict_each_other_make_no_pair_when_agreement_is_asked_for() -> None:
    engine = by_letters(lambda _a, _b, _p: letters(0.7, 0.3) if _a == "a revision" else letters(0.6, 0.4))
    assert isinstance(label([record()], engine, LETTERS)[0], PreferenceRecord)
    kept = label([record()], engine, LETTERS.model_copy(update={"require_agreement": True}))[0]
    assert kept == LedgerEntry(uid="a", outcome=Outcome.KEPT, reason="undecided: the two orders contradict each other")


@pytest.mark.parametrize("logps", [(-math.inf,) * 4, (-1.0, -2.0, -math.inf, -math.inf)])
def test_a_letter_without_any_probability_fails_its_pair(logps: tuple[float, ...]) -> None:
    """Log-odds of nothing were not a number, compared false with every limit, and made a pair."""
    (found,) = label([record()], by_letters(lambda _a, _b, _p: logps), LETTERS)
    assert isinstance(found, FailureRecord)
    assert (found.stage, found.cause) == ("label", "no_odds")


# ---- pointwise


def verdicts(odds: dict[str, float]) -> ScriptedEngine:
    """Critiques repeat the reply; log-odds of nothing to change are by reply."""

    def score(request: ScoreRequest) -> tuple[float, float]:
        assert [each.strip() for each in request.continuations] == ["Nothing to change", "Fault:"]
        (value,) = (value for reply, value in odds.items() if assistant(reply) in request.messages)
        return (-1.0, -1.0 - value)

    return ScriptedEngine(lambda request: f"It says: {request.messages[-2].content}. Fault: yes.", score)


def test_the_margin_is_the_difference_of_two_log_odds() -> None:
    """+1.5 for the revision, −0.5 for the draft: 2 nats, p = 1/(1 + e^−2) = 0.880797."""
    found = pair(label([record()], verdicts({"a revision": 1.5, "a draft": -0.5}), POINTWISE)[0])
    assert (found.chosen, found.method) == ("a revision", "pointwise")
    assert found.margin_nats == pytest.approx(2.0)
    assert found.p_chosen == pytest.approx(0.8807970779778823)
    assert [c.order for c in found.comparisons] == ["none"]


def test_the_ground_is_written_once_and_scored_without_its_verdict() -> None:
    """The draft's critique is there from the loop; the revision's is written up to the verdict."""
    engine = verdicts({"a revision": 1.0, "a draft": 0.0})
    label([record(critique="It is rude. Fault: so.")], engine, POINTWISE)
    written = [request for request in engine.asked if isinstance(request, GenerationRequest)]
    assert [request.messages[1] for request in written] == [assistant("a revision")]
    assert written[0].params.temperature == 0
    scored = [request for request in engine.asked if isinstance(request, ScoreRequest)]
    assert [request.response_prefix for request in scored] == ["It says: a revision.", "It is rude."]
    assert all(each.startswith(" ") for request in scored for each in request.continuations)


@pytest.mark.parametrize(
    ("critique", "ground"),
    [
        ("It is fine. no changes needed.", "It is fine."),
        ("Fault: at once.", ""),
        ("It goes on and on", "It goes on and on"),
    ],
)
def test_a_written_ground_is_read_as_a_known_one(critique: str, ground: str) -> None:
    """Only the two set phrases ended a written ground: in other words the verdict stayed in it, and was scored again."""
    engine = ScriptedEngine({"": critique}, {f"{' ' if ground else ''}{v}": -1.0 for v in ("Nothing to change", "Fault:")})
    (found,) = judge(engine, [Judged(CONVERSATION, "reply", KIND, "k")], ground_tokens=64)
    assert found == VerdictOdds(0.0, ground)


def test_verdicts_without_any_probability_fail_their_pair() -> None:
    (found,) = label([record()], verdicts({"a revision": math.inf, "a draft": 0.0}), POINTWISE)
    assert isinstance(found, FailureRecord)
    assert found.cause == "no_odds"


# ---- what becomes of an item


@pytest.mark.parametrize(
    ("margin", "limit", "decided"), [(0.3, 0.2, True), (0.25, 0.25, True), (0.1, 0.2, False), (0.0, 0.0, False)]
)
def test_below_the_margin_there_is_no_pair(margin: float, limit: float, decided: bool) -> None:
    settings = POINTWISE.model_copy(update={"min_margin_nats": limit})
    (found,) = label([record()], verdicts({"a revision": margin, "a draft": 0.0}), settings)
    assert isinstance(found, PreferenceRecord) == decided
    assert decided or found == LedgerEntry(uid="a", outcome=Outcome.KEPT, reason="undecided: the judge does not know")


def test_sureness_is_capped_and_the_margin_is_not() -> None:
    settings = POINTWISE.model_copy(update={"max_p_chosen": 0.95})
    found = pair(label([record()], verdicts({"a revision": 30.0, "a draft": -900.0}), settings)[0])
    assert (found.p_chosen, found.margin_nats) == (0.95, 930.0)


def test_items_without_two_answers_are_kept_with_the_cause_and_cost_no_call() -> None:
    kept = record("kept", revision=None)
    same = record("same", revision="a draft")
    bare = RevisionRecord(uid="bare", messages=CONVERSATION, draft="d", rounds=())
    unknown = record("unknown", principle="gone")
    engine = ScriptedEngine({})
    found = label([kept, same, bare, unknown], engine, POINTWISE)
    assert [(each.uid, each.reason) for each in found if isinstance(each, LedgerEntry)] == [
        ("kept", "nothing to change"),
        ("same", "the revision repeats the draft"),
        ("bare", "no principle applies"),
        ("unknown", "no principle to judge by"),
    ]
    assert not engine.asked


@pytest.mark.parametrize("settings", [LETTERS, POINTWISE], ids=["letters", "pointwise"])
def test_a_failing_pair_fails_alone_and_the_order_stays(settings: LabelSettings) -> None:
    def score(request: ScoreRequest) -> tuple[float, ...] | RequestFailure:
        if any("bad" in message.content for message in request.messages):
            return RequestFailure("out_of_memory", "no room")
        first_is_better = tuple(-1.0 - n for n, _ in enumerate(request.continuations))
        text = request.messages[-1].content
        compared = "Reply A" in text
        good = text.find("a revision") < text.find("a draft") if compared else assistant("a revision") in request.messages
        return first_is_better if good else first_is_better[::-1]

    engine = ScriptedEngine({"": "Ground. Fault: x"}, score)
    records = [record("one"), record("two", revision="bad"), record("kept", revision=None), record("three")]
    for chunk in (1, 2, 512):
        found = label(records, engine, settings.model_copy(update={"chunk_items": chunk}))
        assert [(each.uid, type(each)) for each in found] == [
            ("one", PreferenceRecord),
            ("two", FailureRecord),
            ("kept", LedgerEntry),
            ("three", PreferenceRecord),
        ]


def test_principles_to_judge_by_can_be_named() -> None:
    settings = POINTWISE.model_copy(update={"principles": ("brief",)})
    found = pair(label([record()], verdicts({"a revision": 1.0, "a draft": 0.0}), settings)[0])
    assert found.principle_ids == ("brief",)


def test_progress_counts_calls_and_finished_pairs() -> None:
    told: list[tuple[int, int, int]] = []
    engine = by_letters(lambda a, _b, _p: letters(0.9, 0.1) if a == "a revision" else letters(0.1, 0.9))
    settings = LETTERS.model_copy(update={"chunk_items": 1})
    list(run_labels([record("a"), record("b")], BOTH, [engine], settings, seed=0, on_event=lambda *call: told.append(call)))
    assert told == [(1, 2, 0), (2, 2, 0), (1, 2, 1), (2, 2, 1)]


# ---- what a run says of its labeller


def test_the_labellers_quality_worked_out_by_hand() -> None:
    def found(uid: str, chosen: str, rejected: str, source: str, p: float, margins: tuple[float, float]) -> PreferenceRecord:
        data = {
            "uid": uid,
            "prompt": CONVERSATION,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_source": source,
            "rejected_source": "revision" if source == "draft" else "draft",
            "p_chosen": p,
            "margin_nats": abs(sum(margins) / 2),
            "method": "letters",
            "principle_ids": ("kind",),
            "comparisons": [
                {"uid": uid, "principle_id": "kind", "method": "letters", "order": o, "margin_nats": m, "mass_outside": 0.1 * n}
                for n, (o, m) in enumerate(zip(("first_second", "second_first"), margins, strict=True))
            ],
        }
        return PreferenceRecord.model_validate(data)

    pairs = [
        found("a", "long reply", "short", "revision", 0.75, (2.0, 1.0)),  # 5 longer
        found("b", "no", "much longer", "draft", 0.5, (0.5, -2.5)),  # 9 shorter, same slot
        found("c", "same", "size", "revision", 1.0, (4.0, 2.0)),
    ]
    undecided = UndecidedRecord(
        uid="d",
        prompt=CONVERSATION,
        margin_nats=0.0,
        method="letters",
        principle_ids=("kind",),
        first="one",
        second="other",
        first_source="revision",
        second_source="draft",
        reason="the judge does not know",
    )
    quality = label_quality(pairs, [undecided])
    assert (quality.method, quality.pairs, quality.undecided, quality.undecided_share) == ("letters", 3, 1, Share.of(1, 4))
    assert quality.mean_margin_nats == pytest.approx((1.5 + 1.0 + 3.0) / 3)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert quality.mean_entropy_bits == pytest.approx((entropy + 1.0 + 0.0) / 3)
    assert quality.draft_won_share == Share.of(1, 3)
    assert quality.longer_won_share == Share.of(1, 2)
    assert quality.mean_length_gap_characters == pytest.approx((5 - 9 + 0) / 3)
    assert quality.same_slot_share == Share.of(1, 3)
    assert quality.mean_mass_outside == pytest.approx(0.05)


def test_where_there_is_nothing_to_measure_nothing_is_claimed() -> None:
    quality = label_quality([]).model_dump()
    assert (quality.pop("pairs"), quality.pop("undecided")) == (0, 0)
    assert not any(quality.values())
