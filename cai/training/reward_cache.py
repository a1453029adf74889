"""Rewards that are computed already, by the model and the text they are of: what a killed scoring does not compute again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cai.store.appended import AppendedValues
from cai.store.files import unwritable


class RewardCache:
    """Rewards of the K heads by key (`sequence_keys`), in a file; the first value of a key counts.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = AppendedValues(path)
        self._known = {key: cast("list[float]", value) for key, value in self._file.read().items() if _is_rewards(value)}

    def get(self, key: str) -> Sequence[float] | None:
        """rewards_K, or None if they were never computed."""
        return self._known.get(key)

    def put(self, found: Mapping[str, Sequence[float]]) -> None:
        """Keep what is not known yet, on the disk when this returns.

        Raises:
            StoreError: If the disk refuses it.
        """
        new = {key: list(rewards) for key, rewards in found.items() if key not in self._known}
        try:
            self._file.add(new)
        except OSError as error:
            raise unwritable(self._file.path, error) from error
        self._known |= new

    def remove(self) -> None:
        """What it was for is done."""
        self._file.path.unlink(missing_ok=True)


def _is_rewards(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, float) for each in cast("list[Any]", value))
