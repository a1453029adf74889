"""Log-probabilities of continuations. What requests share is computed once: prompts, and beginnings of continuations.

All sequences of several requests become trees of tokens; one forward pass without a cache gives the logits of every token
that has a scored successor. A continuation of one token costs nothing beyond its prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, cast

import torch

from cai.engines.beginnings import common_prefix, group_by_prefix
from cai.engines.forward import Forward, is_out_of_memory
from cai.engines.limits import BatchLimits
from cai.engines.prefixes import Forest, TokenTree, padded_width

_LEAST_SHARE = 0.25
"""Share of its tokens that a request must have in common with its neighbour to be in one tree with it, where attention follows
the tree: both orders of a pair share the conversation; that all prompts of a template begin alike is not enough."""

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


@dataclass(slots=True)
class ScoredTokens:
    """Prompt tokens, those of continuations that go through the model included."""

    computed: int = 0
    reused: int = 0
    """What more there would have been, had each request been computed alone."""
    smaller_batches: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A scored token: of which request and sequence, the place in the tree that its logits are at, and its id."""

    request: int
    sequence: int
    place: int
    token: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Requests in one tree."""

    requests: tuple[ScoredSequences, ...]
    tree: TokenTree
    asked: tuple[_Asked, ...]
    places: int
    """How many of the tree's tokens are asked what follows them."""

    @classmethod
    def of(cls, requests: Sequence[ScoredSequences]) -> _Group:
        tree = TokenTree()
        asked: list[_Asked] = []
        members = [(ids, at, n) for at, request in enumerate(requests) for n, ids in enumerate(request.sequences)]
        for ids, at, number in sorted(members):
            path = tree.add(ids[:-1])
            scored = range(requests[at].starts[number], len(ids))
            asked += [_Asked(at, number, path[place - 1], ids[place]) for place in scored]
        return cls(tuple(requests), tree, tuple(asked), len({each.place for each in asked}))

    @property
    def shape(self) -> tuple[int, bool]:
        """Groups that are equal in it are padded and masked alike."""
        return padded_width(len(self.tree)), not self.tree.is_chain


def score_sequences(
    forward: Forward, limits: BatchLimits, requests: Sequence[ScoredSequences], counts: ScoredTokens
) -> Iterator[tuple[int, list[float] | None]]:
    """Sum of log-probabilities in nats of each sequence's scored tokens, for each request as it is ready.

    None stands for a request that alone does not fit into memory. Sums differ, within rounding (1e-4 nats in float32), with
    what is computed with them; with `BatchLimits.exact_scores`, every request is computed alone. Where the model cannot branch,
    every sequence has a tree of its own.

    Args:
        forward: The model.
        limits: Shrunk when memory runs out.
        requests: What to score.
        counts: Added to.
    """
    if not forward.can_branch:
        yield from _joined(requests, _score(forward, limits, [*_alone(requests)], counts))
        return
    yield from _score(forward, limits, requests, counts)


def _alone(requests: Sequence[ScoredSequences]) -> Iterator[ScoredSequences]:
    """Each sequence as a request of its own."""
    pairs = (pair for request in requests for pair in zip(request.sequences, request.starts, strict=True))
    for number, (sequence, start) in enumerate(pairs):
        yield ScoredSequences(number, (sequence,), (start,))


def _joined(
    requests: Sequence[ScoredSequences], scores: Iterator[tuple[int, list[float] | None]]
) -> Iterator[tuple[int, list[float] | None]]:
    """The scores of `_alone` put together for the requests."""
    owners = [position for position, request in enumerate(requests) for _ in request.sequences]
    first = [0, *accumulate(len(request.sequences) for request in requests)]
    found: dict[int, list[float] | None] = {}
    missing = [len(request.sequences) for request in requests]
    for number, score in scores:
        found[number], owner = score, owners[number]
        missing[owner] -= 1
        if not missing[owner]:
            parts = [found.pop(each) for each in range(first[owner], first[owner + 1])]
            whole = [part[0] for part in parts if part is not None]
            yield requests[owner].index, whole if len(whole) == len(parts) else None


