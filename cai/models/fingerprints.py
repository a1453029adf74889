"""Digests of model folders. A file's digest is kept by path, size and time of change, so that gigabytes are read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from cai.models.caching import cache_folder

_CHUNK_BYTES = 8 * 1024 * 1024
_WORTH_KEEPING_BYTES = 1024 * 1024


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents, in hex.

    The digest of a file of a megabyte or more is kept in the cache folder under its path, size and modification time; a
    cache that cannot be written is no error.
    """
    status = path.stat()
    if status.st_size < _WORTH_KEEPING_BYTES:
        return _read_digest(path)
    identity = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns])
    kept = cache_folder() / "digests" / hashlib.sha256(identity.encode()).hexdigest()
    try:
        digest = kept.read_text(encoding="ascii")
        if len(digest) == 64:
            return digest
    except (OSError, UnicodeDecodeError):
        pass
    digest = _read_digest(path)
    with contextlib.suppress(OSError):  # a full or read-only cache only costs time
        write_atomically(kept, digest)
    return digest


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of several files, in order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda each: each.name):
        total.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def text_digest(*parts: str) -> str:
    """SHA-256 over several texts; where one ends and the next begins counts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}")  # not by `tempfile`, whose files nobody else may read
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _read_digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()
