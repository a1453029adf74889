"""Which score requests are computed, and remembered, together.

A sum of logs differs in its last bit with what is computed beside it, so the batches of a run that is resumed must be those of
an uninterrupted one: groups follow from the requests alone, and none is ever half known. Requests that begin alike (a pair
under many principles) are in one group, so that an engine can compute what they share once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cai.engines.base import ScoreRequest
from cai.engines.beginnings import common_prefix, group_by_prefix

REQUESTS_TOGETHER = 256
CHARACTERS_TOGETHER = 65_536
"""About 16,000 tokens, what is shared counted once: a full batch for a GPU, and no more than a kill may cost on a CPU."""

_LOOKED_AT = 4096
"""Requests among which those that begin alike are looked for."""
_LEAST_SHARE = 0.25
"""Of a request's text: both orders of a pair share the conversation; all prompts of a template begin alike too."""


def score_groups(requests: Sequence[ScoreRequest]) -> Iterator[list[int]]:
    """Indices of the requests of each group; those that begin alike are in one, in whatever order they are asked."""
    for start in range(0, len(requests), _LOOKED_AT):
        texts = [_text(request) for request in requests[start : start + _LOOKED_AT]]
        group: list[int] = []
        characters = 0
        families = group_by_prefix(texts, CHARACTERS_TOGETHER, least_share=_LEAST_SHARE)
        for family in sorted(families, key=min):
            for first in range(0, len(family), REQUESTS_TOGETHER):
                some = family[first : first + REQUESTS_TOGETHER]
                new = _new_characters([texts[index] for index in some])
                if group and (len(group) + len(some) > REQUESTS_TOGETHER or characters + new > CHARACTERS_TOGETHER):
                    yield group
                    group, characters = [], 0
                group += [start + index for index in some]
                characters += new
        if group:
            yield group


def _text(request: ScoreRequest) -> str:
    """What is read for it, but for what its other continuations do not share with the longest."""
    longest = max(request.continuations, key=len, default="")
    return "\n".join([*(message.content for message in request.messages), request.response_prefix + longest])


def _new_characters(texts: Sequence[str]) -> int:
    """Of texts in lexicographic order, what each does not share with the one before it."""
    return sum(map(len, texts)) - sum(common_prefix(one, other) for one, other in pairwise(texts))
