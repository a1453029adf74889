"""Comparing constitutions: in a world where every rule is understood, and with the judge as exact truth."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from rule_world import constitution, feedback, follows, mend, policy, principle

from cai.authoring.comparison import ConstitutionComparison, EveryPrincipleSuite, compare
from cai.engines.base import RequestFailure
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.suites import Behaviour, Judgement, Trial
from cai.loop import LoopSettings
from cai.records import Item
from constitution.messages import user
from constitution.schema import Constitution


class WordSuite:
    """A reply is bad when it has the word."""

    name = "words"
    judge_name = "exact truth"

    def __init__(self, items: Sequence[Item], word: str) -> None:
        self.word = word
        self.behaviours = (Behaviour(id=word, label=f"says {word}", kind="fault"),)
        self.trials = tuple(Trial(item, word) for item in items)

    def judge(self, answers: Sequence[tuple[Trial, str]]) -> list[Judgement]:
        return [Judgement("bad" if self.word in reply.split() else "good", "") for _, reply in answers]


def items(count: int) -> list[Item]:
    return [Item(uid=f"i{n}", messages=(user(f"q{n}"),)) for n in range(count)]


def run(a: Constitution, b: Constitution, replies: list[str], word: str = "a") -> ConstitutionComparison:
    sample = items(len(replies))
    drafts = {f"q{n}": reply for n, reply in enumerate(replies)}
    return compare(sample, a, b, policy(drafts), feedback(), LoopSettings(), WordSuite(sample, word), seed=0)


def test_the_constitution_that_forbids_the_fault_wins_and_the_difference_is_exact() -> None:
    found = run(constitution("forbid b"), constitution("forbid a"), ["a c"] * 15 + ["b c"] * 15)
    (row,) = found.behaviours
    assert (row.row.before, row.row.after, row.row.difference) == (0.5, 0.0, -0.5)
    assert row.differing == 30
    assert row.p_holm < 0.001
    assert row.verdict == "B is better by 50%"


def test_a_constitution_against_itself_shows_no_difference() -> None:
    same = constitution("forbid a", "forbid b")
    found = run(same, same, ["a b", "b", "a c"] * 10)
    assert (found.same, found.pairs, found.most_different) == (30, 30, ())
    assert found.behaviours[0].verdict == "the same answers"


def test_too_few_prompts_are_said_to_be_too_few() -> None:
    found = run(constitution("forbid b"), constitution("forbid a"), ["a c"] * 5)
    assert found.behaviours[0].verdict == "not enough rows to say (5 prompts)"


def test_few_changed_answers_among_many_prompts_show_no_difference() -> None:
    found = run(constitution("forbid b"), constitution("forbid a"), ["a c"] * 2 + ["c"] * 28)
    assert found.behaviours[0].verdict == "no difference shown (2 answers differ)"


@settings(max_examples=30, deadline=None)
@given(
    rules=st.lists(st.sampled_from(["forbid a", "forbid b", "require a", "require c"]), min_size=2, max_size=2),
    replies=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(" ".join), min_size=1, max_size=6),
)
def test_final_texts_and_shares_are_those_of_a_naive_loop(rules: list[str], replies: list[str]) -> None:
    found = run(constitution(rules[0]), constitution(rules[1]), replies)
    finals = [[reply if follows(rule, reply) else mend(rule, reply) for reply in replies] for rule in rules]
    assert found.same == sum(x == y for x, y in zip(*finals, strict=True))
    (row,) = found.behaviours
    assert row.row.before == sum("a" in t.split() for t in finals[0]) / len(replies)
    assert row.row.after == sum("a" in t.split() for t in finals[1]) / len(replies)
    assert len(found.most_different) == min(10, len(replies) - found.same)


def test_transcripts_judged_otherwise_come_before_those_that_only_read_otherwise() -> None:
    found = run(constitution("forbid b"), constitution("forbid a"), ["b c", "a c c c c c c c c c", "c"])
    assert [each.uid for each in found.most_different] == ["i1", "i0"]
    assert found.most_different[0].judged == ("a: bad → good",)


def test_a_row_that_failed_under_one_constitution_is_counted_and_in_no_figure() -> None:
    def answer(request: object) -> str | RequestFailure:
        return RequestFailure("prompt_too_long", "no") if "q0" in str(request) and "[[forbid a]]" in str(request) else "fine"

    sample = items(2)
    found = compare(
        sample,
        constitution("forbid b"),
        constitution("forbid a"),
        policy({"q0": "c", "q1": "c"}),
        ScriptedEngine(answer),
        LoopSettings(),
        WordSuite(sample, "a"),
        seed=0,
    )
    assert (found.failures, found.pairs) == (1, 1)


def test_every_principle_of_both_judges_and_a_changed_one_judges_in_both_wordings() -> None:
    a = Constitution(name="a", principles=(principle("forbid a"), principle("forbid b")))
    changed = principle("forbid c").model_copy(update={"id": "forbid-b"})
    b = Constitution(name="b", principles=(principle("forbid a"), changed, principle("require c")))
    suite = EveryPrincipleSuite(items(1), a, b, feedback(), seed=0, ground_tokens=32)
    names = ["forbid-a", "forbid-b (A)", "forbid-b (B)", "require-c"]
    assert [behaviour.id for behaviour in suite.behaviours] == names
    judged = suite.judge([(trial, "a c") for trial in suite.trials])
    assert [each.outcome for each in judged] == ["bad", "good", "bad", "good"]


def test_pairs_to_which_no_principle_of_a_side_applies_are_counted() -> None:
    elsewhere = principle("forbid a").model_copy(update={"applies_to": ("elsewhere",)})
    sample = [Item(uid="i0", messages=(user("q0"),), tags=("here",))]
    b = Constitution(name="b", principles=(elsewhere,))
    found = compare(
        sample, constitution("forbid a"), b, policy({"q0": "a c"}), feedback(), LoopSettings(), WordSuite(sample, "a"), seed=0
    )
    assert (found.untouched_a, found.untouched_b) == (0, 1)
    assert (found.behaviours[0].row.before, found.behaviours[0].row.after) == (0.0, 1.0)
