"""What the tests of log-probabilities share: small models, groups of awkward shapes, and the naive way to score them."""

from __future__ import annotations

from typing import Any

import torch
from checkpoints import Architecture, make_config
from transformers import AutoModelForCausalLM

from cai.training.packing import TokenGroup

VOCABULARY = 300


def make_model(architecture: Architecture, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(make_config(architecture, VOCABULARY, **overrides)).eval()


def make_groups() -> list[TokenGroup]:
    """Unequal lengths; replies of one token, with a common beginning, one the beginning of the other, and three of them."""
    draw = torch.Generator().manual_seed(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=draw).tolist())

    same = ids(3)
    return [
        TokenGroup(ids(5), (ids(4), ids(7))),
        TokenGroup(ids(1), (ids(1), ids(2))),
        TokenGroup(ids(9), ((*same, *ids(2)), (*same, *ids(4)))),
        TokenGroup(ids(3), (same, (*same, *ids(2)))),
        TokenGroup(ids(4), (ids(3), ids(2), ids(5))),
        TokenGroup(ids(6), (ids(4),)),
    ]


def one_at_a_time(model: Any, groups: list[TokenGroup]) -> list[float]:
    """Each conversation alone, no padding, no mask; the sum in Python."""
    sums: list[float] = []
    for group in groups:
        for reply in group.replies:
            ids = torch.tensor([[*group.prompt_ids, *reply]])
            with torch.no_grad():
                logps = model(input_ids=ids).logits[0].double().log_softmax(-1)
            first = len(group.prompt_ids)
            sums.append(sum(logps[first + at - 1, token].item() for at, token in enumerate(reply)))
    return sums
