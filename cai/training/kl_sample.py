"""Positions of replies at which a whole distribution of the reference is kept: few, drawn by a seed. Integers only; no torch.

Two stages, so that few forward passes reach all of them: replies are drawn in proportion to their length, by a systematic
sample over all reply tokens; then positions of each, without replacement. The weighted mean over the sample is an unbiased
estimate of the mean over all tokens of all replies (probability proportional to size: Hansen and Hurwitz 1943).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from cai.training.packing import TokenGroup

DRAWN_REPLIES = 16
POSITIONS_A_REPLY = 16


@dataclass(frozen=True, slots=True)
class SampledReply:
    """One reply, of which only the drawn positions are scored, and which ends with the last of them.

    Args:
        group: Prompt and reply.
        weight: Of the mean over its positions, in (0, 1]; the weights of a sample add up to 1.
    """

    group: TokenGroup
    weight: float


def sample_replies(
    groups: Sequence[TokenGroup], *, seed: int, positions_a_reply: int = POSITIONS_A_REPLY
) -> tuple[SampledReply, ...]:
    """A sample of at most `DRAWN_REPLIES` replies, in the order of the groups.

    A reply longer than a `DRAWN_REPLIES`-th of all tokens may be drawn more than once: it is one member of the sample, with as
    many times the positions and the weight.

    Args:
        groups: At least one.
        seed: Equal seeds and groups give equal samples.
        positions_a_reply: Drawn of a reply each time it is drawn; all, if it has fewer.
    """
    draw = random.Random(f"{seed}/kl")  # noqa: S311 - a sample is no secret
    replies = [(group, reply) for group in groups for reply in range(len(group.replies))]
    ends = list(accumulate((length for group in groups for length in group.sequence_lengths[: len(group.replies)]), initial=0))
    spacing = ends[-1] / DRAWN_REPLIES
    offset = draw.random()
    points = [(number + offset) * spacing for number in range(DRAWN_REPLIES)]
    found: list[SampledReply] = []
    for (group, reply), (start, stop) in zip(replies, pairwise(ends), strict=True):
        times = sum(start <= point < stop for point in points)
        if times:
            scored = list(group.scored(reply, len(group.replies[reply])))
            places = sorted(draw.sample(scored, min(len(scored), times * positions_a_reply)))
            found.append(SampledReply(_only(group, reply, places), times / DRAWN_REPLIES))
    return tuple(found)


def _only(group: TokenGroup, reply: int, places: Sequence[int]) -> TokenGroup:
    gaps = tuple((before + 1, place) for before, place in pairwise((-1, *places)) if before + 1 < place)
    return TokenGroup(group.prompt_ids, (group.replies[reply][: places[-1] + 1],), (gaps,) if gaps else ())
