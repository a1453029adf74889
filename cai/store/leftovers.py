"""Files that a killed process of a run left half written (see `cai.store.files`)."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from cai.store.files import PART_SUFFIX
from cai.store.lock import LOCK_NAME


def part_files(folder: Path) -> list[Path]:
    """Files under way, or left so, of the run in `folder`: directly in it and one level below, in order.

    A folder below with a lock of its own is another run, such as a shard, which may be at work; a linked folder is elsewhere.
    """
    below = [path for path in folder.glob("*/") if not path.is_symlink() and not (path / LOCK_NAME).exists()]
    return sorted(part for place in (folder, *below) for part in place.glob(f".*{PART_SUFFIX}"))


def remove_parts(folder: Path) -> None:
    """Remove the part files of the run in `folder`, whose lock the caller holds."""
    for part in part_files(folder):
        with suppress(OSError):
            part.unlink()


def abandoned(target: Path) -> Iterator[tuple[Path, str]]:
    """What processes that live no more left beside `target`, each with what its name says between process and ending."""
    for part in sorted(target.parent.glob(f".{glob.escape(target.name)}.*{PART_SUFFIX}")):
        owner, _, what = part.name.removeprefix(f".{target.name}.").removesuffix(PART_SUFFIX).partition(".")
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            yield part, what
