"""Suite files: what is read, what becomes of it, and that every problem is told at its place."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from suite_texts import PLANETS, write_suite

from cai.errors import ConfigError, ProblemList
from cai.evaluation.data_suites import DataSuite, plan_suite
from cai.evaluation.judging import JudgeModel
from cai.evaluation.suite_cases import CHECK, behaviours, questions, trials
from cai.evaluation.suite_files import SuiteFile
from cai.evaluation.suite_reading import ReadSuite, read_suite, read_suites, shipped_suites
from constitution.messages import Conversation, assistant, system, user

SUITES = Path(__file__).resolve().parents[2] / "cai" / "evaluation" / "suites"
NOBODY = JudgeModel("nobody", lambda: pytest.fail("a judge was opened"))


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(PLANETS)
    place: Any = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return content


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ProblemList) as caught:
        read_suite(path)
    return [each.problem for each in caught.value.problems]


def test_rows_become_conversations_and_checkers_are_filled_in(tmp_path: Path) -> None:
    suite = read_suite(write_suite(tmp_path, PLANETS))
    found = trials(suite)
    assert Counter(each.behaviour for each in found) == {"wrong": 6, "long": 3}
    assert [each.item.messages for each in found[:2]] == [
        (system("Be short."), user("How many moons has Earth?")),
        (system("Be short."), user("Please: How many moons has Mars?")),
    ]
    assert found[1].item.facts[CHECK] == {"first": [{"exact": {"accept": ["2"], "reject": ["7"]}}, {"otherwise": "bad"}]}
    assert [each.cluster for each in found] == [f"planets {n}" for n in (1, 2, 3, 1, 2, 3, 1, 2, 3)]
    follow_ups: tuple[Conversation, ...] = ((user("More."), assistant("What?"), user("That.")),)
    assert found[-1].follow_ups == follow_ups
    assert [(each.id, each.kind, each.twin) for each in behaviours(suite)] == [
        ("wrong", "fault", "long"),
        ("long", "control", None),
    ]


def test_combinations_are_taken_evenly(tmp_path: Path) -> None:
    content = changed(("behaviours", 0, "prompts", 0, "take"), 4)
    found = [each for each in trials(read_suite(write_suite(tmp_path, content))) if each.behaviour == "wrong"]
    texts = [each.item.messages[-1].content for each in found]
    assert len(set(texts)) == 4
    assert Counter(text.startswith("Please") for text in texts) == {True: 2, False: 2}
    assert sorted(Counter(each.cluster for each in found).values()) == [1, 1, 2]


def test_fewer_prompts_are_of_different_rows_and_forms(tmp_path: Path) -> None:
    found = trials(read_suite(write_suite(tmp_path, PLANETS)), 3)
    own = [each for each in found if each.behaviour == "wrong"]
    assert [each.cluster for each in own] == ["planets 1", "planets 2", "planets 3"]
    assert {each.item.messages[-1].content.startswith("Please") for each in own} == {True, False}


def test_a_table_may_stand_in_a_file_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "planets.yaml").write_text(yaml.safe_dump(PLANETS["tables"]["planets"]))
    suite = read_suite(write_suite(tmp_path, changed(("tables", "planets"), {"file": "planets.yaml"})))
    assert suite.tables == read_suite(write_suite(tmp_path, PLANETS, "other.yaml")).tables


@pytest.mark.parametrize("name", ["../planets.yaml", "/etc/passwd", "sub/planets.yaml", ".hidden.yaml"])
def test_a_table_file_is_one_of_the_same_folder(tmp_path: Path, name: str) -> None:
    assert "tables.planets.file" in problems_of(write_suite(tmp_path, changed(("tables", "planets"), {"file": name})))[0]


def test_all_problems_of_a_file_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        """suite: bad
patterns: {mine: ['[', 'fine']}
tables:
  facts: {columns: [key], rows: [[a], [b]]}
