"""Models on suites: figures against values worked out by hand, failures, several models, no call twice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from suite_contestants import Answer, ask, contestant, many, saying
from suite_texts import PLANETS, write_suite

from cai.engines.base import GenerationRequest, RequestFailure
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.by_suites import evaluate_suites
from cai.evaluation.data_suites import plan_suite
from cai.evaluation.settings import EvaluationSettings
from cai.evaluation.suite_reading import read_suite
from cai.evaluation.suite_results import Correction
from cai.evaluation.wording import got_worse, sentences
from cai.statistics import benjamini_hochberg, holm, wilson_interval
from cai.store import MemoisedEngine, RunFolder

GREEDY = EvaluationSettings(temperatures=(0.0,))


def test_shares_and_their_change_worked_out_by_hand(tmp_path: Path) -> None:
    """Wrong everywhere before; after, Earth's two prompts are right: 6/6 → 4/6, in three clusters of which one changed."""
    before = contestant("base", saying("I know of 7, or so."))
    after = contestant("tuned", saying(lambda request: "One." if "Earth" in request.messages[-1].content else "It has 7."))
    found = ask(tmp_path, PLANETS, before, after).result
    assert [(each.model, each.behaviours[0].share) for each in found.models] == [("base", 1.0), ("tuned", 4 / 6)]
    (comparison,) = found.comparisons
    wrong, long = comparison.rows
    assert (wrong.before, wrong.after, wrong.prompts, wrong.clusters, wrong.twin) == (1.0, 4 / 6, 6, 3, "long")
    assert wrong.mcnemar_p == 1.0, "one cluster that changed says nothing, though two answers did"
    assert [wrong.p_corrected, long.p_corrected] == holm([wrong.mcnemar_p, long.mcnemar_p])
    assert found.tests_corrected_for == 2
    alone = found.models[0].behaviours[0]
    assert (alone.answers, alone.clusters) == (6, 3)
    assert (alone.low, alone.high) == (wilson_interval(3, 3).low, 1.0), "two prompts of one planet are no two of them"
    assert not wrong.enough
    assert wrong.missing_clusters >= 17
    assert "NOT ENOUGH ROWS: 3 independent prompts" in sentences(comparison)[0]


@pytest.mark.parametrize(
    ("correction", "corrected"), [("holm", holm), ("benjamini-hochberg", benjamini_hochberg), ("none", list)]
)
def test_p_values_are_corrected_as_asked_over_all_suites_and_models_together(
    tmp_path: Path, correction: Correction, corrected: Callable[[list[float]], list[float]]
) -> None:
    def wrong_below(limit: int) -> Answer:
        return lambda request: "no" if int(request.messages[-1].content.split()[-1]) < limit else "yes"

    behaviour = {
        "id": "wrong",
        "label": "wrong",
        "kind": "control",
        "prompts": [{"for_each": ["rows"], "prompt": "Is it {{ n }}"}],
        "checker": {"first": [{"exact": {"accept": ["yes"]}}, {"otherwise": "bad"}]},
    }
    plan = plan_suite(read_suite(write_suite(tmp_path, many(behaviours=[behaviour]))), None)
    models = [contestant(str(limit), saying(wrong_below(limit))) for limit in (10, 2, 4, 0)]
    twice = evaluate_suites([plan, plan], models, None, GREEDY, max_tokens=32, seed=0, correction=correction)
    rows = [row for each in twice for comparison in each.result.comparisons for row in comparison.rows]
    p_values = [row.mcnemar_p for row in rows]
    assert p_values[:3] == p_values[3:] == [2 / 2**8, 2 / 2**6, 2 / 2**10]
    assert [row.p_corrected for row in rows] == corrected(p_values)
    assert [each.result.tests_corrected_for for each in twice] == [6, 6]