def _score(
    forward: Forward, limits: BatchLimits, requests: Sequence[ScoredSequences], counts: ScoredTokens
) -> Iterator[tuple[int, list[float] | None]]:
    waiting = deque(_plan(forward, limits, requests))
    while waiting:
        batch = [waiting.popleft()]
        while waiting and _fits(forward, limits, [*batch, waiting[0]]):
            batch.append(waiting.popleft())
        scores: list[list[float]] | None = None
        try:
            scores = _score_batch(forward, batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        flat = [request for group in batch for request in group.requests]
        if scores is not None:
            limits.fitted()
            computed = sum(len(group.tree) for group in batch)
            counts.computed += computed
            counts.reused += sum(map(_tokens_alone, flat)) - computed
            yield from ((request.index, each) for request, each in zip(flat, scores, strict=True))
            continue
        counts.smaller_batches += 1
        if len(flat) == 1:
            limits.restore()
            yield flat[0].index, None
        else:
            limits.halve(len(flat))
            again = [*flat, *(request for group in waiting for request in group.requests)]
            waiting = deque(_plan(forward, limits, again))


def _plan(forward: Forward, limits: BatchLimits, requests: Sequence[ScoredSequences]) -> list[_Group]:
    longest = [request.longest for request in requests]
    alone = limits.exact_scores or not forward.can_branch
    most = max(limits.prefill_tokens, limits.tree_tokens) if forward.attends_in_trees else limits.prefill_tokens
    if alone:
        found = [[position] for position in range(len(requests))]
    elif forward.attends_in_trees:
        found = group_by_prefix(longest, most, least_share=_LEAST_SHARE)
    else:
        found = group_by_prefix(longest, most)
    groups = [each for group in found for each in _trees([requests[position] for position in group], most, limits)]
    if alone and not forward.attends_in_trees:
        groups.sort(key=lambda group: group.shape, reverse=True)
    return groups


def _trees(requests: Sequence[ScoredSequences], most: int, limits: BatchLimits) -> Iterator[_Group]:
    """One tree of the requests, or halves of them where all their sequences, or the logits asked of it, would be too many."""
    group = _Group.of(requests)
    if len(requests) == 1 or (len(group.tree) <= most and group.places <= limits.logits_rows):
        yield group
    else:
        middle = len(requests) // 2
        yield from _trees(requests[:middle], most, limits)
        yield from _trees(requests[middle:], most, limits)


def _fits(forward: Forward, limits: BatchLimits, batch: Sequence[_Group]) -> bool:
    """Whether several groups may go through the model together. Never where scores are exact: a matrix product of another
    height may round otherwise, and on some processors does.
    """
    if limits.exact_scores or sum(group.places for group in batch) > limits.logits_rows:
        return False
    if forward.attends_in_trees:
        return sum(len(group.tree) for group in batch) <= limits.prefill_tokens
    return len(batch) * max(padded_width(len(group.tree)) for group in batch) <= limits.prefill_tokens


def _tokens_alone(request: ScoredSequences) -> int:
    """What the model would read for this request alone."""
    read = sorted(sequence[:-1] for sequence in request.sequences)
    shared = sum(common_prefix(one, other) for one, other in pairwise(read))
    return sum(map(len, read)) - shared


def _score_batch(forward: Forward, batch: Sequence[_Group]) -> list[list[float]]:
    """One forward pass over one tree for each group; sums for each request, in order."""
    places: dict[tuple[int, int], int] = {}
    """Tree and place → which row of the logits."""
    needed = [places.setdefault((n, each.place), len(places)) for n, group in enumerate(batch) for each in group.asked]
    sums = [[[0.0] * len(request.sequences) for request in group.requests] for group in batch]
    if needed:
        trees, at = zip(*places, strict=True)
        logits_NV = forward.tree_logits(Forest(tuple(group.tree for group in batch)), (trees, at))
        parts = torch.split(logits_NV, _LOGITS_AT_ONCE)
        normalisers_N = torch.cat([part.float().logsumexp(-1) for part in parts])
        needed_M = torch.tensor(needed, device=logits_NV.device)
        targets_M = torch.tensor([each.token for group in batch for each in group.asked], device=logits_NV.device)
        logps_M = logits_NV[needed_M, targets_M].float() - normalisers_N[needed_M]
        logps = iter(cast("Any", logps_M).tolist())
        for group, of_group in zip(batch, sums, strict=True):
            for each in group.asked:
                of_group[each.request][each.sequence] += next(logps)
    return [each for of_group in sums for each in of_group]