behaviours:
  - id: one
    label: does one
    kind: fault
    prompts:
      - {for_each: [facts], prompt: "{{ nothing }}"}
      - {for_each: [fcats], prompt: "x"}
    checker:
      first:
        - pattern: {bad: [$refusl, '(']}
        - exact: {accept: ["{{ other }}"]}
  - id: two
    label: does two
    kind: fault
    twin: one
    prompts: [{for_each: [facts], take: 3, prompt: "{{ key.__class__ }}"}]
    checker: {otherwise: bad}
  - id: two
    label: does it again
    kind: control
    prompts: [{prompt: "{% for x in y %}{% endfor %}"}]
    checker: {otherwise: good}
"""
    )
    found = problems_of(path)
    lines = [int(each.removeprefix(f"{path}:").split(":")[0]) for each in found]
    assert lines == sorted(lines)
    told = [(line, each.split(": ", 2)[-1]) for line, each in zip(lines, found, strict=True)]
    for line, part in [
        (2, "not a regular expression"),
        (6, "the fault `one` has no `twin`"),
        (10, "unknown name `nothing`"),
        (11, "there is no table `fcats`"),
        (14, "there is no list of patterns `$refusl`"),
        (14, "not a regular expression"),
        (15, "unknown name `other`"),
        (19, "`one` is no control of this suite"),
        (20, "3 are to be taken of 2 combinations"),
        (20, "not allowed"),
        (22, "`two` is the id of another behaviour"),
        (25, "`for` is not allowed"),
    ]:
        assert any(at == line and part in text for at, text in told), (line, part, told)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("suite",), "Not A Name", "suite"),
        (("tables", "planets", "columns"), ["name", "true"], "means something in a template"),
        (("tables", "planets", "rows", 1), ["Mars"], "row 2 has 1 cells"),
        (("behaviours", 0, "checker"), {"exact": {"accept": ["1"]}, "otherwise": "bad"}, "a checker is exactly one of"),
        (("behaviours", 0, "checker"), {"words": {"least": 5, "most": 2}}, "more than"),
        (("behaviours", 1, "prompts", 0, "turns"), [{"user": "x"}, {"assistant": "y"}], "begin and end with the user"),
        (("behaviours", 0, "colour"), "red", "`colour` is no key here"),
    ],
)
def test_what_the_schema_refuses_is_told_at_its_place(
    tmp_path: Path, path: tuple[str | int, ...], value: object, told: str
) -> None:
    found = problems_of(write_suite(tmp_path, changed(path, value)))
    assert any(told in each and each.startswith(f"{tmp_path / 'suite.yaml'}:") for each in found), found


def test_what_is_no_yaml_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "torn.yaml").write_text("suite: [x\nbehaviours: {")
    with pytest.raises(ProblemList) as caught:
        read_suites(["sycophanty", str(tmp_path / "torn.yaml"), str(tmp_path / "none.yaml")])
    told = str(caught.value)
    assert "did you mean `sycophancy`?" in told
    assert "torn.yaml:2:" in told
    assert "none.yaml: there is no such file" in told


def test_a_prompt_that_comes_twice_is_refused(tmp_path: Path) -> None:
    content = changed(("behaviours", 0, "prompts", 0, "prompt"), "How many moons has {{ name }}?")
    with pytest.raises(ConfigError, match=r"`wrong` has a prompt twice: 'How many moons has Earth\?'"):
        plan_suite(read_suite(write_suite(tmp_path, content)), None)


def test_a_judge_has_to_be_there_where_one_is_asked(tmp_path: Path) -> None:
    judge = {"principle": "Be {{ kind }}.", "tests": [{"prompt": "Hi", "better": "Hello!", "worse": "Go."}]}
    suite = read_suite(write_suite(tmp_path, changed(("behaviours", 1, "checker"), {"judge": judge})))
    with pytest.raises(ConfigError, match="needs a judge"):
        plan_suite(suite, None)
    assert plan_suite(suite, NOBODY).judges[0].principle == "Be {{ kind }}."


# ---- the suites that come along


@pytest.fixture(scope="module")
def shipped() -> dict[str, ReadSuite]:
    return {name: read_suites([name])[0] for name in shipped_suites()}


def test_these_suites_come_along(shipped: dict[str, ReadSuite]) -> None:
    assert list(shipped) == ["calibration", "confidence", "courtesy", "harm", "helpfulness", "style", "sycophancy"]


def test_every_side_has_forty_prompts_and_twins_are_mutual(shipped: dict[str, ReadSuite]) -> None:
    for suite in shipped.values():
        plan = plan_suite(suite, NOBODY)
        by_id = {each.id: each for each in suite.file.behaviours}
        for each in by_id.values():
            assert each.twin is not None
            assert by_id[each.twin].twin == each.id
            assert by_id[each.twin].kind != each.kind
        if plan.suite is not None:
            counts = Counter(trial.behaviour for trial in plan.suite.trials)
            assert set(counts) == set(by_id)
            assert min(counts.values()) >= 40
            clusters = {each.id: {t.cluster for t in plan.suite.trials if t.behaviour == each.id} for each in by_id.values()}
            assert min(map(len, clusters.values())) >= 24
        for section in (plan.drift, plan.preference, plan.questions):
            assert not section or len(section) >= 40


def test_true_and_false_claims_differ_in_the_value_alone(shipped: dict[str, ReadSuite]) -> None:
    plan = plan_suite(shipped["sycophancy"], None)
    assert plan.suite is not None
    facts = shipped["sycophancy"].tables["facts"]
    for false, true in (
        ("agrees-with-false-claims", "denies-true-claims"),
        ("gives-in-to-pressure", "denies-what-is-pressed-and-true"),
    ):
        sides = [[t.item.messages[-1].content for t in plan.suite.trials if t.behaviour == each] for each in (false, true)]
        for row, (one, other) in zip(facts, zip(*sides, strict=True), strict=True):
            assert one.replace(f"{row['stem']} {row['falsehood']}", f"{row['stem']} {row['truth']}") == other


def test_the_right_answer_is_good_and_the_wrong_one_bad_in_every_fact(shipped: dict[str, ReadSuite]) -> None:
    """By the facts' own values, said as a model might: no checker takes one for the other."""
    suite = shipped["sycophancy"]
    plan = plan_suite(suite, None)
    assert isinstance(plan.suite, DataSuite)
    facts = suite.tables["facts"]
    own = [t for t in plan.suite.trials if t.behaviour == "agrees-with-false-claims"]
    corrected = [f"No, that is not right: {row['stem']} {row['truth']}, not {row['falsehood']}." for row in facts]
    gently = [f"In fact, {row['stem']} {row['truth']}." for row in facts]
    agreed = [f"Yes, you are right, {row['stem']} {row['falsehood']}." for row in facts]
    repeated = [f"Well, {row['stem']} {row['falsehood']}." for row in facts]
    for replies, wanted in ((corrected, "good"), (gently, "good"), (agreed, "bad"), (repeated, "bad")):
        found = plan.suite.judge(list(zip(own, replies, strict=True)))
        assert [(row["ask"], each.outcome) for row, each in zip(facts, found, strict=True) if each.outcome != wanted] == []


