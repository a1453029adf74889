"""What a course computes in an epoch: positions, with and without sharing, and floating-point operations; and how long that
takes at the rate of one matrix product of the model's shape.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cai.models.products import multiplied
from cai.training.course import Course
from cai.training.packing import Layout, PackedBatch, TokenGroup, micro_batches, pack
from cai.training.parts import parts_of
from cai.training.plan import Step
from cai.training.rows import PreferenceRow, TrainingRow
from cai.training.skeleton import Skeleton

REACHED = {"cpu": 0.6, "cuda": 0.35}
"""Share of a lone matrix product's rate that a training step reaches: on CPUs as the profile of
`examples/benchmarks/preference_training.py` has it for a 26M Llama in float32; on GPUs a guess."""
_TIMED_SECONDS = 0.2
_BACKWARDS_OF_ATTENTION = 2.5
"""FlashAttention computes the scores again: five products for the two forwards (arXiv 2307.08691, section 4.1)."""


@dataclass(frozen=True, slots=True)
class Load:
    """Of some passes.

    Args:
        passes: How many.
        positions: Computed in them, padding included.
        apart: That they would be if each pair's two replies (and each anchor) had rows of their own, without padding.
        slots: Scored positions.
        attended: Sum over positions of how many each one sees.
        largest: Positions of the largest pass.
        largest_slots: Most scored positions of a pass.
    """

    passes: int
    positions: int
    apart: int
    slots: int
    attended: int
    largest: int
    largest_slots: int

    def forward_flops(self, skeleton: Skeleton) -> float:
        """Of the forward passes, the head included."""
        head = 2.0 * self.slots * skeleton.width * skeleton.vocabulary
        return skeleton.cost.flops * self.positions + self._attention(skeleton) + head

    def training_flops(self, skeleton: Skeleton, *, recomputed: bool) -> float:
        """Of forward and backward passes. Frozen weights need no gradient of their own: one product backwards, not two."""
        linear = skeleton.cost.flops * self.positions
        backwards = (2.0 if skeleton.full else 1.0) * linear + _BACKWARDS_OF_ATTENTION * self._attention(skeleton)
        head = 2.0 * self.slots * skeleton.width * skeleton.vocabulary * (2.0 if skeleton.full else 1.0)
        again = linear + self._attention(skeleton) if recomputed else 0.0
        return self.forward_flops(skeleton) + backwards + head + again

    def _attention(self, skeleton: Skeleton) -> float:
        return 4.0 * skeleton.layers * skeleton.query_width * self.attended


def epoch_load(course: Course, layout: Layout) -> Load:
    """Of the first epoch's passes; others have the same rows in other steps."""
    steps = course.plan[: len(course.plan) // course.settings.epochs]
    passes: list[list[TrainingRow]] = []
    for step in steps:
        passes += step_passes(course, step, layout)
    groups = [[row.group for row in some] for some in passes]
    return load_of(groups, layout, apart=sum(_apart(row) for some in passes for row in some))


def step_passes(course: Course, step: Step, layout: Layout) -> list[list[TrainingRow]]:
    """The forward passes of one step in one process; rows too large for one are cut, as training cuts them."""
    tokens = course.settings.tokens_per_forward
    rows = parts_of([course.rows[at] for at in step.rows], layout, tokens)
    rows += [course.anchors[at] for at in step.anchors]
    return micro_batches(rows, lambda row: row.group, layout, tokens)


def reference_load(course: Course, layout: Layout) -> Load:
    """Of the pass over all pairs under the reference model, held-out ones included."""
    rows = [row for row in (*course.rows, *course.held_out) if isinstance(row, PreferenceRow)]
    parts = parts_of(rows, layout, course.settings.tokens_per_forward)
    groups = list(dict.fromkeys(part.group for part in parts))
    passes = micro_batches(groups, lambda group: group, layout, course.settings.tokens_per_forward)
    return load_of(passes, layout, apart=sum(map(_apart, rows)))


def load_of(passes: Sequence[Sequence[TokenGroup]], layout: Layout, *, apart: int = 0) -> Load:
    """Of these passes. `apart`: see `Load`; 0 where nobody asks."""
    batches = [pack(groups, layout) for groups in passes]
    return Load(
        passes=len(batches),
        positions=sum(batch.tokens for batch in batches),
        apart=apart,
        slots=sum(len(batch.slots) for batch in batches),
        attended=sum(_attended(batch) for batch in batches),
        largest=max((batch.tokens for batch in batches), default=0),
        largest_slots=max((len(batch.slots) for batch in batches), default=0),
    )


def _attended(batch: PackedBatch) -> int:
    return int((batch.position_ids + 1).sum())


def _apart(row: TrainingRow) -> int:
    prompt = len(row.group.prompt_ids) - 1
    if not isinstance(row, PreferenceRow):
        return sum(prompt + len(reply) for reply in row.group.replies)
    return sum(prompt + len(row.group.replies[reply]) for pair in row.sequences for reply in pair)


def matrix_rate(skeleton: Skeleton, device: torch.device, tokens: int) -> float:
    """Floating-point operations a second of the product [tokens, hidden] × [hidden, inner], timed for a moment."""
    left = torch.ones(max(1, tokens), skeleton.width, dtype=skeleton.dtype, device=device)
    right = torch.ones(skeleton.width, skeleton.inner_width, dtype=skeleton.dtype, device=device)
    products, started = -1, time.perf_counter()  # the first is a warm-up
    while products < 1 or time.perf_counter() - started < _TIMED_SECONDS:
        multiplied(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        products += 1
        if products == 0:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    return 2.0 * left.numel() * skeleton.inner_width * products / seconds
