"""Letter labels after a debate: what advocates are asked, what the judge reads, and what stays as it was without one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scripted_runs import write_scripted_run

from cai.config import read_config
from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.local import LocalEngine
from cai.engines.scripted import ScriptedEngine
from cai.labels import Candidate, Candidates, Compared, LabelSettings, LabelTally, LetterMargins, compare, label_candidates
from cai.labels.debate import AdvocateAndJudge, Debate, debate
from cai.labels.settings import DebateSettings
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from cai.pipeline import open_session, plan, read_inputs, run
from cai.records import PreferenceRecord, RecordKind
from cai.store import MemoisedEngine, RunFolder
from constitution.messages import user
from constitution.rendering import render_argument, render_comparison
from constitution.schema import Principle

KIND = Principle(id="kind", principle="Be kind.", preference_question="Which reply is kinder?")
TALK = (user("May I sit here?"),)
PAIR = Compared(TALK, "Please do.", "No.", KIND)


def hall() -> ScriptedEngine:
    """Advocates say whom they speak for, and the judge believes the longer argument."""

    def speak(request: GenerationRequest) -> str | RequestFailure:
        mine = request.messages[-1].content.split("This reply:\n")[1].split("\n\nThe other reply")[0]
        if mine == "broken":
            return RequestFailure("prompt_too_long", "too long")
        return "" if mine == "mute" else f"I say {request.noise_key[-1]}\n\nReply B:\n{mine}"

    def decide(request: ScoreRequest) -> list[float]:
        text = request.messages[-1].content
        a, b = (text.split(f"For reply {letter}: ")[1].split("\n")[0] for letter in "AB")
        odds = (len(a) - len(b)) / 10
        logp = {"A": -math.log1p(math.exp(-odds)), "B": -math.log1p(math.exp(odds))}
        return [logp[each.strip()] - math.log(2) for each in request.continuations]

    return ScriptedEngine(speak, decide)


def asked_of(engine: ScriptedEngine) -> tuple[list[GenerationRequest], list[ScoreRequest]]:
    """Statements and verdicts, in the order in which they were asked for."""
    return (
        [each for each in engine.asked if isinstance(each, GenerationRequest)],
        [each for each in engine.asked if isinstance(each, ScoreRequest)],
    )


def test_without_a_debate_the_judge_is_asked_as_ever() -> None:
    (asked,) = render_comparison(KIND, TALK, "a", "b")
    assert "argued" not in asked.content
    assert asked.content.endswith("Principle: Be kind.\nWhich reply is kinder? Answer with one letter, A or B.")


def test_each_side_speaks_once_a_turn_and_hears_what_was_said_before() -> None:
    engine = hall()
    (found,) = debate(engine, [PAIR], DebateSettings(rounds=1, argument_tokens=7))
    assert not isinstance(found, RequestFailure)
    assert found.turns == (
        ("I say 0 Reply B: Please do.", "I say 0 Reply B: No."),
        ("I say 1 Reply B: Please do.", "I say 1 Reply B: No."),
    )
    first, second, rebuttal, other = [request.messages[-1].content for request in asked_of(engine)[0]]
    assert "This reply:\nPlease do.\n\nThe other reply:\nNo." in first
    assert "This reply:\nNo.\n\nThe other reply:\nPlease do." in second
    assert "said so far" not in first + second
    assert "For this reply: I say 0 Reply B: Please do.\nFor the other reply: I say 0 Reply B: No." in rebuttal
    assert "For this reply: I say 0 Reply B: No.\nFor the other reply: I say 0 Reply B: Please do." in other
    assert {request.params.max_tokens for request in asked_of(engine)[0]} == {7}
    assert {request.params.temperature for request in asked_of(engine)[0]} == {0.0}


def test_the_judge_reads_each_argument_beside_its_own_letter_in_both_orders() -> None:
    engine = hall()
    (found,) = compare(engine, [PAIR], debated=DebateSettings())
    assert isinstance(found, LetterMargins)
    assert found.arguments == ("I say 0 Reply B: Please do.", "I say 0 Reply B: No.")
    straight, swapped = (request.messages[-1].content for request in asked_of(engine)[1])
    assert "For reply A: I say 0 Reply B: Please do.\nFor reply B: I say 0 Reply B: No.\n" in straight
    assert "For reply A: I say 0 Reply B: No.\nFor reply B: I say 0 Reply B: Please do.\n" in swapped
    assert found.margins_nats == pytest.approx((0.7, 0.7))  # 7 characters more speak for the first, wherever it stands
    assert len(asked_of(engine)[0]) == 2, "one debate serves both orders"


def test_an_advocate_who_is_mute_is_told_and_one_who_fails_fails_its_own_pair() -> None:
    asked = [Compared(TALK, "mute", "No.", KIND), Compared(TALK, "broken", "No.", KIND), PAIR]
    mute, broken, fine = compare(hall(), asked, debated=DebateSettings(rounds=1))
    assert isinstance(mute, LetterMargins)
    assert mute.arguments is not None
    assert mute.arguments[0] == ""
    assert isinstance(broken, RequestFailure)
    assert broken.cause == "prompt_too_long"
    assert isinstance(fine, LetterMargins)


def test_progress_counts_statements_and_verdicts_up_to_all_of_them() -> None:
    told: list[tuple[int, int]] = []
    compare(hall(), [PAIR, PAIR], debated=DebateSettings(rounds=1), on_done=lambda *each: told.append(each))
    assert told == [(n, 12) for n in range(1, 13)]


TEXTS = st.text(max_size=60)


@settings(max_examples=40)
@given(TEXTS, TEXTS)
def test_an_argument_stays_one_line_and_is_never_a_template(one: str, other: str) -> None:
    (asked,) = render_comparison(KIND, TALK, "a", "b", arguments=("{{ principle }} " + one, "x" + other))
    lines = asked.content.splitlines()
    assert f"For reply A: {' '.join(('{{ principle }} ' + one).split())}".rstrip() in asked.content
    assert sum(line == "Reply B:" for line in lines) == 1
    (argued,) = render_argument(KIND, TALK, "a", "b", [(one, other)])
    assert f"For this reply: {' '.join(one.split()) or 'nothing'}" in argued.content


def test_labels_keep_what_was_said_and_quality_says_that_there_was_a_debate() -> None:
    by_debate = LabelSettings(method="letters", debate=DebateSettings(), min_margin_nats=0.0)
    pair = Candidates("x", 0, TALK, (Candidate("Please do."), Candidate("No.")), ((0, 1),), (KIND,))
    (made,) = label_candidates([pair], [hall()], by_debate, seed=0)
    (record,) = made.pairs
    assert record.chosen == "Please do."
    assert {each.arguments for each in record.comparisons} == {("I say 0 Reply B: Please do.", "I say 0 Reply B: No.")}
    tally = LabelTally()
    tally.add(record)
    assert tally.quality().debated
    assert PreferenceRecord.model_validate_json(record.model_dump_json()) == record


def test_a_debate_belongs_to_letters_and_reasons_are_the_judges_own() -> None:
    with pytest.raises(ValidationError, match="`debate` is an option of `method: letters`"):
        LabelSettings(method="pointwise", debate=DebateSettings())
    with pytest.raises(ValidationError, match=r"`debate.advocate` is `judge`"):
        LabelSettings(method="letters", reasoning_tokens=8, debate=DebateSettings(advocate="policy"))


def test_the_policy_argues_and_the_judge_judges(tmp_path: Path) -> None:
    """Real models: what is said is the policy's own greedy text, and the letters are the judge's."""
    folders = [make_checkpoint(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    policy, judge = (LocalEngine(load_model(ModelSpec(name=str(each)))) for each in folders)
    both = AdvocateAndJudge(policy, judge)
    short = DebateSettings(argument_tokens=6)
    (found,) = compare(both, [PAIR], debated=short)
    (by_policy,), (by_judge,) = (debate(each, [PAIR], short) for each in (policy, judge))
    assert isinstance(found, LetterMargins)
    assert isinstance(by_policy, Debate)
    assert by_policy != by_judge
    assert found.arguments == by_policy.arguments
    heard = Compared(TALK, PAIR.first, PAIR.second, KIND, arguments=found.arguments or ("", ""))
    (alone,) = compare(judge, [heard])
    assert isinstance(alone, LetterMargins)
    assert found.margins_nats == pytest.approx(alone.margins_nats, abs=1e-4)


@pytest.mark.parametrize("advocate", ["judge", "policy"])
def test_a_run_holds_debates_plans_them_and_repeats_none(tmp_path: Path, advocate: str) -> None:
    path = write_scripted_run(
        tmp_path, 24, labels={"method": "letters", "debate": {"rounds": 1, "advocate": advocate}, "min_margin_nats": 0.0}
    )
    config = read_config(path).config
    inputs = read_inputs(config)
    planned = {each.name: each for each in plan(inputs).calls}
    assert planned["argue"].calls > 0
    with open_session(inputs) as session:
        run(session)
    with RunFolder.open(config.run) as folder:
        pairs = list(folder.records(RecordKind.PREFERENCE, PreferenceRecord))
        made = folder.usage()["argue"].calls
    assert made > 0
    assert all(each.arguments for pair in pairs for each in pair.comparisons)
    with open_session(inputs) as session:
        run(session)
    with RunFolder.open(config.run) as folder:
        assert folder.usage()["argue"].calls == made


def test_debates_are_remembered(tmp_path: Path) -> None:
    engine = ScriptedEngine({"": "It is kind."}, lambda request: [-1.0 for _ in request.continuations])
    with RunFolder.open(tmp_path / "run") as folder:
        for _ in range(2):
            compare(MemoisedEngine(engine, folder), [PAIR], debated=DebateSettings(rounds=2))
        assert folder.usage()["argue"].calls == 6
