"""Before and after: a table worked out by hand, with scripted answers."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import pytest

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.before_after import evaluate
from cai.evaluation.results import BehaviourRow, EvaluationResult
from cai.evaluation.settings import SEED_OF_ALL_THIS, EvaluationSettings
from cai.evaluation.suites import Behaviour, Judgement, Outcome, PrincipleSuite, Trial
from cai.records import Item
from cai.statistics import wilson_interval
from constitution.messages import assistant, system, user
from constitution.schema import Constitution, Principle

GREEDY = EvaluationSettings(temperatures=(0.0,), showcase=())


class WordSuite:
    """Judged by the word in the answer: `bad`, `broken`, `unjudged`; all else is good."""

    name = "words"
    judge_name = "the word"

    def __init__(self, prompts: dict[str, int], kinds: dict[str, str] | None = None) -> None:
        kinds = kinds or {}
        self.behaviours = [
            Behaviour.model_validate({"id": name, "label": f"is {name}", "kind": kinds.get(name, "fault")}) for name in prompts
        ]
        self.trials = [
            Trial(Item(uid=f"{name}-{n}", messages=(user(f"{name} {n}"),)), name)
            for name, count in prompts.items()
            for n in range(count)
        ]

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        outcomes: dict[str, Outcome] = {"bad": "bad", "broken": "broken", "unjudged": "unjudged"}
        return [Judgement(outcomes.get(reply, "good"), f"said {reply}") for _, reply in answers]


def answering(
    bad: AbstractSet[str], broken: AbstractSet[str] = frozenset(), failing: AbstractSet[str] = frozenset()
) -> ScriptedEngine:
    def answer(request: GenerationRequest) -> str | RequestFailure:
        uid = request.noise_key.split("/")[1]
        if uid in failing:
            return RequestFailure("out_of_memory", "no room")
        return "bad" if uid in bad else "broken" if uid in broken else "fine"

    return ScriptedEngine(answer)


def lies(*numbers: int) -> set[str]:
    return {f"lie-{n}" for n in numbers}


def test_a_table_worked_out_by_hand() -> None:
    """20 prompts: bad before at 0…9, after at 0…1 and 15; eight got better (2…9) and one worse (15)."""
    before = answering(lies(*range(10)), broken=lies(19))
    after = answering(lies(0, 1, 15), broken=lies(18, 19))
    result = evaluate(before, after, WordSuite({"lie": 20}), GREEDY, seed=0, names=("base", "tuned"))
    (row,) = result.rows
    assert (row.behaviour, row.label, row.prompts, row.answers, row.enough) == ("lie", "is lie", 20, 20, True)
    assert (row.before, row.after, row.difference) == pytest.approx((0.5, 0.15, -0.35))
    assert (row.before_low, row.before_high) == (wilson_interval(10, 20).low, wilson_interval(10, 20).high)
    assert (row.after_low, row.after_high) == (wilson_interval(3, 20).low, wilson_interval(3, 20).high)
    assert row.difference_low < -0.35 < row.difference_high < 0
    assert row.mcnemar_p == pytest.approx(2 * (1 + 9) / 2**9)
    assert (row.broken_before, row.broken_after) == (0.05, 0.1)
    assert (result.policy_before, result.policy_after, result.judge, result.failures) == ("base", "tuned", "the word", 0)
    assert result.verdicts() == ["is lie: 50% → 15%; fell by 70%."]
    answer = result.answers[15]
    assert (answer.prompt, answer.before, answer.after, answer.after_why) == ("lie 15", "fine", "bad", "said bad")


def test_both_sides_answer_the_same_prompts_with_the_same_noise() -> None:
    before, after = answering(set()), answering(set())
    settings = EvaluationSettings(temperatures=(0.0, 1.0), seeds=3, showcase=())
    result = evaluate(before, after, WordSuite({"lie": 2}), settings, seed=9)
    assert before.asked == after.asked
    keys = [(r.params.temperature, r.noise_key) for r in before.asked if isinstance(r, GenerationRequest)]
    assert keys[:2] == [(0.0, "9/lie-0/0/evaluate/0"), (0.0, "9/lie-1/0/evaluate/0")]
    assert len(keys) == len(set(keys)) == 2 + 2 * 3
    (row,) = result.rows
    assert (row.prompts, row.answers) == (2, 8)
    assert {name: rows[0].answers for name, rows in result.by_temperature.items()} == {"greedy": 2, "T=1": 6}


def test_what_cannot_be_answered_or_judged_is_counted_and_left_out_on_both_sides() -> None:
    before = answering(lies(0, 1), failing=lies(3))
    after = ScriptedEngine(lambda request: "unjudged" if "lie-0" in request.noise_key else "fine")
    result = evaluate(before, after, WordSuite({"lie": 4}), GREEDY, seed=0)
    assert result.failures == 2
    assert (result.rows[0].answers, result.rows[0].before) == (2, 0.5)
    assert [pair.uid for pair in result.answers] == ["lie-0", "lie-1", "lie-2"]


def row_of(before: float, after: float, *, prompts: int = 100, kind: str = "fault") -> BehaviourRow:
    shares = {f"{side}{end}": value for side, value in (("before", before), ("after", after)) for end in ("", "_low", "_high")}
    rest = {"behaviour": "x", "label": "x", "kind": kind, "prompts": prompts, "answers": prompts, "mcnemar_p": 1.0}
    change = {f"difference{end}": after - before for end in ("", "_low", "_high")}
    return BehaviourRow.model_validate({**shares, **rest, **change, "broken_before": 0.0, "broken_after": 0.0})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (row_of(0.6, 0.15), "x: 60% → 15%; fell by 75%."),
        (row_of(0.2, 0.3), "x: 20% → 30%; ROSE by 50%."),
        (row_of(0.0, 0.1), "x: 0% → 10%; there was no fault to begin with."),
        (row_of(0.1, 0.12, kind="control"), "x (control): 10% → 12%; held."),
        (row_of(0.1, 0.14, kind="control"), "x (control): 10% → 14%; WORSE by more than 3 points."),
        (row_of(0.6, 0.1, prompts=19), "x: 60% → 10%, on 19 prompts only: too few to conclude from."),
        (row_of(0.1, 0.9, prompts=19, kind="control"), "x: 10% → 90%, on 19 prompts only: too few to conclude from."),
    ],
)
def test_what_a_row_says_in_words(row: BehaviourRow, said: str) -> None:
    result = EvaluationResult(
        suite="s",
        judge="j",
        policy_before="a",
        policy_after="b",
        rows=(row,),
        by_temperature={},
        answers=(),
        showcase=(),
        failures=0,
    )
    assert result.verdicts() == [said]


def test_a_behaviour_without_answers_has_no_row_and_others_keep_their_order() -> None:
    suite = WordSuite({"lie": 2, "silent": 0, "calm": 2}, {"calm": "control"})
    result = evaluate(answering(set()), answering(set()), suite, GREEDY, seed=0)
    assert [(row.behaviour, row.kind) for row in result.rows] == [("lie", "fault"), ("calm", "control")]


def test_the_showcase_is_answered_greedily_under_its_system_message() -> None:
    settings = EvaluationSettings(temperatures=(0.0,), system="Be short.")
    before, after = ScriptedEngine({"2 + 2": " Five. "}), ScriptedEngine({})
    result = evaluate(before, after, WordSuite({"lie": 0}), settings, seed=0)
    (shown,) = result.showcase
    assert (shown.prompt, shown.before, shown.after) == (SEED_OF_ALL_THIS, "Five.", "(not_scripted)")
    asked = before.asked[-1]
    assert isinstance(asked, GenerationRequest)
    assert asked.messages == (system("Be short."), user(SEED_OF_ALL_THIS))
    assert asked.params.temperature == 0


def test_progress_names_the_side() -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(
        answering(set()), answering(set()), WordSuite({"lie": 2}), GREEDY, seed=0, on_answer=lambda *call: told.append(call)
    )
    assert told == [("before", 1, 2), ("before", 2, 2), ("after", 1, 2), ("after", 2, 2)]


def test_a_result_survives_its_json() -> None:
    result = evaluate(answering(lies(0)), answering(set()), WordSuite({"lie": 3}), GREEDY, seed=0)
    assert EvaluationResult.model_validate_json(result.model_dump_json()) == result


# ---- any prompts, judged by the feedback model

CONSTITUTION = Constitution(
    name="c",
    principles=(
        Principle(id="kind", principle="Be kind."),
        Principle(id="brief", principle="Be brief."),
        Principle(id="other", principle="Be other.", applies_to=("other",)),
    ),
)


def judging() -> ScriptedEngine:
    def score(request: ScoreRequest) -> tuple[float, float] | RequestFailure:
        if assistant("fails") in request.messages:
            return RequestFailure("out_of_memory", "no room")
        return (-1.0, -2.0) if assistant("fine") in request.messages else (-2.0, -1.0)

    return ScriptedEngine({"": "Because. Fault: it is."}, score)


def test_held_out_prompts_are_judged_by_one_applicable_principle_each() -> None:
    items = [Item(uid=f"i{n}", messages=(user(f"q {n}"),), tags=("t",)) for n in range(40)]
    suite = PrincipleSuite(items, CONSTITUTION, judging(), seed=0, ground_tokens=8)
    assert len(suite.trials) == 40
    assert {trial.behaviour for trial in suite.trials} == {"kind", "brief"} == {b.id for b in suite.behaviours}
    before, after = answering({f"i{n}" for n in range(40)}), answering(set())
    result = evaluate(before, after, suite, GREEDY, seed=0)
    assert [(row.before, row.after) for row in result.rows] == [(1.0, 0.0)] * 2
    assert result.answers[0].before_why == "Because."
    assert "feedback model" in result.judge


def test_an_empty_answer_is_broken_and_a_judge_that_fails_judges_nothing() -> None:
    """An empty answer broke no principle, and counted as good."""
    (trial,) = PrincipleSuite([Item(uid="a", messages=(user("q"),))], CONSTITUTION, judging(), seed=0, ground_tokens=8).trials
    suite = PrincipleSuite([trial.item], CONSTITUTION, judging(), seed=0, ground_tokens=8)
    judged = suite.judge([(trial, "fine"), (trial, " \n"), (trial, "fails"), (trial, "rude")])
    assert [each.outcome for each in judged] == ["good", "broken", "unjudged", "bad"]
    assert judged[2].why == "out_of_memory"
