"""What a process at work on a run leaves beside the database for others to see: `progress.json`, replaced about once a second.

Plain values; importing this module costs nothing. It is no record: nothing is resumed from it, and losing it loses no work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from cai.store.files import write_bytes_atomically

PROGRESS_NAME = "progress.json"
State: TypeAlias = Literal["working", "finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that something will still take: with 90 % between `low_s` and `high_s` (None: no upper bound can be told)."""

    low_s: float
    high_s: float | None


@dataclass(frozen=True, slots=True)
class StageProgress:
    """`done` of `total` units of one stage are finished.

    Args:
        stage: As people know it: `draft`, `critique 2`, `label`, `dpo training` …
        done: Units finished, those answered from the store among them.
        total: Units known of.
        growing: More of them will be known: the stage is fed by another that has not ended.
        note: A short remark, such as a loss.
        phase: The stage of the run that it belongs to (`generate`, `label` …); "" outside a run.
        seconds: Since it was first told of.
        per_second: Computed units a second, lately; None while too little has been computed to say.
        eta: Until `total` is reached; None likewise, when it is, and while it grows.
        ended: Nothing more will come.
    """

    stage: str
    done: int
    total: int
    note: str = ""
    growing: bool = False
    phase: str = ""
    seconds: float = 0.0
    per_second: float | None = None
    eta: Estimate | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class StageCalls:
    """What one kind of call (`draft`, `score` …) has come to in one process; rates: the last minute of its phase."""

    calls: int = 0
    reused: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_per_s: float | None = None
    completion_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What one process has asked of its engines since it began. Rates and occupancy are over the last minute of its phase.

    Args:
        elapsed_s: Since the process began to work on the run.
        calls: Computed calls by kind, with those that were remembered.
        failed_calls: `kind: cause` → calls that failed, remembered ones included.
        prompt_tokens: Tokens of prompts, and of what was scored, that went through a model.
        reused_tokens: Those that did not have to, since others begin alike.
        completion_tokens: Tokens drawn.
        prompt_tokens_per_s: Into models; None where the phase has asked none.
        completion_tokens_per_s: Out of models.
        occupancy: Share of the decoding slots that held a row; None where nothing was decoded.
        waiting: Requests not begun.
        running: Requests in work.
        retries: Requests sent again.
        smaller_batches: How often memory ran out and the batch was made smaller.
        rss_bytes: Memory of the process.
        gpu_bytes: Of it on the GPU; None without one.
        gpu_total_bytes: What the GPU has.
    """

    elapsed_s: float = 0.0
    calls: Mapping[str, StageCalls] = field(default_factory=dict[str, StageCalls])
    failed_calls: Mapping[str, int] = field(default_factory=dict[str, int])
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_per_s: float | None = None
    completion_tokens_per_s: float | None = None
    occupancy: float | None = None
    waiting: int = 0
    running: int = 0
    retries: int = 0
    smaller_batches: int = 0
    rss_bytes: int = 0
    gpu_bytes: int | None = None
    gpu_total_bytes: int | None = None

    @property
    def computed(self) -> int:
        return sum(each.calls for each in self.calls.values())

    @property
    def remembered(self) -> int:
        return sum(each.reused for each in self.calls.values())

    @property
    def reused_share(self) -> float | None:
        """Of all prompt tokens, those that were not computed again."""
        asked = self.prompt_tokens + self.reused_tokens
        return self.reused_tokens / asked if asked else None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How a process stands. Times are seconds since 1970, by the clock of its machine.

    Args:
        pid: Of the process.
        host: Its machine.
        began: When it opened the run.
        written: When this was written.
        answered: When a unit of any stage was last finished; None before the first.
        longest_gap_s: The longest time so far between two of them.
        state: Whether it works, or how it ended.
        problem: Why it ended, where it failed.
        phase: The stage of the run in work; "" between two.
        stages: In the order in which they began.
        figures: Of the engines.
    """

    pid: int
    host: str
    began: float
    written: float
    answered: float | None
    longest_gap_s: float
    state: State
    problem: str
    phase: str
    stages: tuple[StageProgress, ...]
    figures: Figures


_HEARTBEAT = TypeAdapter(Heartbeat)


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Replace the one in `folder`; readers see the old or the new one.

    Raises:
        StoreError: If it cannot be written.
    """
    # Not flushed to the disk: after a power cut it would be wrong anyway.
    write_bytes_atomically(folder / PROGRESS_NAME, _HEARTBEAT.dump_json(heartbeat), durable=False)


def read_heartbeat(folder: Path) -> Heartbeat | None:
    """The last one left in `folder`; None where there is none that this version can read."""
    try:
        return _HEARTBEAT.validate_json((folder / PROGRESS_NAME).read_bytes())
    except (OSError, ValidationError):
        return None
