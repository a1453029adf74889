"""What a run tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StageProgress:
    """`done` of `total` units of one stage are finished; `note` is a short remark such as a loss or a token rate."""

    stage: str
    done: int
    total: int
    note: str = ""


OnProgress: TypeAlias = Callable[[StageProgress], None]
