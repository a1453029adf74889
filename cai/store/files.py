"""Files that are there whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cai.errors import StoreError

PART_SUFFIX = ".cai-part"
"""Ends the names of files under way. A killed process may leave one; the next `RunFolder.open` removes it."""

RESUME_HINT = "run the same command again: it goes on where it stopped."


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Generator[BinaryIO]:
    """Open `path` for writing so that readers see the old file or the whole new one; if `durable`, even after a power cut.

    The folder is made when it is missing. When the block raises, the old file stays as it was.

    Raises:
        StoreError: If the disk is full, the folder cannot be written, or `path` is a folder itself.
    """
    refuse_folder(path)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise unwritable(path, error) from error
        raise


def write_bytes_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` at `path`, whole or not at all (see `atomic_file`)."""
    with atomic_file(path, durable=durable) as file:
        file.write(content)


def refuse_folder(path: Path) -> None:
    """Raise a `StoreError` if `path`, where a file is to be, is a folder."""
    if path.is_dir():
        raise StoreError(f"{path}: a folder, and no file can be written in its place.", f"Name a file: {path / 'NAME'}.")


def unwritable(path: Path, error: OSError) -> StoreError:
    """What to tell a user whose disk refused a write to `path`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StoreError(
            f"{path}: no space left to write this file ({error.strerror}). What was there before is unharmed, and finished "
            "work in the run folder is safe.",
            f"Free some space, then {RESUME_HINT}",
        )
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error}). Finished work in the run folder is safe.",
        f"Make the folder writable, or choose another one, then {RESUME_HINT}",
    )


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is. Not every system lets one open a folder.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
