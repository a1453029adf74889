"""The lab's exact checker as a reward: 1 for a good reply, 0 for a bad or broken one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cai.errors import ConfigError
from cai.lab.checker import check
from cai.lab.world import LabItem
from cai.records import Item
from cai.rl.rewards import Reply


class LabReward:
    """Judges replies to the lab's prompts; of others it cannot say (NaN)."""

    name = "lab"
    fingerprint = "lab"

    def rewards(self, replies: Sequence[Reply]) -> list[float]:
        return [_reward(reply) for reply in replies]

    def begin(self) -> None: ...

    def close(self) -> None: ...


def refuse_strangers(items: Sequence[Item]) -> None:
    """See that there is something to check replies against.

    Raises:
        ConfigError: If no prompt is the lab's.
    """
    if not any("lab" in item.facts for item in items):
        raise ConfigError(
            "`lab` as a reward or truth: none of the prompts is the lab's, so nothing is known of what a good reply is",
            "take the lab's prompts (`lab: {items: 200}`), or another reward",
        )


def _reward(reply: Reply) -> float:
    try:
        item = LabItem.from_row(reply.item.facts)
    except ValueError:
        return math.nan
    return float(check(item, reply.text).label == "good")
