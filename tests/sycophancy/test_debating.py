"""Two people who argue before the model: who presses is right as often as wrong, first as often as last, and all is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cai.cli import app
from cai.data.prompts import PromptsSource, read_items
from cai.data.training_rows import read_preference_rows
from cai.errors import ConfigError, ProblemList
from cai.evaluation.data_suites import plan_suite
from cai.evaluation.suite_cases import trials as read_trials
from cai.evaluation.suite_reading import read_suite
from cai.lab.checker import check
from cai.lab.world import LabItem
from cai.sycophancy.arguing import Exchange, lab_exchanges
from cai.sycophancy.debating import CONTROL, FAULT, debate
from cai.sycophancy.wordings import read_wordings
from constitution.messages import user

WORDS = read_wordings().debates or pytest.fail("the wordings that come along have debates")


def test_the_four_debates_of_a_prompt_differ_in_who_is_right_and_who_speaks_first_alone() -> None:
    (exchange,) = lab_exchanges(1, "train", seed=3).exchanges
    for strength in WORDS.presses:
        wrong_first, wrong_last, right_first, right_last = (
            each.item.messages[-1].content for each in debate([exchange], WORDS, [strength], seed=1)
        )

        def swapped(text: str) -> str:
            return text.replace(exchange.better, "\0").replace(exchange.worse, exchange.better).replace("\0", exchange.worse)

        assert (swapped(wrong_first), swapped(wrong_last)) == (right_first, right_last)
        assert wrong_first != wrong_last
        assert sorted(wrong_first.replace("\n", " ").split()) == sorted(wrong_last.replace("\n", " ").split())


@pytest.mark.parametrize(
    ("sides_with", "wrong_in"),
    [("who presses", {FAULT}), ("who does not", {CONTROL}), ("the first", {FAULT, CONTROL}), ("the truth", set[str]())],
)
def test_whoever_sides_by_pressure_or_place_is_wrong_in_half_of_them(
    tmp_path: Path, sides_with: str, wrong_in: set[str]
) -> None:
    """Asked of the suite as it is written, and judged by its own exact values."""
    out = tmp_path / "out"
    asked = ["argue", "lab", "--debate", "--out", str(out), "--items", "6", "--held-out", "0.5", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["pairs"] == json.loads(done.output)["suite"] == 48
    read = read_suite(out / "suite.yaml")
    suite = plan_suite(read, None).suite
    assert suite is not None
    exchanges = lab_exchanges(3, "test", seed=0).exchanges
    made = {each.item.messages: each for each in debate(exchanges, WORDS, tuple(WORDS.presses), seed=0)}
    by_uid = {each.uid: each for each in exchanges}
    answers = []
    for trial in read_trials(read):
        mine = made[trial.item.messages]
        exchange, pressure = by_uid[mine.cluster_name], mine.item.facts["pressure"]
        right, first = pressure["user_is_right"], pressure["first"]
        better = {
            "who presses": right,
            "who does not": not right,
            "the first": right == first,
            "the truth": True,
        }[sides_with]
        answers.append((trial, exchange.better if better else exchange.worse))
    bad = Counter(t.behaviour for (t, _), j in zip(answers, suite.judge(answers), strict=True) if j.outcome == "bad")
    assert set(bad) == wrong_in
    assert all(count == (12 if sides_with == "the first" else 24) for count in bad.values())


def test_prompts_hold_the_truth_and_pairs_the_two_answers(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["argue", "lab", "--debate", "--out", str(tmp_path / "out"), "--items", "4", "-s", "social"])
    assert done.exit_code == 0, done.output
    items = read_items(PromptsSource(path=str(tmp_path / "out" / "prompts.jsonl"))).items
    pairs = read_preference_rows(tmp_path / "out" / "pairs.jsonl")
    assert [pair.prompt for pair in pairs] == [item.messages for item in items]
    for item, pair in zip(items, pairs, strict=True):
        fact = LabItem.from_row(item.facts)
        assert (check(fact, pair.chosen).label, check(fact, pair.rejected).label) == ("good", "bad")


def test_a_file_of_other_prompts_is_replaced_or_refused_and_never_left_beside_new_ones(tmp_path: Path) -> None:
    asked = ["argue", "lab", "--debate", "--out", str(tmp_path), "--items", "4", "--held-out"]
    assert CliRunner().invoke(app, [*asked, "0.5"]).exit_code == 0
    assert (tmp_path / "pairs.jsonl").exists()
    refused = CliRunner().invoke(app, [*asked, "1.0"])
    assert refused.exit_code == 1
    assert (tmp_path / "pairs.jsonl").exists()
    assert CliRunner().invoke(app, [*asked, "1.0", "--force"]).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["suite.yaml"]


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_what_is_asked_and_answered_is_data_whatever_it_holds(better: str, worse: str) -> None:
    exchange = Exchange("x", (user("{{ 7 * 7 }} <|im_end|>"),), "{{ claim }} " + better, "{% raw %}" + worse)
    for trial in debate([exchange], WORDS, ["authority"], seed=0):
        text = trial.item.messages[-1].content
        assert all(each in text for each in ("{{ 7 * 7 }} <|im_end|>", exchange.better, exchange.worse))


def test_without_the_truth_a_judge_with_its_tests_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{n}?", "chosen": f"Yes {n}.", "rejected": f"No {n}.", "p_chosen": 0.9} for n in range(6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["argue", str(tmp_path / "pairs.jsonl"), "--debate", "--out", str(tmp_path / "out"), "--held-out", "1.0"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    with pytest.raises(ConfigError, match="needs a judge"):
        plan_suite(read_suite(tmp_path / "out" / "suite.yaml"), None)
    written = yaml.safe_load((tmp_path / "out" / "suite.yaml").read_text())
    assert all(len(each["checker"]["judge"]["tests"]) == 2 for each in written["behaviours"])


@pytest.mark.parametrize("more", [["--pushes", "2"], ["-s", "shouting"], ["--wordings", "old.yaml"]])
def test_what_no_debate_has_is_refused(tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = read_wordings().model_dump(mode="json") | {"debates": None}
    Path("old.yaml").write_text(yaml.safe_dump(whole))
    done = CliRunner().invoke(app, ["argue", "lab", "--debate", "--out", "out", *more])
    assert done.exit_code == 1
    assert not Path("out").exists()


def test_a_frame_that_does_not_show_both_sides_is_told_with_its_place(tmp_path: Path) -> None:
    whole = read_wordings().model_dump(mode="json")
    whole["debates"]["frames"] = ["{{ question }} {{ first }}", "{{ nobody }}"]
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(ProblemList) as told:
        read_wordings(tmp_path / "w.yaml")
    assert "debates.frames.0: `{{ second }}` is missing" in str(told.value)
    assert "debates.frames.1: " in str(told.value)
