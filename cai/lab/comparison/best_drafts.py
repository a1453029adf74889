"""Rejection sampling: several drafts to a prompt, of which the one is learned that the constitution's labels like best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cai.engines.base import Engine, Generation, GenerationRequest, SamplingParams, generate_all
from cai.records import Item, SFTRecord
from cai.rl.rewards import Reply, Reward


def best_drafts(
    items: Sequence[Item], engine: Engine, reward: Reward, params: SamplingParams, tries: int, seed: int
) -> tuple[list[SFTRecord], Counter[str]]:
    """The draft with the largest reward to each prompt, the first of several equal ones; what came to nothing, by reason."""
    owners = [item for item in items for _ in range(tries)]
    asked = [
        GenerationRequest(item.messages, params, f"{seed}/{item.uid}/{at % tries}/draft/0") for at, item in enumerate(owners)
    ]
    drafts = dict(generate_all(engine, asked))
    replies: list[Reply] = []
    for at, item in enumerate(owners):
        draft = drafts[at]
        if isinstance(draft, Generation) and draft.text:
            replies.append(Reply(item, draft.text, draft.completion_tokens))
    best: dict[str, tuple[float, Reply]] = {}
    for reply, value in zip(replies, reward.rewards(replies), strict=True):
        known = best.get(reply.item.uid)
        if not math.isnan(value) and (known is None or value > known[0]):
            best[reply.item.uid] = value, reply
    lost = Counter(
        {
            "draft: none, or an empty one": len(owners) - len(replies),
            "label: no principle applies, or no answer": len(items) - len(best),
        }
    )
    rows = [
        SFTRecord(uid=uid, messages=reply.item.messages, reply=reply.text, tags=reply.item.tags)
        for uid, (_, reply) in best.items()
    ]
    return rows, lost
