"""Checksums against accidents: of the rows of a run's database, and of the files beside it.

SQLite's own integrity check sees a broken page or a broken index, but not a byte that was flipped inside a text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

ROW_CHECKSUM_BYTES = 8


def row_checksum(*values: str | float) -> bytes:
    """BLAKE2b of a row's values, in their order: 8 bytes. Numbers must have the type in which the database gives them back."""
    # A byte that was flipped may leave what is no UTF-8; it is read with `surrogateescape`, and must not end the run here.
    text = "\x00".join(map(str, values)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=ROW_CHECKSUM_BYTES).digest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits; the file is never held in memory.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
