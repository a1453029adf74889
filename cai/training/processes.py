"""The processes that train one model together, as torch.distributed knows them; before it is set up, or without it: one."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import distributed

Value = TypeVar("Value")


def world() -> int:
    """How many there are."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """Number of this one; 0 is the first, which alone writes files."""
    return distributed.get_rank() if _together() else 0


def is_first() -> bool:
    return rank() == 0


def gather(values: list[Value]) -> list[Value]:
    """The lists of all processes one behind the other, in order of rank."""
    if world() == 1:
        return values
    lists: list[Any] = [None] * world()
    cast("Any", distributed).all_gather_object(lists, values)
    return [value for each in lists for value in each]


def from_first(value: Value) -> Value:
    """What the first process gave; what the others gave is lost. A decision made of files must be made once."""
    if world() == 1:
        return value
    values: list[Any] = [value]
    cast("Any", distributed).broadcast_object_list(values, src=0)
    return values[0]


def wait() -> None:
    """Go on when all processes are here."""
    if world() > 1:
        cast("Any", distributed).barrier()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
