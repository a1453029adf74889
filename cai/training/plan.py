"""Which rows are trained on in which optimizer step: a pure function of counts, settings and seed.

Knows numbers only. Because the whole course is fixed before training starts, a resumed run goes on with exactly the rows it
would have seen, whatever the number of processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """Indices of the rows (pairs, or supervised rows) and of the anchors of one optimizer step."""

    rows: tuple[int, ...]
    anchors: tuple[int, ...] = ()


def plan_steps(
    sizes: Sequence[int], *, epochs: int, batch: int, seed: int, anchors: int = 0, anchors_per_unit: float = 0.0
) -> tuple[Step, ...]:
    """Shuffle the rows anew in each epoch and cut them into steps of nearly equal size.

    Equal sizes, because a last step of one row would move the weights as far as a full one. Anchors come round and round in
    an order of their own, so that over the epochs all are seen equally often (to within one time).

    Args:
        sizes: Of each row, in units: 1, or its number of pairs. Rows are never cut: a step may be larger or smaller than
            another by less than one row.
        epochs: Times that each row is seen.
        batch: Units of a step; where each row is one unit, at most.
        seed: Decides the order.
        anchors: How many there are.
        anchors_per_unit: How many of them are in a step, for each of its units.
    """
    supply = _endless(anchors, seed)
    steps: list[Step] = []
    units = sum(sizes)
    count = min(len(sizes), -(-units // batch))
    for epoch in range(epochs):
        order = list(range(len(sizes)))
        _shuffle(order, f"{seed}/rows/{epoch}")
        for part in _cut(order, sizes, count, units):
            wanted = min(anchors, round(anchors_per_unit * sum(sizes[row] for row in part)))
            if anchors and anchors_per_unit:
                wanted = max(1, wanted)
            steps.append(Step(part, tuple(next(supply) for _ in range(wanted))))
    return tuple(steps)


def _cut(order: Sequence[int], sizes: Sequence[int], count: int, units: int) -> Iterator[tuple[int, ...]]:
    """`count` parts, none empty, each as large as its share of the units allows."""
    start = done = 0
    for part in range(count):
        stop = start
        while stop < len(order) - (count - part - 1) and (
            stop == start or done + sizes[order[stop]] <= (part + 1) * units // count
        ):
            done += sizes[order[stop]]
            stop += 1
        yield tuple(order[start:stop])
        start = stop


def _shuffle(order: list[int], key: str) -> None:
    random.Random(key).shuffle(order)  # noqa: S311 - an order of rows is no secret


def _endless(count: int, seed: int) -> Iterator[int]:
    turn = 0
    while True:
        order = list(range(count))
        _shuffle(order, f"{seed}/anchors/{turn}")
        yield from order
        turn += 1
