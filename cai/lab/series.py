"""Goes through pieces of work, one after another; one that fails is told of, and tried again by the next start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Generic, Protocol, TypeVar

from cai.errors import CaiError, StoreError

FAILURES_IN_A_ROW = 3
"""So many are no longer about a piece of work: the machine or the installation is at fault."""


class OfSeed(Protocol):
    """A piece of work: something, with one seed."""

    @property
    def seed(self) -> int: ...


Work = TypeVar("Work", bound=OfSeed)


@dataclass(frozen=True, slots=True)
class Failed(Generic[Work]):
    """What was not finished: a full disk, a loss that is not finite. The next start tries it again."""

    work: Work
    problem: str


@dataclass(frozen=True, slots=True)
class Planned(Generic[Work]):
    """`seconds`: what it took, when it is done; else a forecast, None where nothing is known yet."""

    work: Work
    done: bool
    seconds: float | None


def planned(
    pieces: Sequence[Work], seconds: Mapping[Work, float], kin: Callable[[Work], object], typical: Callable[[Work], bool]
) -> list[Planned[Work]]:
    """Every piece, done or with a forecast: the mean of its kin, else of what is typical, else of all that is done.

    Args:
        pieces: In the order of work.
        seconds: Of those that are done.
        kin: What pieces that take alike have in common.
        typical: Whether others may be expected to take as long.
    """

    def forecast(piece: Work) -> float | None:
        same = [took for other, took in seconds.items() if kin(other) == kin(piece)]
        alike = same or [took for other, took in seconds.items() if typical(other)] or list(seconds.values())
        return fmean(alike) if alike else None

    return [Planned(each, done=each in seconds, seconds=seconds.get(each, forecast(each))) for each in pieces]


def work_through(waiting: Sequence[Work], do: Callable[[Work], None], on_end: Callable[[], None]) -> list[Failed[Work]]:
    """Do all that is waiting.

    Args:
        waiting: In the order of work.
        do: Does one piece and keeps what came of it.
        on_end: Called after each, done or failed.

    Returns:
        Those that failed; the others are done.

    Raises:
        CaiError: If several fail one after another, or nothing can be kept.
    """
    failed: list[Failed[Work]] = []
    in_a_row = 0
    for work in waiting:
        try:
            do(work)
        except StoreError:
            raise
        except CaiError as error:
            failed.append(Failed(work, str(error)))
            on_end()
            in_a_row += 1
            if in_a_row == FAILURES_IN_A_ROW:
                raise
            continue
        in_a_row = 0
        on_end()
    return failed