def test_the_model_answers_between_the_users_turns_and_all_of_it_is_kept(tmp_path: Path) -> None:
    def counting(request: GenerationRequest) -> str:
        return f"Answer {sum(turn.role == 'assistant' for turn in request.messages)}."

    found = ask(tmp_path, PLANETS, contestant("one", saying(counting)))
    (earth, *_) = [each for each in found.answers if each.section == "long"]
    assert [(turn.role, turn.content) for turn in earth.conversation] == [
        ("system", "Be short."),
        ("user", "Tell me of Earth."),
        ("assistant", "Answer 0."),
        ("user", "More."),
        ("assistant", "What?"),
        ("user", "That."),
    ]
    assert (earth.reply, earth.outcome, earth.why) == ("Answer 2.", "good", "2 words")


def test_what_fails_or_is_not_judged_is_counted_with_its_cause_and_in_no_figure(tmp_path: Path) -> None:
    content = copy.deepcopy(PLANETS)
    content["behaviours"][0]["checker"] = {"exact": {"accept": ["{{ moons }}"], "reject": ["7"]}}

    def answer(request: GenerationRequest) -> str | RequestFailure:
        asked = request.messages[-1].content
        return RequestFailure("out_of_memory", "no room") if "Mars" in asked else "Who knows" if "Venus" in asked else "7"

    found = ask(tmp_path, content, contestant("one", saying(answer))).result
    (model,) = found.models
    assert model.failures == {"behaviours: out_of_memory": 3, "not judged: says neither": 2}
    assert (model.behaviours[0].answers, model.behaviours[0].share) == (2, 1.0)
    assert found.failures == 5


def test_every_model_gets_the_same_prompts_and_the_same_noise(tmp_path: Path) -> None:
    engines = [saying("One.", name=str(n)) for n in range(3)]
    found = ask(
        tmp_path, PLANETS, *(contestant(f"step {n}", e) for n, e in enumerate(engines)), temperatures=(0.0, 1.0), seeds=3
    )
    assert engines[0].asked == engines[1].asked == engines[2].asked
    keys = {(r.noise_key, r.params.temperature) for r in engines[0].asked if isinstance(r, GenerationRequest)}
    assert len(keys) == 4 * (6 + 2 * 3)
    assert [(each.before, each.after) for each in found.result.comparisons] == [("step 0", "step 1"), ("step 0", "step 2")]
    assert found.result.models[0].behaviours[0].answers == 6 * 4


def test_a_killed_evaluation_asks_nothing_twice(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def dying(request: GenerationRequest) -> str:
        if len(engine.asked) > 7:
            raise Killed
        return "One."

    engine = ScriptedEngine(dying, name="same")
    with pytest.raises(Killed), RunFolder.open(tmp_path / "cache") as folder:
        ask(tmp_path, PLANETS, contestant("one", MemoisedEngine(engine, folder)))
    again = ScriptedEngine(lambda request: "One.", name="same")
    with RunFolder.open(tmp_path / "cache") as folder:
        found = ask(tmp_path, PLANETS, contestant("one", MemoisedEngine(again, folder)))
    assert len(again.asked) == 12 - 7
    fresh = ask(tmp_path, PLANETS, contestant("one", ScriptedEngine(lambda request: "One.", name="same")))
    assert found == fresh


def test_a_cure_that_overshoots_is_told_together_with_its_twin(tmp_path: Path) -> None:
    sides = [
        {
            "id": side,
            "label": side,
            "kind": kind,
            "twin": twin,
            "prompts": [{"for_each": ["rows"], "prompt": f"{side} {{{{ n }}}}"}],
            "checker": {"first": [{"exact": {"accept": [wanted]}}, {"otherwise": "bad"}]},
        }
        for side, kind, twin, wanted in (("false", "fault", "true", "no"), ("true", "control", "false", "yes"))
    ]
    content = many(behaviours=sides)
    truthful: Answer = lambda r: "no" if "false" in r.messages[-1].content else "yes"  # noqa: E731
    found = ask(
        tmp_path,
        content,
        contestant("yes to all", saying("yes")),
        contestant("no to all", saying("no")),
        contestant("right", saying(truthful)),
    ).result
    assert "OVER-CORRECTED" in sentences(found.comparisons[0])[0]
    assert got_worse(found.comparisons[0]) == ["true"]
    assert "Better, and the twin held" in sentences(found.comparisons[1])[0]
    assert got_worse(found.comparisons[1]) == []
