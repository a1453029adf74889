"""Tests of principles: margins by hand, every result, one failure apart from the others, and what a second run asks again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from scripted_judges import by_letters, pointwise

from cai.authoring.judgements import Answer, Judge, Judgement
from cai.authoring.metamorphic import BOTH, RELATIONS, Relation
from cai.authoring.principle_tests import Case, ConstitutionReport, Result, cases_of, result_of, run_tests, tally
from cai.engines.base import Engine, GenerationRequest, GenerationStream, RequestFailure, ScoreRequest, generate_all
from cai.engines.local import LocalEngine
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.records import Method
from cai.store import RunFolder
from constitution.schema import Constitution, Principle, PrincipleTest


def principle(name: str, *tests: tuple[str, str, str], **fields: Any) -> Principle:
    entries = tuple(PrincipleTest(prompt=prompt, better=better, worse=worse) for prompt, better, worse in tests)
    return Principle(id=name, principle=f"Be {name}.", tests=entries, **fields)


KIND = principle("kind", ("Hello?", "good", "bad"), ("Bye?", "good", "bad"))
BRIEF = principle("brief", ("Why?", "short", "long"))
BOTH_PRINCIPLES = Constitution(name="both", principles=(KIND, BRIEF))


def run(
    constitution: Constitution,
    engine: Engine,
    folder: Path,
    *,
    methods: Sequence[Method] = ("letters",),
    relations: Sequence[Relation] = (),
    min_margin: float = 0.1,
) -> ConstitutionReport:
    with RunFolder.open(folder) as opened:
        judge = Judge(engine, opened, ground_tokens=8)
        return run_tests(cases_of(constitution), judge, methods, relations, min_margin_nats=min_margin)


def test_letters_are_judged_in_both_orders_and_averaged(tmp_path: Path) -> None:
    odds = {("good", "bad"): 2.0, ("bad", "good"): -1.0, ("short", "long"): -3.0, ("long", "short"): 0.5}
    report = run(BOTH_PRINCIPLES, by_letters(lambda a, b, _: odds[a, b]), tmp_path / "c")
    first, second, third = report.tested
    for each in (first, second):
        assert isinstance(each.answer.outcome, Judgement)
        assert each.answer.outcome.parts_nats == pytest.approx((2.0, 1.0))
        assert each.answer.outcome.margin_nats == pytest.approx(1.5)
        assert each.result is Result.PASSED
    assert isinstance(third.answer.outcome, Judgement)
    assert third.answer.outcome.parts_nats == pytest.approx((-3.0, -0.5))
    assert third.answer.outcome.margin_nats == pytest.approx(-1.75)
    assert third.result is Result.FAILED


def test_a_judge_that_names_one_place_whatever_stands_there_is_position_biased(tmp_path: Path) -> None:
    report = run(BOTH_PRINCIPLES, by_letters(lambda a, b, _: 3.0 if a in {"good", "short"} else 2.0), tmp_path / "c")
    assert [each.result for each in report.tested] == [Result.BIASED] * 3
    assert isinstance(report.tested[0].answer.outcome, Judgement)
    assert report.tested[0].answer.outcome.margin_nats == pytest.approx(0.5)  # would pass, were it not for the place


def test_pointwise_margins_are_differences_of_the_two_log_odds_and_keep_the_grounds(tmp_path: Path) -> None:
    odds = {"good": -0.5, "bad": -2.0, "short": 1.0, "long": 4.0}
    report = run(BOTH_PRINCIPLES, pointwise(lambda reply: odds[reply]), tmp_path / "c", methods=("pointwise",))
    outcome = report.tested[0].answer.outcome
    assert isinstance(outcome, Judgement)
    assert outcome.margin_nats == pytest.approx(1.5)
    assert outcome.parts_nats == pytest.approx((-0.5, -2.0))
    assert outcome.grounds == ("It says good.", "It says bad.")
    assert [each.result for each in report.tested] == [Result.PASSED, Result.PASSED, Result.FAILED]
    critic = report.critic()
    # Faults in both `bad`, none in `long`; the two `good` are judged at fault, `short` is kept.
    assert (critic.faulted, critic.kept, critic.judged) == (2, 1, 3)


def test_a_failed_request_fails_its_own_test_alone_and_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    lost = RequestFailure("connection_lost", "nobody there")
    failing = pointwise(lambda reply: lost if reply == "long" else float(len(reply)))
    report = run(BOTH_PRINCIPLES, failing, tmp_path / "c", methods=("pointwise",))
    assert [each.result for each in report.tested] == [Result.PASSED, Result.PASSED, Result.ERROR]
    assert report.tested[2].answer.outcome == lost
    counted = tally(report.tested)
    assert (counted.passed, counted.judged, counted.counts[Result.ERROR]) == (2, 2, 1)
    again = run(BOTH_PRINCIPLES, pointwise(lambda reply: float(len(reply))), tmp_path / "c", methods=("pointwise",))
    assert again.tested[2].result is Result.PASSED
    assert (again.computed, again.remembered) == (1, 2)


def test_nothing_judged_has_no_interval() -> None:
    counted = tally([])
    assert (counted.passed, counted.judged, counted.interval) == (0, 0, None)


@pytest.mark.parametrize(
    ("parts", "method", "result"),
    [
        ((1.0, 1.0), "letters", Result.PASSED),
        ((-1.0, -1.0), "letters", Result.FAILED),
        ((2.0, -1.0), "letters", Result.BIASED),
        ((2.0, -0.01), "letters", Result.BIASED),  # as the labels' own figures count it: by the signs
        ((0.3, 0.0), "letters", Result.UNDECIDED),
        ((0.19, -0.19), "letters", Result.UNDECIDED),  # both orders say nothing: that is no bias
        ((0.2, 0.2), "letters", Result.PASSED),
        ((0.0, 0.0), "letters", Result.UNDECIDED),
        ((5.0, 4.0), "pointwise", Result.PASSED),
        ((4.0, -5.0), "pointwise", Result.PASSED),  # log-odds of two replies, not two orders
        ((-5.0, 4.0), "pointwise", Result.FAILED),
        ((5.0, 4.9), "pointwise", Result.UNDECIDED),
    ],
)
def test_each_result_by_its_margins(parts: tuple[float, float], method: Method, result: Result) -> None:
    margin = sum(parts) / 2 if method == "letters" else parts[0] - parts[1]
    assert result_of(Answer(Judgement(margin, parts), remembered=False), method, 0.2) is result


@given(
    parts=st.tuples(*[st.floats(-9, 9)] * 2),
    threshold=st.floats(0, 3),
    method=st.sampled_from(BOTH),
)
def test_exchanging_the_replies_exchanges_pass_and_fail_and_nothing_else(
    parts: tuple[float, float], threshold: float, method: Method
) -> None:
    one, other = parts
    if method == "letters":
        straight, swapped = Judgement((one + other) / 2, parts), Judgement((-one - other) / 2, (-other, -one))
    else:
        straight, swapped = Judgement(one - other, parts), Judgement(other - one, (other, one))
    results = [result_of(Answer(each, remembered=False), method, threshold) for each in (straight, swapped)]
    exchanged = {Result.PASSED: Result.FAILED, Result.FAILED: Result.PASSED}
    assert results[1] is exchanged.get(results[0], results[0])


def test_text_selects_by_id_prompt_and_replies_in_any_case() -> None:
    def names(text: str) -> list[str]:
        return [case.name for case in cases_of(BOTH_PRINCIPLES, text)]

    assert names("") == ["kind/1", "kind/2", "brief/1"]
    assert names("KIND") == ["kind/1", "kind/2"]
    assert names("bye") == ["kind/2"]
    assert names("LONG") == ["brief/1"]
    assert names("kind/2") == ["kind/2"]
    assert names("nowhere") == []
    assert Case(KIND, 2).test.prompt == "Bye?"


class Counted:
    """An engine that counts what it is asked, independently of the memo above it."""

    def __init__(self, inner: Engine) -> None:
        self.inner = inner
        self.fingerprint, self.context_tokens = inner.fingerprint, inner.context_tokens
        self.count_tokens, self.request_key = inner.count_tokens, inner.request_key
        self.generated: list[GenerationRequest] = []
        self.scored: list[ScoreRequest] = []

        self.statistics = inner.statistics

    def stream(self) -> GenerationStream:
        stream = self.inner.stream()
        submit = stream.submit

        def counted(request: GenerationRequest) -> int:
            self.generated.append(request)
            return submit(request)

        stream.submit = counted
        return stream

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Any]:
        return generate_all(self, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Any]:
        self.scored += requests
        return self.inner.score(requests)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def local(folder: Path) -> Counted:
    return Counted(LocalEngine(load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu"))))


LONG = "A longer reply, long enough for a sentence or two to be put behind the other one, so that all relations apply."
TWO = Constitution(
    name="two",
    principles=(
        principle("kind", ("Hello?", LONG, "bad"), ("Bye?", "good", "bad")),
        principle("brief", ("Why?", LONG, "no")),
    ),
)


def edited(name: str, **changes: Any) -> Constitution:
    return TWO.model_copy(
        update={"principles": tuple(p.model_copy(update=changes) if p.id == name else p for p in TWO.principles)}
    )


def test_a_second_run_on_a_real_model_judges_only_what_an_edit_changed(model: Path, tmp_path: Path) -> None:
    def judged(constitution: Constitution, folder: Path = model) -> tuple[ConstitutionReport, Counted]:
        engine = local(folder)
        return run(constitution, engine, tmp_path / "c", methods=BOTH, relations=RELATIONS), engine

    first, engine = judged(TWO)
    # By hand. pointwise: 3 tests, polite 3, padded 2. letters: 3 tests, two pairs of labels 6, polite 3, padded 2.
    assert (first.computed, first.remembered) == (8 + 14, 0)
    # Replies by verdict: better and worse of 3 tests, polite 3, padded 2. Each is criticised once, and scored once.
    assert len(engine.generated) == 11
    assert len(engine.scored) == 11 + 2 * 14

    second, engine = judged(TWO)
    assert (second.computed, second.remembered) == (0, 22)
    assert not engine.generated
    assert not engine.scored
    assert [each.answer.outcome for each in second.tested] == [each.answer.outcome for each in first.tested]

    for constitution in (edited("kind", rationale="Because."), edited("brief", weight=7.0, applies_to=("questions",))):
        report, engine = judged(constitution)
        assert (report.computed, report.remembered) == (0, 22)
        assert not engine.generated
        assert not engine.scored

    report, engine = judged(edited("brief", principle="Be as short as can be."))
    assert {each.case.principle.id for each in report.tested if not each.answer.remembered} == {"brief"}
    assert (report.computed, report.remembered) == (3 + 5, 14)
    assert all("short as can be" in request.messages[-1].content for request in [*engine.generated, *engine.scored])

    report, _ = judged(edited("kind", preference_question="Which is kinder?"))
    changed = {(each.case.principle.id, each.method) for each in report.tested if not each.answer.remembered}
    assert changed == {("kind", "letters")}

    other = make_checkpoint(tmp_path / "other", seed=1)
    report, _ = judged(TWO, other)
    assert (report.computed, report.remembered) == (22, 0)


def test_margins_of_a_real_model_are_the_log_probabilities_of_its_verdicts(model: Path, tmp_path: Path) -> None:
    """Against the engine asked directly, with the letters' probabilities added up by hand."""
    from constitution.messages import user
    from constitution.rendering import COMPARISON_PREFIX, render_comparison

    engine = local(model)
    report = run(TWO, engine, tmp_path / "c")
    case = report.tested[2].case
    margins: list[float] = []
    for first, second in ((case.test.better, case.test.worse), (case.test.worse, case.test.better)):
        messages = render_comparison(case.principle, (user(case.test.prompt),), first, second)
        # To this model " A" is two tokens, so that only "A" has a probability of its own.
        ((_, scores),) = engine.inner.score([ScoreRequest(messages, ("A", "B"), COMPARISON_PREFIX)])
        assert not isinstance(scores, RequestFailure)
        margins.append(scores.logps[0] - scores.logps[1])
    outcome = report.tested[2].answer.outcome
    assert isinstance(outcome, Judgement)
    assert outcome.parts_nats == pytest.approx((margins[0], -margins[1]), abs=1e-4)
