"""Small results kept in a file that is only ever added to: what `add` has returned from survives a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class AppendedValues:
    """A JSONL file of keys and values.

    Args:
        path: Of the file; made, with its folder, when something is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Key → value, of all whole lines. A torn last one, left by a kill, is cut off; one damaged by something else is not
        told of: whoever needs its value computes it again.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.truncate(self.path, whole)
        found: dict[str, Any] = {}
        for line in content[:whole].splitlines():
            try:
                key, value = json.loads(line)
            except (ValueError, TypeError):
                continue
            found[str(key)] = value
        return found

    def add(self, values: Mapping[str, Any]) -> None:
        """Put them at the end, on the disk when this returns.

        Raises:
            OSError: If the disk refuses them.
        """
        if not values:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(b"".join(json.dumps(each).encode() + b"\n" for each in values.items()))
            file.flush()
            os.fsync(file.fileno())
