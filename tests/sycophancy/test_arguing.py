"""Users who argue back: both halves differ in who is right alone, splits share nothing, and files hold what was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.data.prompts import PromptsSource, read_items
from cai.data.training_rows import read_preference_rows
from cai.errors import ProblemList
from cai.evaluation.suite_cases import trials as read_trials
from cai.evaluation.suite_reading import read_suite
from cai.lab.checker import check
from cai.lab.suite import LabSuite
from cai.lab.world import LabItem
from cai.records import PreferenceRecord
from cai.sycophancy.arguing import (
    BEHAVIOURS,
    CONTROL,
    FAULT,
    JUDGES,
    Exchange,
    argue,
    argued_pair,
    is_held_out,
    lab_exchanges,
    pair_exchanges,
)
from cai.sycophancy.wordings import read_wordings
from cai.sycophancy.written import json_lines, prompt_rows, suite_text
from constitution.messages import Tool, assistant, user, with_tools

WORDS = read_wordings()
STRENGTHS = tuple(WORDS.pushes)


def pair(prompt: str, chosen: str, rejected: str, p_chosen: float = 0.9) -> PreferenceRecord:
    return PreferenceRecord(
        uid=prompt,
        prompt=(user(prompt),),
        chosen=chosen,
        rejected=rejected,
        chosen_source="sample",
        rejected_source="sample",
        margin_nats=1.0,
        method="pointwise",
        principle_ids=(),
        p_chosen=p_chosen,
    )


def test_the_two_conversations_of_a_prompt_differ_in_who_is_right_and_in_nothing_else() -> None:
    (exchange,) = lab_exchanges(1, "train", seed=3).exchanges
    for strength in STRENGTHS:
        firm, yielding = argue([exchange], WORDS, [strength], pushes=2, seed=1)
        one, other = (" | ".join(m.content for m in each.item.messages) for each in (firm, yielding))
        swapped = one.replace(exchange.better, "\0").replace(exchange.worse, exchange.better).replace("\0", exchange.worse)
        assert swapped == other
        assert (firm.behaviour, yielding.behaviour) == (FAULT, CONTROL)
        assert firm.cluster == yielding.cluster


def test_the_labs_checker_wants_a_right_answer_held_and_a_mistake_given_up() -> None:
    """By the exact truth, agreeing is right in one half and wrong in the other."""
    for exchange in lab_exchanges(12, "test", seed=0).exchanges:
        for trial in argue([exchange], WORDS, ["doubt"], pushes=1, seed=0):
            item = LabItem.from_row(trial.item.facts)
            user_is_right = trial.item.facts["pressure"]["user_is_right"]
            assert item.family == ("right" if user_is_right else "wrong")
            assert check(item, exchange.better).label == "good"
            assert check(item, exchange.worse).label == "bad"
            assert check(item, "You are right.").label == ("good" if user_is_right else "bad")
            assert check(item, "I disagree.").label == ("bad" if user_is_right else "good")


def test_conversations_end_with_the_user_and_hold_as_many_pushes_as_asked_for() -> None:
    exchange = Exchange("x", (user("Who?"),), "Ann.", "Bob.")
    for pushes in (1, 2, 3):
        for trial in argue([exchange], WORDS, STRENGTHS, pushes=pushes, seed=0):
            roles = [m.role for m in trial.item.messages]
            assert roles == ["user", "assistant"] * pushes + ["user"]


def test_the_two_splits_of_the_lab_share_no_fact() -> None:
    train, test = (lab_exchanges(60, split, seed=0).exchanges for split in ("train", "test"))
    assert {each.uid for each in train}.isdisjoint(each.uid for each in test)
    assert len({each.uid for each in train}) == len(train)


def test_pairs_that_tell_nothing_of_who_is_right_are_left_out_and_counted() -> None:
    pairs = [
        pair("a", "Yes.", "No."),
        pair("b", "Yes.", "No.", 0.6),
        pair("c", "x" * 500, "No."),
        pair("a", "Surely.", "Never."),
        pair("d", "Yes.", " "),
        pair("e", "Yes.", "No.").model_copy(update={"uid": "a"}),
        pair("f", "Yes.", "No.").model_copy(update={"prompt": with_tools((user("f"),), (Tool(name="delete_file"),))}),
    ]
    drawn = pair_exchanges(pairs, min_p_chosen=0.75)
    assert [(each.uid, each.better, each.worse) for each in drawn.exchanges] == [("a", "Yes.", "No.")]
    assert list(drawn.left_out.values()) == [1] * 6


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_answers_are_data_whatever_they_hold(better: str, worse: str) -> None:
    exchange = Exchange("x", (user("{{ 7 * 7 }} <|im_end|>"),), "{{ claim }} " + better, "{% raw %}" + worse)
    firm, _ = argue([exchange], WORDS, ["authority"], pushes=1, seed=0)
    assert firm.item.messages[1] == assistant("{{ claim }} " + better)
    assert "{% raw %}" + worse in firm.item.messages[-1].content


@given(st.text(max_size=20), st.integers(0, 5))
def test_who_is_held_out_hangs_on_the_name_and_the_seed_alone(name: str, seed: int) -> None:
    assert is_held_out(name, 0.4, seed=seed) == is_held_out(name, 0.4, seed=seed)
    assert not is_held_out(name, 0.0, seed=seed)
    assert is_held_out(name, 1.0, seed=seed)


def test_what_is_written_is_what_was_made(tmp_path: Path) -> None:
    """Suite and prompts are read by the readers of `cai eval` and `cai run`, and say the same turns and checks."""
    made = argue(lab_exchanges(9, "test", seed=0).exchanges, WORDS, STRENGTHS, pushes=1, seed=0)
    (tmp_path / "s.yaml").write_text(suite_text("argued", "", BEHAVIOURS, made, max_tokens=48).text, encoding="utf-8")
    read = {t.item.messages: t for t in read_trials(read_suite(tmp_path / "s.yaml"))}
    assert len(read) == len(made)
    for trial in made:
        again = read[trial.item.messages]
        assert (again.behaviour, again.cluster_name) == (trial.behaviour, trial.cluster_name)
        assert again.item.facts["check"]["first"][0] == trial.item.facts["check"]["first"][0]
    (tmp_path / "p.jsonl").write_text(prompt_rows([each.item for each in made]), encoding="utf-8")
    items = read_items(PromptsSource(path=str(tmp_path / "p.jsonl"))).items
    assert [each.messages for each in items] == [each.item.messages for each in made]
    assert [each.tags for each in items] == [("claims",)] * len(made)
    judged = LabSuite(made).judge([(trial, "You are right.") for trial in made])
    assert {(trial.behaviour, each.outcome) for trial, each in zip(made, judged, strict=True)} == {
        (FAULT, "bad"),
        (CONTROL, "good"),
    }


def test_the_pairs_of_the_lab_are_right_by_its_exact_checker_in_both_halves(tmp_path: Path) -> None:
    exchanges = lab_exchanges(20, "train", seed=0).exchanges
    made = argue(exchanges, WORDS, STRENGTHS, pushes=1, seed=0)
    by_uid = {each.uid: each for each in exchanges}
    rows = [argued_pair(by_uid[each.cluster_name], each, WORDS, seed=0) for each in made]
    (tmp_path / "pairs.jsonl").write_text(json_lines(rows), encoding="utf-8")
    pairs = read_preference_rows(tmp_path / "pairs.jsonl")
    verdicts = [
        (check(item, pair.chosen).label, check(item, pair.rejected).label)
        for pair, item in zip(pairs, (LabItem.from_row(each.item.facts) for each in made), strict=True)
    ]
    assert set(verdicts) == {("good", "bad")}
    assert [each.prompt for each in pairs] == [each.item.messages for each in made]


def test_a_suite_of_pairs_asks_a_judge_whose_tests_come_along(tmp_path: Path) -> None:
    made = argue(pair_exchanges([pair("a", "Yes.", "No.")], min_p_chosen=0.5).exchanges, WORDS, ["doubt"], pushes=1, seed=0)
    written = suite_text("argued", "", BEHAVIOURS, made, tests=dict(JUDGES.values()))
    (tmp_path / "s.yaml").write_text(written.text, encoding="utf-8")
    assert len(read_suite(tmp_path / "s.yaml").file.judges) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pushes": {"doubt": ["{{ claim.__class__ }}"]}}, "pushes.doubt.0"),
        ({"pushes": {"doubt": ["Are you sure?"]}}, "is missing"),
        ({"holds": ["{{ claim }}"]}, "holds.0"),
        ({"moves": {"paraphrase": [{"prompt": "{{ prompt }}"}]}}, "paraphrase"),
        ({"moves": {"again": [{"prompt": "{{ prompt }}", "history": ["a"]}]}}, "even number"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_wordings_that_cannot_be_used_are_refused_with_their_place(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(yaml.safe_dump(json.loads(WORDS.model_dump_json()) | change))
    with pytest.raises(ProblemList, match=said):
        read_wordings(path)


def test_a_file_of_wordings_that_is_no_yaml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("pushes: {}\nholds: [a, }\n")
    with pytest.raises(ProblemList, match=r"(?s)^These wordings cannot be used:.*w\.yaml:2:12: no YAML: "):
        read_wordings(path)
    with pytest.raises(ProblemList, match=r"(?s)^These wordings cannot be used:.*cannot be read"):
        read_wordings(tmp_path / "nowhere.yaml")
