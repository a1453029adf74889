"""The folder of an export: there whole or not at all, and never in place of anything but an earlier export."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from cai.errors import StoreError
from cai.store.checksums import file_sha256
from cai.store.files import PART_SUFFIX, unwritable, write_bytes_atomically
from cai.store.interrupts import deferred_interrupts
from cai.store.leftovers import abandoned

LIST_NAME = "cai-export.json"
"""Names what an export wrote: by it a folder is known to be one, and everything else in it to be somebody's own."""
LIST_VERSION = 1


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse a place where something stands that is not an export of ours, as it was written, or an empty folder.

    Raises:
        StoreError: If so, with what is there.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StoreError(f"{folder}: a file, not a folder.", "Give --output a new folder.")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    if not there:
        return
    listed = _listed(folder)
    others = sorted(there - listed - {LIST_NAME})
    if LIST_NAME not in there or others:
        what = "not an export of this program" if LIST_NAME not in there else "an export, with files of somebody else's"
        shown = ", ".join((others or sorted(there))[:3])
        raise StoreError(
            f"{folder}: {what} ({shown}{' …' if len(others or there) > 3 else ''}); nothing in it was touched.",
            "Give --output a new or an empty folder, or that of an earlier export.",
        )


@contextmanager
def whole_folder(folder: Path, format_name: str) -> Generator[Path]:
    """A folder to write into that takes the name `folder` when the block ends well, in place of an earlier export.

    Raises:
        StoreError: If something else stands there, the disk is full, or it cannot be written.
    """
    refuse_foreign_folder(folder)
    target = folder.absolute()
    work, old = (target.with_name(f".{target.name}.{os.getpid()}.{what}{PART_SUFFIX}") for what in ("new", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        work.mkdir()
        yield work
        _write_list(work, format_name)
        refuse_foreign_folder(folder)
        with deferred_interrupts():
            _put(work, target, old)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        for each in (work, old):
            shutil.rmtree(each, ignore_errors=True)


def _put(work: Path, target: Path, old: Path) -> None:
    """Give `work` the name `target`; what had it becomes `old`, and gets it back if that fails."""
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        work.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise


def _write_list(folder: Path, format_name: str) -> None:
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"version": LIST_VERSION, "format": format_name, "files": files}
    write_bytes_atomically(folder / LIST_NAME, f"{json.dumps(content, indent=1, sort_keys=True)}\n".encode())


def _listed(folder: Path) -> set[str]:
    try:
        content: Any = json.loads((folder / LIST_NAME).read_bytes())
    except (OSError, ValueError):
        return set()
    files = cast("dict[str, Any]", content).get("files") if isinstance(content, dict) else None
    return set(cast("dict[str, Any]", files)) if isinstance(files, dict) else set()


def _remove_leftovers(target: Path) -> None:
    """What killed exports to the same place left half done. Where one was killed between two renames, the old one is back."""
    for each, what in abandoned(target):
        if what == "old" and not target.exists():
            with suppress(OSError):
                each.rename(target)
        shutil.rmtree(each, ignore_errors=True)
