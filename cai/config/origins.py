"""Where each configuration value comes from: default < file < environment < flag.

Turns the environment (`CAI_POLICY__NAME=…`) and `--set policy.name=…` flags into the same nested mapping as the YAML file,
and remembers the origin of every leaf. Values from the environment and flags are read as YAML scalars or lists, so `0.1` is
a number and `[a, b]` a list, as in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import yaml

from cai.errors import ConfigError

ENVIRONMENT_PREFIX = "CAI_"
NOT_SETTINGS = frozenset({"CAI_CACHE", "CAI_SHARED"})
"""Variables with the prefix that steer the machine, not a run."""

Path: TypeAlias = tuple[str, ...]


@dataclass
class Values:
    """Nested values and, for every leaf, the words that say where it came from."""

    tree: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[Path, str] = field(default_factory=dict[Path, str])

    def put(self, path: Path, value: object, origin: str) -> None:
        """Set one value, replacing what was there.

        Raises:
            ConfigError: If a part of the path already holds something that is not a section.
        """
        node = self.tree
        for depth, key in enumerate(path[:-1], start=1):
            below: Any = node.get(key)
            if below is None:
                below = node[key] = dict[str, Any]()
            if not isinstance(below, dict):
                raise ConfigError(f"{origin}: `{'.'.join(path[:depth])}` is a value, not a section")
            node = cast("dict[str, Any]", below)
        node[path[-1]] = value
        for known in [p for p in self.origins if p[: len(path)] == path or path[: len(p)] == p]:
            del self.origins[known]
        for leaf in _leaves(value, path):
            self.origins[leaf] = origin


def _leaves(value: object, path: Path) -> Iterable[Path]:
    if isinstance(value, dict) and value:
        for key, below in cast("dict[Any, Any]", value).items():
            yield from _leaves(below, (*path, str(key)))
    else:
        yield path


def put_environment(values: Values, environment: Mapping[str, str], sections: frozenset[str]) -> list[ConfigError]:
    """Apply `CAI_SECTION__KEY=value` variables. Others with the prefix are reported, since a typing error would be ignored."""
    problems: list[ConfigError] = []
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        path = tuple(name[len(ENVIRONMENT_PREFIX) :].lower().split("__"))
        if path[0] not in sections:
            problems.append(
                ConfigError(
                    f"environment variable {name}: there is no setting `{path[0]}`",
                    f"settings are {', '.join(sorted(sections))}; write a section's key as {ENVIRONMENT_PREFIX}SECTION__KEY",
                )
            )
            continue
        problems.extend(_put_text(values, path, environment[name], f"environment {name}"))
    return problems


def put_flags(values: Values, flags: Iterable[str]) -> list[ConfigError]:
    """Apply `--set section.key=value` flags."""
    problems: list[ConfigError] = []
    for flag in flags:
        name, separator, text = flag.partition("=")
        path = tuple(part.strip() for part in name.split("."))
        if not separator or not all(path):
            problems.append(ConfigError(f"--set {flag}: not of the form section.key=value", "for example --set dpo.beta=0.2"))
            continue
        problems.extend(_put_text(values, path, text, f"--set {name}"))
    return problems


def _put_text(values: Values, path: Path, text: str, origin: str) -> list[ConfigError]:
    try:
        values.put(path, yaml.safe_load(text), origin)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return [ConfigError(f"{origin}: {text!r} is not a YAML value ({str(error).splitlines()[0]})", "quote it")]
    except ConfigError as error:
        return [error]
    return []
