"""A reward that is nearly right: it counts words of caution.

On the lab's prompts a good reply often declines, corrects, or says that nobody can know, and SmolLM2-135M does too little of
it: more caution is better, up to a point. The count does not know the point, and does not read the prompt.
"""

from __future__ import annotations

import re
from typing import Any

CAUTION = re.compile(
    r"\b(?:not|no|cannot|can't|don't|doesn't|isn't|won't|never|nobody|unknown|unsure|uncertain|depends|sorry|wrong|incorrect"
    r"|illegal|unethical|harmful|however|but|should)\b",
    re.IGNORECASE,
)


def reward(completions: list[list[dict[str, str]]], **_columns: Any) -> list[float]:
    """Words of caution in each reply."""
    return [float(len(CAUTION.findall(each[0]["content"]))) for each in completions]
