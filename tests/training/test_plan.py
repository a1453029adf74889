"""Which row is trained on when."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cai.training.plan import plan_steps

SEEDS = st.integers(0, 5)


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 20), SEEDS)
def test_every_epoch_sees_every_row_once_in_steps_of_nearly_one_size(rows: int, epochs: int, batch: int, seed: int) -> None:
    plan = plan_steps([1] * rows, epochs=epochs, batch=batch, seed=seed)
    per_epoch = -(-rows // batch)
    assert len(plan) == epochs * per_epoch
    for epoch in range(epochs):
        steps = plan[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(row for step in steps for row in step.rows) == list(range(rows))
        sizes = [len(step.rows) for step in steps]
        assert max(sizes) <= batch
        assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(6, 20), SEEDS)
def test_rows_of_several_pairs_are_never_cut_and_steps_weigh_nearly_alike(sizes: list[int], batch: int, seed: int) -> None:
    plan = plan_steps(sizes, epochs=1, batch=batch, seed=seed)
    assert sorted(row for step in plan for row in step.rows) == list(range(len(sizes)))
    assert all(step.rows for step in plan)
    share = sum(sizes) / len(plan)
    for step in plan:
        weight = sum(sizes[row] for row in step.rows)
        assert share - max(sizes) < weight < share + max(sizes)


@given(st.integers(1, 40), st.integers(1, 30), st.floats(0.1, 3.0), SEEDS)
def test_anchors_take_turns(rows: int, anchors: int, per_row: float, seed: int) -> None:
    plan = plan_steps([1] * rows, epochs=3, batch=8, seed=seed, anchors=anchors, anchors_per_unit=per_row)
    seen = Counter(anchor for step in plan for anchor in step.anchors)
    counts = [seen[anchor] for anchor in range(anchors)]
    assert max(counts) - min(counts) <= 1
    assert all(1 <= len(step.anchors) <= anchors for step in plan)


@given(st.integers(1, 30), SEEDS)
def test_without_anchors_the_order_of_the_rows_is_the_same(rows: int, seed: int) -> None:
    plain = plan_steps([1] * rows, epochs=2, batch=4, seed=seed)
    with_anchors = plan_steps([1] * rows, epochs=2, batch=4, seed=seed, anchors=5, anchors_per_unit=1.0)
    assert [step.rows for step in plain] == [step.rows for step in with_anchors]
    assert all(
        not step.anchors for step in plan_steps([1] * rows, epochs=2, batch=4, seed=seed, anchors=5, anchors_per_unit=0.0)
    )


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = plan_steps([1] * 50, epochs=2, batch=50, seed=0)
    assert first.rows != second.rows
    assert plan_steps([1] * 50, epochs=1, batch=50, seed=1)[0].rows != first.rows
    assert plan_steps([1] * 50, epochs=2, batch=50, seed=0) == (first, second)
