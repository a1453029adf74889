"""What a run tells while it works. A stage that advances, the engines' figures about once a second, rows with their outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from cai.records import Outcome
from cai.store.heartbeat import Estimate, Figures, StageProgress, State


@dataclass(frozen=True, slots=True)
class RowsSettled:
    """How the ledger stands after a phase of the run: every input row has exactly one outcome.

    Args:
        phase: That has ended.
        rows: Outcome → rows; every outcome is there.
        reasons: (outcome, reason) → rows.
    """

    phase: str
    rows: Mapping[Outcome, int]
    reasons: Mapping[tuple[Outcome, str], int]


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event. `problem` says why, where it failed."""

    state: State
    problem: str = ""


ProgressEvent: TypeAlias = StageProgress | Figures | RowsSettled | Ended
OnProgress: TypeAlias = Callable[[ProgressEvent], None]
"""Called by one thread at a time, not always the same one."""

__all__ = ["Ended", "Estimate", "Figures", "OnProgress", "ProgressEvent", "RowsSettled", "StageProgress"]
