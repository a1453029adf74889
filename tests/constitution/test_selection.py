"""Which principle is drawn: by seed, item and round alone, and as often as its weight says."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from constitution.schema import Constitution, Principle
from constitution.selection import applicable, select_principle


def _constitution(weights: dict[str, float], **tags: tuple[str, ...]) -> Constitution:
    principles = tuple(
        Principle(id=name, principle=f"Rule {name}.", weight=weight, applies_to=tags.get(name, ()))
        for name, weight in weights.items()
    )
    return Constitution(name="test", principles=principles)


def _drawn(constitution: Constitution, *, seed: int = 0, number: int = 0, count: int = 4000) -> list[str]:
    found = [select_principle(constitution, seed=seed, uid=f"item-{n}", round=number) for n in range(count)]
    return [each.id for each in found if each is not None]


@given(seed=st.integers(0, 2**32), uid=st.text(max_size=20), number=st.integers(0, 16), order=st.permutations("abcd"))
def test_the_draw_depends_on_seed_item_and_round_alone(seed: int, uid: str, number: int, order: list[str]) -> None:
    """Neither the order of the principles nor what was drawn before changes it."""
    weights = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0}
    first = select_principle(_constitution(weights), seed=seed, uid=uid, round=number)
    again = select_principle(_constitution({name: weights[name] for name in order}), seed=seed, uid=uid, round=number)
    assert first == again


def test_weights_are_honoured() -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 0.5}
    counts = Counter(_drawn(_constitution(weights)))
    expected = [4000 * weight / sum(weights.values()) for weight in weights.values()]
    assert chisquare([counts[name] for name in weights], expected).pvalue > 0.001


def test_rounds_and_seeds_draw_independently() -> None:
    constitution = _constitution({"a": 1.0, "b": 1.0})
    first = _drawn(constitution)
    for other in (_drawn(constitution, number=1), _drawn(constitution, seed=1)):
        agreement = sum(x == y for x, y in zip(first, other, strict=True)) / len(first)
        assert abs(agreement - 0.5) < 0.04  # five standard deviations


def test_an_added_principle_changes_only_the_rows_that_it_wins() -> None:
    before = _drawn(_constitution({"a": 1.0, "b": 1.0, "c": 1.0}))
    after = _drawn(_constitution({"a": 1.0, "b": 1.0, "c": 1.0, "new": 1.0}))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(changed) == {"new"}
    assert 800 < len(changed) < 1200  # a quarter of 4,000


def test_a_changed_weight_moves_only_rows_to_or_from_its_principle() -> None:
    before = _drawn(_constitution({"a": 1.0, "b": 1.0, "c": 1.0}))
    after = _drawn(_constitution({"a": 1.0, "b": 1.0, "c": 2.0}))
    assert all(new == "c" for old, new in zip(before, after, strict=True) if old != new)


def test_tags_choose_among_the_principles() -> None:
    constitution = _constitution({"all": 1.0, "claims": 1.0, "both": 1.0}, claims=("claim",), both=("claim", "question"))
    assert [p.id for p in applicable(constitution, ["claim"])] == ["all", "claims", "both"]
    assert [p.id for p in applicable(constitution, ["question", "other"])] == ["all", "both"]
    assert [p.id for p in applicable(constitution, ["other"])] == ["all"]


def test_an_item_without_tags_is_open_to_every_principle() -> None:
    """A prompts file without tags once got none of the shipped principles but the one without `applies_to`."""
    constitution = _constitution({"all": 1.0, "claims": 1.0}, claims=("claim",))
    assert [p.id for p in applicable(constitution, [])] == ["all", "claims"]


def test_nothing_is_drawn_when_nothing_applies() -> None:
    constitution = _constitution({"claims": 1.0}, claims=("claim",))
    assert select_principle(constitution, seed=0, uid="x", round=0, tags=("question",)) is None


@given(seed=st.integers(0, 2**32), uid=st.text(max_size=20), weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=5))
def test_without_repeats_every_principle_has_one_turn(seed: int, uid: str, weights: list[float]) -> None:
    constitution = _constitution({f"p{number}": weight for number, weight in enumerate(weights)})
    drawn = [
        select_principle(constitution, seed=seed, uid=uid, round=number, repeat=False) for number in range(len(weights) + 2)
    ]
    assert {each.id for each in drawn[: len(weights)] if each is not None} == {each.id for each in constitution.principles}
    assert drawn[len(weights) :] == [None, None]
    assert drawn[0] == select_principle(constitution, seed=seed, uid=uid, round=0)


def test_draws_without_repeats_follow_the_weights_of_what_is_left() -> None:
    """P(b second) over P(c second), after a came first, is their ratio of weights (sampling without replacement)."""
    constitution = _constitution({"a": 1.0, "b": 3.0, "c": 1.0})
    pairs = Counter(
        tuple(
            found.id
            for number in (0, 1)
            if (found := select_principle(constitution, seed=0, uid=f"item-{n}", round=number, repeat=False)) is not None
        )
        for n in range(10_000)
    )
    share = {"a": 1 / 5, "b": 3 / 5, "c": 1 / 5}
    expected = {(x, y): 10_000 * share[x] * share[y] / (1 - share[x]) for x in share for y in share if x != y}
    assert chisquare([pairs[each] for each in expected], list(expected.values())).pvalue > 0.001
