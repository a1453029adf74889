"""Metamorphic relations: the changes themselves, and which kind of judge breaks which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_judges import by_letters, pointwise

from cai.authoring.judgements import Judge, Question
from cai.authoring.metamorphic import PADDING, POLITE_PHRASE, RELATIONS, Kept, padded, polite
from cai.authoring.principle_tests import CaseReport, Result, cases_of, run_tests
from cai.engines.base import Engine, RequestFailure
from cai.records import Method
from cai.store import RunFolder
from constitution.schema import Constitution, Principle, PrincipleTest

BETTER = "Water boils at 100 degrees at sea level, and at less than that on a mountain; so an egg takes longer there."
WORSE = "Water always boils at 50 degrees."
TEST = PrincipleTest(prompt="When does water boil?", better=BETTER, worse=WORSE)
TRUE = Principle(id="true", principle="Say what is true.", tests=(TEST,))


def question(better: str, worse: str) -> Question:
    return Question(TRUE, "When?", better, worse, "letters")


def tried(engine: Engine, folder: Path, method: Method = "letters", min_margin: float = 0.1) -> CaseReport:
    with RunFolder.open(folder) as opened:
        report = run_tests(
            cases_of(Constitution(name="c", principles=(TRUE,))),
            Judge(engine, opened, ground_tokens=8),
            (method,),
            RELATIONS,
            min_margin_nats=min_margin,
        )
    return report.tested[0]


def outcomes(report: CaseReport) -> dict[str, Kept]:
    return {check.relation.name: check.outcome for check in report.checks}


LETTERS_NAMES = ["swapped", "labels 1/2", "labels X/Y", "polite worse", "padded worse"]
ALL_HOLD = dict.fromkeys(LETTERS_NAMES, Kept.HOLDS)


def goodness(reply: str) -> float:
    """What a judge thinks that reads the content only."""
    return 1.0 if reply.startswith(BETTER) else -1.0


@given(better=st.text(min_size=1, max_size=400), worse=st.text(min_size=1, max_size=400))
def test_padding_reaches_the_length_of_the_better_reply_and_never_passes_it(better: str, worse: str) -> None:
    made = padded(question(better, worse))
    shortest = min(len(sentence) for sentence in PADDING) + 1
    if made is None:
        assert len(worse) + shortest > len(better)
        return
    assert made == padded(question(better, worse))
    assert made.worse.startswith(worse)
    assert len(better) - shortest < len(made.worse) <= len(better)
    rest = made.worse[len(worse) :]
    for sentence in sorted(PADDING, key=len, reverse=True):
        rest = rest.replace(f" {sentence}", "")
    assert rest == ""
    assert (made.better, made.prompt, made.labels) == (better, "When?", ("A", "B"))


def test_padding_repeats_no_sentence_before_all_that_fit_are_used() -> None:
    made = padded(question("x" * (sum(len(each) + 1 for each in PADDING) + 1), "y"))
    assert made is not None
    assert all(made.worse.count(sentence) == 1 for sentence in PADDING)


def test_politeness_comes_after_the_worse_reply_and_leaves_the_better_one_alone() -> None:
    assert polite(question("good", "bad")) == question("good", f"bad {POLITE_PHRASE}")


def test_every_relation_says_what_must_hold_and_where_its_fault_is_described() -> None:
    for relation in RELATIONS:
        assert relation.statement.endswith(".")
        assert "arXiv" in relation.source
    assert len({relation.name for relation in RELATIONS}) == len(RELATIONS)


def test_a_judge_that_reads_the_content_keeps_every_relation(tmp_path: Path) -> None:
    report = tried(by_letters(lambda a, b, _: goodness(a) - goodness(b)), tmp_path / "c")
    assert outcomes(report) == ALL_HOLD
    assert outcomes(tried(pointwise(goodness), tmp_path / "c", "pointwise")) == {
        "polite worse": Kept.HOLDS,
        "padded worse": Kept.HOLDS,
    }


@pytest.mark.parametrize(
    ("bias", "broken"),
    [
        (lambda a, b, labels: -2 * (goodness(a) - goodness(b)) if labels == ("1", "2") else 0.0, {"labels 1/2"}),
        (lambda a, b, labels: -2 * (goodness(a) - goodness(b)) if labels == ("X", "Y") else 0.0, {"labels X/Y"}),
        (lambda a, b, _: 5.0 * (a.count("Thank") - b.count("Thank")), {"polite worse"}),
        (lambda a, b, _: 5.0 * (a.count(".") - b.count(".")) * ("Thank" not in a + b), {"padded worse"}),
    ],
    ids=["digits", "late letters", "politeness", "verbosity"],
)
def test_each_bias_breaks_the_relation_that_looks_for_it(
    bias: Callable[[str, str, tuple[str, str]], float], broken: set[str], tmp_path: Path
) -> None:
    report = tried(by_letters(lambda a, b, labels: goodness(a) - goodness(b) + bias(a, b, labels)), tmp_path / "c")
    assert outcomes(report) == ALL_HOLD | dict.fromkeys(broken, Kept.BROKEN)


def test_a_position_biased_test_breaks_the_swap_and_has_no_verdict_that_a_change_could_keep(tmp_path: Path) -> None:
    """What is left of such a margin once decided the other relations: an average of two answers that contradict each other."""
    report = tried(by_letters(lambda a, b, _: goodness(a) - goodness(b) + 9.0), tmp_path / "c")
    assert report.result is Result.BIASED
    others = dict.fromkeys(LETTERS_NAMES[1:], Kept.NOT_APPLICABLE)
    assert outcomes(report) == {"swapped": Kept.BROKEN} | others
    assert {check.note for check in report.checks[1:]} == {"the test itself is position-biased"}


def test_a_test_that_a_change_makes_position_biased_has_lost_its_verdict(tmp_path: Path) -> None:
    report = tried(by_letters(lambda a, b, labels: goodness(a) - goodness(b) + 9.0 * (labels == ("X", "Y"))), tmp_path / "c")
    assert outcomes(report) == ALL_HOLD | {"labels X/Y": Kept.UNDECIDED}
    (lost,) = [check for check in report.checks if check.outcome is Kept.UNDECIDED]
    assert lost.note == "position-biased after the change"


@pytest.mark.parametrize("method", ["pointwise", "letters"])
def test_a_verdict_that_is_wrong_has_to_stay_as_it_is_too(method: Method, tmp_path: Path) -> None:
    if method == "letters":
        engine = by_letters(lambda a, b, _: goodness(b) - goodness(a))
    else:
        engine = pointwise(lambda reply: -goodness(reply))
    assert set(outcomes(tried(engine, tmp_path / "c", method)).values()) == {Kept.HOLDS}


def test_what_has_no_verdict_has_none_to_keep(tmp_path: Path) -> None:
    report = tried(pointwise(lambda reply: 5.0 if POLITE_PHRASE in reply else 0.0), tmp_path / "c", "pointwise")
    assert set(outcomes(report).values()) == {Kept.NOT_APPLICABLE}
    assert {check.note for check in report.checks} == {"the test itself has no verdict"}


def test_a_verdict_that_falls_below_the_threshold_is_lost_but_not_turned(tmp_path: Path) -> None:
    report = tried(pointwise(lambda reply: 1.0 if "Thank" in reply else goodness(reply)), tmp_path / "c", "pointwise")
    assert outcomes(report) == {"polite worse": Kept.UNDECIDED, "padded worse": Kept.HOLDS}


def test_a_request_that_fails_is_an_error_of_its_relation_alone(tmp_path: Path) -> None:
    lost = RequestFailure("connection_lost", "nobody there")
    report = tried(pointwise(lambda reply: lost if "Thank" in reply else goodness(reply)), tmp_path / "c", "pointwise")
    assert outcomes(report) == {"polite worse": Kept.ERROR, "padded worse": Kept.HOLDS}
    assert report.checks[0].note == "connection_lost: nobody there"


def test_a_worse_reply_that_is_as_long_already_is_not_padded(tmp_path: Path) -> None:
    swapped = TRUE.model_copy(update={"tests": (PrincipleTest(prompt="When?", better=WORSE, worse=BETTER),)})
    with RunFolder.open(tmp_path / "c") as opened:
        report = run_tests(
            cases_of(Constitution(name="c", principles=(swapped,))),
            Judge(pointwise(goodness), opened, ground_tokens=8),
            ("pointwise",),
            RELATIONS,
            min_margin_nats=0.1,
        )
    assert outcomes(report.tested[0]) == {"polite worse": Kept.HOLDS, "padded worse": Kept.NOT_APPLICABLE}
