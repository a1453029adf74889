"""What of a manifest is a matter of one machine: paths and addresses, which others are not to see.

Splits a tree of JSON values into what can be shown to anybody and what was left out, and puts the two together again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias, cast

Key: TypeAlias = "str | int"
Trail: TypeAlias = tuple[Key, ...]

_PATH = re.compile(r"(?P<kind>scripted:|folder )?(?P<path>(?:[/~]|\.\.(?:[/\\]|$)|[A-Za-z]:[/\\]|\\\\).*)", re.DOTALL)
"""An absolute path, one from somebody's home, or one that leads out of the working directory."""
_ADDRESS = re.compile(r"(?P<kind>(?:server )?[A-Za-z][A-Za-z0-9+.-]*://).+", re.DOTALL)
_PROSE = frozenset({"system", "showcase", "stop"})
"""Settings that hold words for a model, which may begin as a path does: `/no_think`."""
_PLACES_OF_TEXTS = "source"
"""Of a constitution, only this may name a file; all else in it is text that was written to be read."""


def without_places(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A manifest without paths and addresses, and these by their JSON pointer (RFC 6901).

    Of a path only its last part stays, of an address only its scheme.
    """
    places: dict[str, str] = {}

    def shown(value: Any, trail: Trail) -> Any:
        if isinstance(value, Mapping):
            return {str(key): shown(below, (*trail, str(key))) for key, below in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, list):
            return [shown(below, (*trail, place)) for place, below in enumerate(cast("list[Any]", value))]
        if not isinstance(value, str) or _is_prose(trail) or (rest := _shown(value)) == value:
            return value
        places[_pointer(trail)] = value
        return rest

    return shown(dict(tree), ()), places


def with_places(tree: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """What `without_places` split, as it was. A pointer that leads nowhere any more is passed over."""

    def whole(value: Any, trail: Trail) -> Any:
        if isinstance(value, Mapping):
            return {str(key): whole(below, (*trail, str(key))) for key, below in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, list):
            return [whole(below, (*trail, place)) for place, below in enumerate(cast("list[Any]", value))]
        return places.get(_pointer(trail), value) if isinstance(value, str) else value

    return whole(dict(tree), ())


def public_name(name: str) -> str:
    """A name as it may be shown: a hub id as it is, of a path its last part, of an address its scheme."""
    return _shown(name)


def _shown(value: str) -> str:
    if address := _ADDRESS.fullmatch(value):
        return f"{address['kind']}…"
    if (found := _PATH.fullmatch(value)) is None:
        return value
    path = found["path"]
    pure = PureWindowsPath(path) if re.match(r"[A-Za-z]:|\\\\", path) else PurePosixPath(path)
    return f"{found['kind'] or ''}{pure.name if pure.name not in ('', '..') else '…'}"


def _is_prose(trail: Trail) -> bool:
    if trail[0] == "constitution":
        return _PLACES_OF_TEXTS not in trail
    return any(key in _PROSE for key in trail)


def _pointer(trail: Trail) -> str:
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in trail)
