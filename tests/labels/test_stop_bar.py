"""The examination and the stop bar: who passes, who is refused, and on which grounds."""

from __future__ import annotations

import math

import pytest
from judges import always_a, coin, letters_judge, pointwise_judge

from cai.engines.base import Engine, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.labels import LabelQuality, LabelSettings, LabelTally, label_quality
from cai.labels.candidates import Candidate, Candidates
from cai.labels.exam import exam_questions, examine
from cai.labels.labelling import label_candidates
from cai.labels.shares import Share
from cai.labels.stop_bar import ENOUGH, WeakLabellerError, advice, weaknesses
from constitution.messages import user
from constitution.schema import Constitution, Principle, PrincipleTest

POINTWISE = LabelSettings()
LETTERS = LabelSettings(method="letters")


def constitution(tests: int, principles: int = 5) -> Constitution:
    """So many tests in all, spread over the principles; the better reply says that it is good."""
    share = [tests // principles + (n < tests % principles) for n in range(principles)]
    return Constitution(
        name="many",
        principles=tuple(
            Principle(
                id=f"p{n}",
                principle=f"Principle {n}.",
                tests=tuple(
                    PrincipleTest(prompt=f"prompt {n} {k}", better=f"good {n} {k}", worse=f"bad {n} {k}") for k in range(count)
                ),
            )
            for n, count in enumerate(share)
        ),
    )


def examined(judge: Engine, tests: int, settings: LabelSettings = POINTWISE) -> LabelQuality:
    exam = examine(constitution(tests), [judge], settings, seed=0)
    return label_quality([]).model_copy(update={"exam": exam})


def good(reply: str) -> float:
    return 2.0 if reply.startswith("good") else -2.0


def right_in(tests: int, right: int) -> ScriptedEngine:
    """A judge that is right in the first so many tests of the examination."""
    asked = exam_questions(constitution(tests))
    known = {reply for _, test in asked[:right] for reply in (test.better, test.worse)}
    return pointwise_judge(lambda reply: good(reply) * (1 if reply in known else -1))


def test_a_good_judge_passes_by_either_method() -> None:
    assert weaknesses(examined(pointwise_judge(good), 30)) == ()
    by_letters = letters_judge(lambda a, _b: good(a) + 1.0)  # with a taste for A, which both orders cancel
    assert weaknesses(examined(by_letters, 30, LETTERS)) == ()


def test_a_judge_that_always_answers_a_is_refused_with_that_message() -> None:
    (reason,) = weaknesses(examined(always_a, 30, LETTERS))
    assert "on the principles' own tests, it decides none of 30: 30 undecided (the judge does not know), 0 failed" in reason
    groups = [
        Candidates(
            f"u{n}", 0, (user("q"),), (Candidate(f"one {n}"), Candidate(f"two {n}")), ((0, 1),), constitution(0, 1).principles
        )
        for n in range(40)
    ]
    tally = LabelTally()
    for item in label_candidates(groups, [always_a], LETTERS, seed=0):
        for pair in (*item.pairs, *item.undecided):
            tally.add(pair)
    (reason,) = weaknesses(tally.quality())
    assert "mostly answers a place: both orders name the same letter in 100% of 40" in reason
    assert "names A in 100% of all answers" in reason
    assert "pointwise" in advice("letters")


def test_a_coin_is_refused() -> None:
    (reason,) = weaknesses(examined(pointwise_judge(coin), 100))
    assert "not better than chance" in reason
    assert "95 % interval" in reason


@pytest.mark.parametrize(
    ("tests", "right", "refused"),
    [
        (20, 15, False),  # Wilson's lower end: 53 %
        (20, 14, True),  # 48 %
        (100, 60, False),  # 50.2 %
        (100, 59, True),  # 49.2 %
        (19, 10, False),  # too few for an interval: more right than wrong
        (10, 5, True),
        (4, 2, True),
        (3, 2, False),
        (1, 1, False),
        (1, 0, True),
    ],
)
def test_what_has_to_be_shown_grows_with_what_can_be_shown(tests: int, right: int, refused: bool) -> None:
    assert (tests >= ENOUGH) == (tests >= 20)
    assert bool(weaknesses(examined(right_in(tests, right), tests))) == refused


@pytest.mark.parametrize(("same", "refused"), [(6, False), (15, False), (25, True)])
def test_a_taste_for_a_place_is_refused_only_where_chance_is_shown_not_to_make_it(same: int, refused: bool) -> None:
    """Of 30, 15 by chance: more than half alone is no proof."""
    quality = label_quality([]).model_copy(update={"same_slot_share": Share.of(same, 10 if same == 6 else 30)})
    assert bool(weaknesses(quality)) == refused


def test_without_tests_nothing_speaks_against_a_judge() -> None:
    quality = examined(pointwise_judge(coin), 0)
    assert quality.exam is not None
    assert (quality.exam.tests, len(quality.exam.untested)) == (0, 5)
    assert weaknesses(quality) == ()


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("settings", [POINTWISE, LETTERS], ids=["pointwise", "letters"])
def test_logits_that_are_no_numbers_are_counted_as_failures_and_refused(value: float, settings: LabelSettings) -> None:
    def score(request: ScoreRequest) -> list[float]:
        return [value for _ in request.continuations]

    quality = examined(ScriptedEngine({"": "Nothing to change."}, score), 6, settings)
    assert quality.exam is not None
    assert (quality.exam.failed, quality.exam.right) == (6, None)
    (reason,) = weaknesses(quality)
    cause = "not_a_number" if math.isnan(value) else "no_odds"
    assert f"decides none of 6: 0 undecided, 6 failed ({cause}: " in reason


def test_failures_are_told_with_their_causes_and_the_rest_counts() -> None:
    def score(request: ScoreRequest) -> list[float] | RequestFailure:
        reply = next(each.content for each in request.messages if each.role == "assistant")
        return RequestFailure("timeout", "no answer") if reply.endswith(" 0") else [good(reply), 0.0]

    quality = examined(ScriptedEngine({"": "Nothing to change."}, score), 15)
    assert quality.exam is not None
    assert (quality.exam.failed, quality.exam.causes) == (5, ("timeout: no answer",))
    assert quality.exam.right is not None
    assert (quality.exam.right.count, quality.exam.right.n) == (10, 10)
    assert weaknesses(quality) == ()


def test_of_a_large_constitution_every_principle_is_asked_before_any_is_asked_again() -> None:
    asked = exam_questions(constitution(40, principles=8), most=12)
    assert [principle.id for principle, _ in asked] == [*(f"p{n}" for n in range(8)), *(f"p{n}" for n in range(4))]


def test_an_examination_by_principle_says_which_one_the_judge_does_not_understand() -> None:
    judge = pointwise_judge(lambda reply: good(reply) * (-1 if reply.split()[1] == "3" else 1))
    quality = examined(judge, 10)
    assert quality.exam is not None
    assert [(each.right, each.decided, each.tests) for each in quality.exam.principles] == [
        (2, 2, 2),
        (2, 2, 2),
        (2, 2, 2),
        (0, 2, 2),
        (2, 2, 2),
    ]


def test_the_refusal_says_everything_and_what_to_do() -> None:
    error = WeakLabellerError(("one", "two"), advice("pointwise"))
    assert str(error).startswith("This model's labels are refused, and no pair was written:\n- one\n- two\n  → Try another")
    assert "--allow-weak-labels" in str(error)
