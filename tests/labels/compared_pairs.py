"""Compared pairs for tests of what is said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cai.records import ComparedPair, Method, PreferenceRecord, UndecidedRecord
from constitution.messages import user


def compared(
    uid: str,
    margins: Mapping[str, Sequence[float]],
    *,
    first: str = "one answer",
    second: str = "the other",
    method: Method = "pointwise",
    labeller: int = 0,
    reason: str = "",
    more: Sequence[dict[str, Any]] = (),
) -> ComparedPair:
    """A pair with the margins of each principle: one, or one for each order; undecided with a `reason`.

    The pair's own margin is the mean of all. `more`: comparisons of other models.
    """
    comparisons: list[dict[str, Any]] = list(more)
    for principle_id, values in margins.items():
        orders = ("none",) if len(values) == 1 else ("first_second", "second_first")
        comparisons += [
            {"uid": uid, "principle_id": principle_id, "method": method, "order": order, "margin_nats": margin}
            | {"labeller": labeller}
            for order, margin in zip(orders, values, strict=True)
        ]
    margin = sum(each["margin_nats"] for each in comparisons) / len(comparisons)
    of_the_pair = {
        "uid": uid,
        "prompt": (user("question"),),
        "method": method,
        "principle_ids": tuple(margins),
        "comparisons": comparisons,
    }
    if reason:
        sources = {"first_source": "revision", "second_source": "draft"}
        return UndecidedRecord.model_validate(
            {**of_the_pair, **sources, "margin_nats": margin, "first": first, "second": second, "reason": reason}
        )
    won = margin > 0
    return PreferenceRecord.model_validate(
        {
            **of_the_pair,
            "margin_nats": abs(margin),
            "chosen": first if won else second,
            "rejected": second if won else first,
            "chosen_source": "revision" if won else "draft",
            "rejected_source": "draft" if won else "revision",
            "chosen_is_first": won,
            "p_chosen": 1 / (1 + math.exp(-abs(margin))),
        }
    )