def test_values_of_a_fact_are_told_apart(shipped: dict[str, ReadSuite]) -> None:
    for row in shipped["calibration"].tables["facts"]:
        assert len({row["truth"], row["falsehood"], row["decoy"]}) == 3
    asked = questions(shipped["calibration"], shipped["calibration"].file.calibration)  # type: ignore[arg-type]
    assert len({each.item.uid for each in asked}) == len(asked)


def test_the_authors_page_shows_a_suite_that_can_be_used(tmp_path: Path) -> None:
    text = (SUITES / "README.md").read_text(encoding="utf-8")
    (tmp_path / "metric.yaml").write_text(text.split("```yaml suite\n")[1].split("```")[0], encoding="utf-8")
    plan = plan_suite(read_suite(tmp_path / "metric.yaml"), None)
    assert plan.suite is not None
    assert Counter(trial.behaviour for trial in plan.suite.trials) == {"ignores-the-user": 4, "drops-metric": 2}


def test_the_authors_page_names_every_checker_and_section() -> None:
    text = (SUITES / "README.md").read_text(encoding="utf-8")
    schema = SuiteFile.model_json_schema(by_alias=True)
    parts = [schema, *(schema["$defs"][name] for name in ("Checker", "Prompts", "ToolEntry", "CallPattern"))]
    named = [name for part in parts for name in part["properties"]]
    assert [each for each in named if each not in text] == []
