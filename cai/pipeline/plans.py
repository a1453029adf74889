"""The parts of a plan. Plain values: importing this module costs nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cai.pipeline.changes import Change
from cai.records import Stage
from cai.review.flow import NOTHING_WAITS, Waiting

StageState: TypeAlias = Literal["finished", "to do"]
BesideState: TypeAlias = Literal["stands", "unfinished", "outdated", "not made"]


@dataclass(frozen=True, slots=True)
class PlannedCalls:
    """Calls of one kind (`draft`, `critique`, … `score`).

    Args:
        name: Of the kind.
        reused: Stored already.
        certain: To be made, whatever the answers of others.
        calls: To be made, with those that hang on answers not there yet: an estimate where it differs from `certain`.
        prompt_tokens: Of `calls`.
        new_tokens: Expected, by stored answers of the kind; without any, the most there can be.
        most_new_tokens: If every answer is as long as it may be.
        seconds: Expected, by the stored calls of the kind; None when none has been made yet.
    """

    name: str
    reused: int
    certain: int
    calls: int
    prompt_tokens: int
    new_tokens: int
    most_new_tokens: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage of the run: whether it is to be done, and why; for training the seconds expected (None: unknown)."""

    stage: Stage
    state: StageState
    why: str
    seconds: float | None = None

    @property
    def trains(self) -> bool:
        return self.stage in (Stage.SFT, Stage.DPO)


@dataclass(frozen=True, slots=True)
class PlannedBeside:
    """A model that lies beside the run's stages (`reward`, `rl`): no run makes it again, but what it was made of may change."""

    name: str
    state: BesideState
    why: str


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row that waits for a call: the stage it waits in, and why the call is not stored."""

    uid: str
    replica: int
    stage: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Args:
        folder: Of the run.
        begun: Whether there is a run in it.
        changes: What is not as it was.
        stages: In their order.
        calls: By kind.
        rows: That wait for a call, in the order of the input.
        all_rows: (prompt, replica) pairs that go through the loop.
        waiting: Of what is made by now, what is not learned before a person has judged it.
        beside: Models that other commands make of the run.
    """

    folder: Path
    begun: bool
    changes: tuple[Change, ...]
    stages: tuple[PlannedStage, ...]
    calls: tuple[PlannedCalls, ...]
    rows: tuple[PlannedRow, ...]
    all_rows: int
    waiting: Waiting = NOTHING_WAITS
    beside: tuple[PlannedBeside, ...] = ()

    @property
    def nothing_to_do(self) -> bool:
        return all(stage.state == "finished" for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Of all calls and trainings, without loading models; None where one of them is unknown."""
        return None if self.unknown else self.known_seconds

    @property
    def known_seconds(self) -> float:
        """Of those calls and trainings whose time is known."""
        parts = [each.seconds for each in self.calls if each.calls] + [each.seconds for each in self._trainings]
        return sum(part for part in parts if part is not None)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Kinds of calls and trainings that were never made in this folder, so that nobody knows how long they take."""
        calls = [each.name for each in self.calls if each.calls and each.seconds is None]
        return (*calls, *(each.stage.value for each in self._trainings if each.seconds is None))

    @property
    def _trainings(self) -> list[PlannedStage]:
        return [each for each in self.stages if each.state == "to do" and each.trains]

    def as_json(self) -> dict[str, Any]:
        """For programs; every row is there."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "nothing_to_do": self.nothing_to_do,
            "seconds": self.seconds,
            "known_seconds": self.known_seconds,
        }
