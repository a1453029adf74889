"""Which rows are trained on in which optimizer step: a pure function of counts, settings and seed.

Knows numbers only. Because the whole course is fixed before training starts, a resumed run goes on with exactly the rows it
would have seen, whatever the number of processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """Indices of the rows (pairs, or supervised rows) and of the anchors of one optimizer step."""

    rows: tuple[int, ...]
    anchors: tuple[int, ...] = ()


def plan_steps(
    rows: int, *, epochs: int, batch: int, seed: int, anchors: int = 0, anchors_per_row: float = 0.0
) -> tuple[Step, ...]:
    """Shuffle the rows anew in each epoch and cut them into steps of nearly equal size, `batch` at most.

    Equal sizes, because a last step of one row would move the weights as far as a full one. Anchors come round and round in
    an order of their own, so that over the epochs all are seen equally often (to within one time).
    """
    supply = _endless(anchors, seed)
    steps: list[Step] = []
    count = -(-rows // batch)
    for epoch in range(epochs):
        order = list(range(rows))
        _shuffle(order, f"{seed}/rows/{epoch}")
        for index in range(count):
            part = tuple(order[index * rows // count : (index + 1) * rows // count])
            wanted = min(anchors, round(anchors_per_row * len(part)))
            if anchors and anchors_per_row:
                wanted = max(1, wanted)
            steps.append(Step(part, tuple(next(supply) for _ in range(wanted))))
    return tuple(steps)


def _shuffle(order: list[int], key: str) -> None:
    random.Random(key).shuffle(order)  # noqa: S311 - an order of rows is no secret


def _endless(count: int, seed: int) -> Iterator[int]:
    turn = 0
    while True:
        order = list(range(count))
        _shuffle(order, f"{seed}/anchors/{turn}")
        yield from order
        turn += 1
