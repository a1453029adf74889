"""One spelling per value: canonical JSON, and fingerprints of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from pydantic import BaseModel


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: keys sorted, no spaces, characters as they are.

    Args:
        value: Plain JSON values and pydantic models, nested as you like.

    Raises:
        TypeError: If a value has no JSON form.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain)


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, as 64 hex digits."""
    # A lone surrogate has no UTF-8 form, but may stand in a JSON file: it must not end the run.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(cast("set[Any]", value))
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")
