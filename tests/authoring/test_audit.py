"""What an audit counts, against the same counts made by hand in a world where every rule is understood."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_world import constitution, feedback, feedback_answer, feedback_score, follows, mend, policy

from cai.authoring.audit import AuditSettings, audit, sample_items
from cai.authoring.audit_results import AuditResult
from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.loop import LoopSettings
from cai.records import Item
from constitution.messages import user
from constitution.schema import Constitution

WORDS = ("a", "b", "c")
RULES = tuple(f"{kind} {word}" for kind in ("forbid", "require") for word in WORDS)


def run_audit(rules: tuple[str, ...], replies: list[str], rows_per_pair: int = 100) -> AuditResult:
    items = [Item(uid=f"i{n}", messages=(user(f"q{n}"),)) for n in range(len(replies))]
    drafts = {f"q{n}": reply for n, reply in enumerate(replies)}
    return audit(
        items,
        constitution(*rules),
        policy(drafts),
        feedback(),
        LoopSettings(),
        AuditSettings(rows_per_pair=rows_per_pair),
        seed=0,
        truth=lambda item, reply: "x" not in reply.split(),
    )


REPLIES = st.lists(st.lists(st.sampled_from([*WORDS, "x"]), min_size=1, max_size=4).map(" ".join), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(rules=st.lists(st.sampled_from(RULES), min_size=1, max_size=4, unique=True).map(tuple), replies=REPLIES)
def test_every_count_is_what_naive_counting_gives(rules: tuple[str, ...], replies: list[str]) -> None:
    found = run_audit(rules, replies)
    identity = {rule: rule.replace(" ", "-") for rule in rules}
    fires = {rule: {n for n, reply in enumerate(replies) if not follows(rule, reply)} for rule in rules}
    alone = {each.principle_id: each for each in found.principles}
    for rule in rules:
        each = alone[identity[rule]]
        others = set[int]().union(*(fires[other] for other in rules if other != rule))
        assert (each.applies, each.fired, each.kept) == (len(replies), len(fires[rule]), len(replies) - len(fires[rule]))
        assert each.changed == sum(mend(rule, replies[n]) != replies[n] for n in fires[rule])
        assert each.redundant == (bool(fires[rule]) and fires[rule] <= others)
        assert each.nearest_rows == max((len(fires[rule] & fires[other]) for other in rules if other != rule), default=0)
    faulted = set[int]().union(*fires.values())
    left = [rule for rule in rules if identity[rule] not in found.removable]
    assert set[int]().union(*(fires[rule] for rule in left)) == faulted
    for rule in left:  # none of the rest can go as well
        others = set[int]().union(*(fires[other] for other in left if other != rule))
        assert not fires[rule] or not fires[rule] <= others
    assert all(fires[rule] for rule in rules if identity[rule] in found.removable)
    pairs = {(each.first, each.second): each for each in found.pairs}
    for one, two in permutations(rules, 2):
        revised = {n: mend(one, replies[n]) for n in fires[one] if mend(one, replies[n]) != replies[n]}
        if not revised:
            assert (identity[one], identity[two]) not in pairs
            continue
        each = pairs[identity[one], identity[two]]
        twice = {n: text if follows(two, text) else mend(two, text) for n, text in revised.items()}
        assert each.rows == len(revised)
        assert each.objected == sum(not follows(two, text) and follows(two, replies[n]) for n, text in revised.items())
        assert each.rewrote == sum(twice[n] != text for n, text in revised.items())
        assert each.undone == sum(
            follows(one, text) and twice[n] != text and not follows(one, twice[n]) for n, text in revised.items()
        )
    orders = {(each.one, each.other): each for each in found.orders}
    for one, two in combinations(rules, 2):
        both = [r for r in replies if all(not follows(rule, r) and mend(rule, r) != r for rule in (one, two))]
        assert ((identity[one], identity[two]) in orders) == bool(both)
        if both:
            final = {
                (p, q): [t if follows(q, t) else mend(q, t) for t in (mend(p, reply) for reply in both)]
                for p, q in ((one, two), (two, one))
            }
            each = orders[identity[one], identity[two]]
            assert each.differ == sum(x != y for x, y in zip(final[one, two], final[two, one], strict=True))
            share = sum(follows(rule, text) for rule in (one, two) for text in final[one, two]) / (2 * len(both))
            assert each.satisfied_one_first == pytest.approx(share)


def test_a_principle_that_undoes_another_is_named_with_the_row() -> None:
    found = run_audit(("require a", "forbid a"), ["x"])
    (undone,) = [pair for pair in found.pairs if pair.undone]
    assert (undone.first, undone.second, undone.objected) == ("require-a", "forbid-a", 1)
    (row,) = undone.undoings
    assert (row.uid, row.before, row.after) == ("i0", "x a", "x")
    assert "forbid a" in row.critique


def test_bad_drafts_that_no_principle_objects_to_are_quoted_as_not_covered() -> None:
    found = run_audit(("forbid a",), ["x b", "x a", "b"])
    (group,) = found.groups
    assert (group.rows, group.fired, group.bad, group.bad_passed) == (3, 1, 2, 1)
    assert [row.before for row in group.passed] == ["x b"]


def test_a_failed_call_is_counted_and_leaves_its_row_out() -> None:
    items = [Item(uid=f"i{n}", messages=(user(f"q{n}"),)) for n in range(2)]
    broken = ScriptedEngine(lambda request: RequestFailure("prompt_too_long", "no") if "q1" in str(request.messages) else "a")
    found = audit(items, constitution("forbid b"), broken, feedback(), LoopSettings(), AuditSettings(), seed=0)
    assert (found.failures, found.principles[0].applies, found.groups[0].rows) == (1, 1, 1)
    assert found.groups[0].bad is None


def test_a_principle_that_could_not_be_asked_says_on_how_many_rows_and_counts_none_of_them() -> None:
    """`failed` holds the drafts and the other principles' revisions alike; nothing of these rows is in the other figures."""
    drafts = {"q0": "a b", "q1": "b", "q2": "c"}
    items = [Item(uid=f"i{n}", messages=(user(prompt),)) for n, prompt in enumerate(drafts)]

    def answer(request: GenerationRequest) -> str | RequestFailure:
        critic_of_b = "[[forbid b]]" in request.messages[-1].content and request.messages[-2].content == "b"
        return RequestFailure("connection_lost", "nobody there") if critic_of_b else feedback_answer(request)

    critic = ScriptedEngine(answer, feedback_score, name="rules")
    rules = constitution("forbid a", "forbid b")
    found = audit(items, rules, policy(drafts), critic, LoopSettings(), AuditSettings(), seed=0)
    first, second = found.principles
    assert (first.failed, first.applies, first.fired) == (0, 3, 1)
    assert (second.failed, second.applies, second.fired) == (2, 2, 1)  # the draft of q1, and what the first made of q0
    assert found.failures == 2


