"""How a run stands, read from outside: beside the process that works on it, or after. Writes nothing, takes no lock."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cai.records import Outcome, Stage
from cai.store.calls import Usage
from cai.store.heartbeat import Heartbeat, read_heartbeat
from cai.store.lock import HOLDER_NAME, Holder
from cai.store.run_folder import DATABASE_NAME, RunFolder

Activity: TypeAlias = Literal["working", "finished", "interrupted", "failed", "killed", "elsewhere", "idle"]
"""`killed`: its process is gone without a word; `elsewhere`: on a machine that cannot be asked; `idle`: nobody works on it."""

QUIET_S = 60.0
QUIET_GAPS = 3.0
SILENT_S = 15.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A run, as it was at one moment.

    Args:
        folder: Of the run.
        activity: Of the last process that worked on it.
        holder: The process that has the run's lock, by its own note; None: nobody has.
        heartbeat: What the last process left of itself; None where there is none.
        finished: Stages that are done.
        rows: Outcome → rows; every outcome is there.
        reasons: (outcome, reason) → rows.
        calls: Stored calls by kind, of all processes.
        seen: When this was read, in seconds since 1970.
        committed: When the database was last written to.
        disk_bytes: Used by the folder.
    """

    folder: Path
    activity: Activity
    holder: Holder | None
    heartbeat: Heartbeat | None
    finished: tuple[Stage, ...]
    rows: Mapping[Outcome, int]
    reasons: Mapping[tuple[Outcome, str], int]
    calls: Mapping[str, Usage]
    seen: float
    committed: float
    disk_bytes: int

    @property
    def committed_s_ago(self) -> float:
        return max(0.0, self.seen - self.committed)

    @property
    def quiet_s(self) -> float | None:
        """How long no unit of any stage was finished (None: nobody is known to work)."""
        if self.activity != "working" or self.heartbeat is None:
            return None
        return max(0.0, self.seen - (self.heartbeat.answered or self.heartbeat.began))

    @property
    def silent_s(self) -> float | None:
        """How long the process has said nothing of itself, though it does every second (None: nobody is known to work)."""
        if self.activity != "working" or self.heartbeat is None:
            return None
        return max(0.0, self.seen - self.heartbeat.written)

    @property
    def doubt(self) -> str:
        """Why the process may have stalled; "" where nothing speaks for it. From outside nobody can know."""
        if self.silent_s is not None and self.silent_s > SILENT_S:
            return (
                f"the process is there, but has said nothing for {self.silent_s:.0f} s: suspended, or the machine overloaded?"
            )
        if self.quiet_s is None or self.heartbeat is None:
            return ""
        longest_s = self.heartbeat.longest_gap_s
        if self.quiet_s > max(QUIET_S, QUIET_GAPS * longest_s):
            return f"nothing was finished for {self.quiet_s:.0f} s, and never before was there a gap of over {longest_s:.0f} s"
        return ""


def read_standing(folder: Path) -> Standing:
    """Look at a run.

    Raises:
        StoreError: If there is no run in the folder, or it is damaged.
    """
    with RunFolder.open(folder, create=False, read_only=True, checked=False) as run:
        # The process first: should it end meanwhile, what it did is still found below.
        holder, heartbeat = Holder.read(folder / HOLDER_NAME), read_heartbeat(folder)
        return Standing(
            folder=folder,
            activity=_activity(holder, heartbeat),
            holder=None if holder is None or holder.is_dead else holder,
            heartbeat=heartbeat,
            finished=tuple(stage for stage in Stage if run.stage(stage) is not None),
            rows=run.ledger_counts(),
            reasons=run.ledger_reasons(),
            calls=run.usage(),
            seen=time.time(),
            committed=_written(folder),
            disk_bytes=_disk_bytes(folder),
        )


def _activity(holder: Holder | None, heartbeat: Heartbeat | None) -> Activity:
    if holder is not None and not holder.is_dead:
        return "working" if holder.is_alive else "elsewhere"
    if holder is not None or (heartbeat is not None and heartbeat.state == "working"):
        return "killed"
    return "idle" if heartbeat is None else heartbeat.state


def _written(folder: Path) -> float:
    """When the database or its log was last written to."""
    files = (folder / DATABASE_NAME, folder / f"{DATABASE_NAME}-wal")
    return max(file.stat().st_mtime for file in files if file.exists())


def _disk_bytes(folder: Path) -> int:
    """What the files take up on the disk; those that vanish meanwhile do not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(place) / name).st_blocks * 512
            except OSError:
                continue
    return total
