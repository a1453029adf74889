"""Log-probabilities of continuations. What requests share is computed once: prompts, and beginnings of continuations.

All sequences of several requests become trees of tokens; one forward pass without a cache gives the logits of every token
that has a scored successor. A continuation of one token costs nothing beyond its prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from cai.engines.forward import Forward, is_out_of_memory
from cai.engines.limits import BatchLimits
from cai.engines.prefixes import Forest, TokenTree, group_by_prefix, padded_width

_LOGITS_AT_ONCE = 128
"""Rows of the vocabulary turned into float32 log-probabilities at a time: 128 of 150,000 tokens are 77 MB."""


@dataclass(frozen=True, slots=True)
class ScoredSequences:
    """One request, encoded.

    Args:
        index: Of its request.
        sequences: Prompt and continuation, for each continuation.
        starts: Where in each of them the scored tokens begin (at least 1).
    """

    index: int
    sequences: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]

    @property
    def longest(self) -> tuple[int, ...]:
        return max(self.sequences, key=len)


def score_sequences(
    forward: Forward, limits: BatchLimits, requests: Sequence[ScoredSequences]
) -> Iterator[tuple[int, list[float] | None]]:
    """Sum of log-probabilities in nats of each sequence's scored tokens, for each request as it is ready.

    None stands for a request that alone does not fit into memory.
    """
    waiting = deque(_plan(requests, limits))
    while waiting:
        batch = [waiting.popleft()]
        longest = _size(batch[0])
        while (
            waiting
            and (len(batch) + 1) * max(longest, _size(waiting[0])) <= limits.prefill_tokens
            and not (limits.exact and _shape(batch[0]) != _shape(waiting[0]))
        ):
            batch.append(waiting.popleft())
            longest = max(longest, _size(batch[-1]))
        scores: list[list[float]] | None = None
        try:
            scores = _score_batch(forward, batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        flat = [request for group in batch for request in group]
        if scores is not None:
            limits.fitted()
            yield from ((request.index, each) for request, each in zip(flat, scores, strict=True))
        elif len(flat) == 1:
            limits.restore()
            yield flat[0].index, None
        else:
            limits.halve(len(flat))
            again = [*flat, *(request for group in waiting for request in group)]
            waiting = deque(_plan(again, limits))


def _plan(requests: Sequence[ScoredSequences], limits: BatchLimits) -> list[list[ScoredSequences]]:
    if limits.exact:
        return sorted(([request] for request in requests), key=_shape, reverse=True)
    groups = group_by_prefix([list(request.longest) for request in requests], limits.prefill_tokens)
    return [[requests[position] for position in group] for group in groups]


def _shape(group: Sequence[ScoredSequences]) -> tuple[int, bool]:
    """Padded width of a group's tree, and whether it has branches: groups equal in both are computed alike."""
    tree = TokenTree()
    for sequence in sorted(sequence for request in group for sequence in request.sequences):
        tree.add(sequence[:-1])
    return padded_width(len(tree)), not tree.is_chain


def _size(group: Sequence[ScoredSequences]) -> int:
    """Upper bound of the tree's tokens: continuations of a request counted without what they share among themselves."""
    first, *others = group
    shared = min((_shared(first.longest, each.longest) for each in others), default=0)
    return shared + sum(len(each.longest) - shared + _tails(each) for each in group)


def _tails(request: ScoredSequences) -> int:
    longest = request.longest
    return sum(
        len(sequence) - start for sequence, start in zip(request.sequences, request.starts, strict=True) if sequence != longest
    )


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _score_batch(forward: Forward, batch: Sequence[Sequence[ScoredSequences]]) -> list[list[float]]:
    """One forward pass over one tree for each group; sums for each request, in order."""
    trees: list[TokenTree] = []
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    owners: list[tuple[int, int]] = []
    known: dict[tuple[int, int], int] = {}
    needed: list[int] = []
    first_request = 0
    for group in batch:
        tree = TokenTree()
        members = [
            (sequence, request, number)
            for request, each in enumerate(group, first_request)
            for number, sequence in enumerate(each.sequences)
        ]
        for sequence, request, number in sorted(members):
            start = group[request - first_request].starts[number]
            path = tree.add(sequence[:-1])
            for place in range(start, len(sequence)):
                where = (len(trees), path[place - 1])
                if where not in known:
                    known[where] = len(rows)
                    rows.append(where[0])
                    columns.append(where[1])
                needed.append(known[where])
                targets.append(sequence[place])
                owners.append((request, number))
        trees.append(tree)
        first_request += len(group)
    sums = [[0.0] * len(each.sequences) for group in batch for each in group]
    if not needed:
        return sums
    forest = Forest(tuple(trees))
    mask = positions = None
    if not forest.is_chains:
        mask = forward.mask(forest.sees(), forest.sees(forward.window) if forward.window else None)
        positions = forest.positions()
    logits_NV = forward.logits(forest.ids(), (rows, columns), mask=mask, positions_BQ=positions)
    needed_M = torch.tensor(needed, device=logits_NV.device)
    targets_M = torch.tensor(targets, device=logits_NV.device)
    parts = torch.split(logits_NV, _LOGITS_AT_ONCE)
    normalisers_N = torch.cat([part.float().logsumexp(-1) for part in parts])
    logps_M = logits_NV[needed_M, targets_M].float() - normalisers_N[needed_M]
    for (request, number), logp in zip(owners, cast("Any", logps_M).tolist(), strict=True):
        sums[request][number] += logp
    return sums
