"""`manifest.json` of a run folder: what the run is made of, for people and for later versions.

It can be shown to anybody: paths and addresses stand in `private.json` beside it, which only its owner can read. Both together
are the whole manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cai.errors import StoreError
from cai.store.canonical import canonical_json, fingerprint
from cai.store.files import write_bytes_atomically
from cai.store.places import with_places, without_places

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 2
"""1: paths among everything else; no packages, hardware, origins, ledger and outputs. 2: what this version writes."""
MANIFEST_CHECKSUM = "sha256"
"""Key, in the manifest, of the fingerprint of everything else in it."""

PRIVATE_NAME = "private.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What was written last, without its checksum and without what is private, or {}.

    Raises:
        StoreError: If it is no JSON object, or cannot be read.
    """
    content = _read(folder / MANIFEST_NAME, f"Move {folder / MANIFEST_NAME} elsewhere; the next run writes a new one.")
    return {name: value for name, value in content.items() if name != MANIFEST_CHECKSUM}


def read_whole_manifest(folder: Path) -> dict[str, Any]:
    """The same with paths and addresses, as far as they are known: `private.json` may not have come along.

    Raises:
        StoreError: If one of the two files is no JSON object, or cannot be read.
    """
    return with_places(read_manifest(folder), read_private(folder).get("places", {}))


def manifest_checksum(folder: Path) -> str:
    """Fingerprint of the manifest as it stands: of two states of a run, two.

    Raises:
        StoreError: If it is no JSON object, or cannot be read.
    """
    return fingerprint(read_manifest(folder))


def read_private(folder: Path) -> dict[str, Any]:
    """`places` (JSON pointer into the manifest → text) and `working_directory`, or {}.

    Raises:
        StoreError: If it is no JSON object, or cannot be read.
    """
    return _read(folder / PRIVATE_NAME, "Delete it: the next run writes a new one.")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write it, whole or not at all, with its own checksum in it: it is never at odds with what says so.

    Paths and addresses go into `private.json`. A manifest of an earlier version is kept beside it.
    """
    _keep_earlier(folder)
    content, places = without_places(json.loads(canonical_json(dict(manifest))))
    content[MANIFEST_CHECKSUM] = fingerprint(content)
    # The private part first: a manifest whose places are missing says less than one that has too many.
    private = folder / PRIVATE_NAME
    write_bytes_atomically(private, _json({"places": places, "working_directory": str(Path.cwd())}))
    with suppress(OSError):  # not every file system knows owners
        private.chmod(0o600)
    write_bytes_atomically(folder / MANIFEST_NAME, _json(content))


def kept_name(version: int) -> str:
    """Under which name a manifest of an earlier version is kept."""
    return f"manifest-version-{version}.json"


def _keep_earlier(folder: Path) -> None:
    try:
        before = read_manifest(folder)
    except StoreError:
        return  # told by whoever wants to read it; what cannot be read is no earlier version
    version = before.get("version", MANIFEST_VERSION)
    if isinstance(version, int) and version < MANIFEST_VERSION:
        write_bytes_atomically(folder / kept_name(version), (folder / MANIFEST_NAME).read_bytes())


def _read(path: Path, way_out: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}).", way_out) from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: not a JSON object.", way_out)
    return cast("dict[str, Any]", content)


def _json(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)}\n".encode()