def test_a_pair_is_asked_about_no_more_rows_than_allowed() -> None:
    found = run_audit(("forbid a", "forbid b"), ["a b", "a", "a c", "b a"], rows_per_pair=2)
    assert max(pair.rows for pair in found.pairs) == 2
    assert {order.rows for order in found.orders} == {2}


@given(
    groups=st.lists(st.sampled_from(["one", "two", ""]), min_size=1, max_size=30),
    count=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_a_sample_takes_the_groups_in_turn_and_depends_on_uids_alone(groups: list[str], count: int, seed: int) -> None:
    items = [Item(uid=f"i{n}", messages=(user("q"),), tags=(g,) if g else ()) for n, g in enumerate(groups)]
    chosen = sample_items(items, count, seed)
    assert len(chosen) == min(count, len(items))
    assert {item.uid for item in chosen} == {item.uid for item in sample_items(items[::-1], count, seed)}
    taken = {g: sum(item.tags == ((g,) if g else ()) for item in chosen) for g in set(groups)}
    for group, number in taken.items():
        if number < groups.count(group):  # this group had more to give
            assert all(other <= number + 1 for other in taken.values())


def test_a_verdict_that_cannot_be_had_is_in_no_share() -> None:
    def score(request: ScoreRequest) -> Sequence[float] | RequestFailure:
        return RequestFailure("prompt_too_long", "no") if "x a" in str(request.messages) else (-0.1, -2.0)

    item = Item(uid="i0", messages=(user("q0"),))
    judge = ScriptedEngine(feedback_answer, score)
    found = audit([item], constitution("require a"), policy({"q0": "x"}), judge, LoopSettings(), AuditSettings(), seed=0)
    (alone,) = found.principles
    assert (alone.changed, alone.judged, alone.mended, found.failures) == (1, 0, 0, 1)


def test_a_prompt_to_which_no_principle_applies_is_quoted() -> None:
    only = constitution("forbid a").principles[0].model_copy(update={"applies_to": ("one",)})
    items = [Item(uid=f"i{n}", messages=(user(f"q{n}"),), tags=(tag,)) for n, tag in enumerate(["one", "two"])]
    found = audit(
        items,
        Constitution(name="one", principles=(only,)),
        policy({"q0": "b", "q1": "b"}),
        feedback(),
        LoopSettings(),
        AuditSettings(),
        seed=0,
    )
    by_group = {group.group: group for group in found.groups}
    assert (by_group["one"].applicable, by_group["one"].bare) == (1, ())
    assert [row.uid for row in by_group["two"].bare] == ["i1"]
