"""Files that a command writes where the user says: never over another one unasked, and whole or not at all."""

from __future__ import annotations

from pathlib import Path


def refuse_existing(target: Path, *, force: bool) -> None:
    """Raise a `CaiError` if there is something at `target` already and it may not be replaced."""
    from cai.errors import CaiError

    if target.is_dir() or (target.exists() and not force):
        hint = (
            "Give another place with --out."
            if target.is_dir()
            else "Give another place with --out, or replace it with --force."
        )
        raise CaiError(f"{target}: exists already; nothing was written.", hint)


def refuse_no_folder(out: Path) -> None:
    """Raise a `CaiError` if no folder can be at `out`, because it, or a folder it would lie in, is a file."""
    from cai.errors import CaiError

    there = next(each for each in (out, *out.parents, Path()) if each.exists())
    if not there.is_dir():
        raise CaiError(
            f"{out}: {'a file' if there == out else f'{there} is a file'}, not a folder.", "Give a folder with --out."
        )


def write(target: Path, text: str) -> None:
    """Put `text` at `target`, whole or not at all.

    Raises:
        CaiError: If it cannot be written.
    """
    from cai.errors import CaiError, StoreError
    from cai.store.files import write_bytes_atomically

    try:
        write_bytes_atomically(target, text.encode())
    except (StoreError, OSError) as error:
        cause = error.__cause__ if isinstance(error, StoreError) else error
        told = (cause.strerror if isinstance(cause, OSError) else None) or error
        raise CaiError(f"{target}: cannot be written ({told}).", "Give another place with --out.") from error
