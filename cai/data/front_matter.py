"""The front matter of a card, as the hub and `datasets` read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
LARGEST = "10M<n<100M"
LICENCE = r"^[a-z0-9][a-z0-9.+-]*$"
"""What the hub's names of licences look like."""
LANGUAGE = r"^[a-z]{2,3}$"
"""ISO 639-1, -2 and -3."""


def front_matter(
    name: str, files: Mapping[str, Mapping[str, str]], rows: int, licence: str | None, languages: Sequence[str]
) -> str:
    """YAML between two lines of dashes.

    Args:
        name: Of the data set, for people.
        files: Configuration → part → file, or a pattern for several.
        rows: In all of them together.
        licence: As the hub names it (`apache-2.0`); None: nothing is said.
        languages: Codes (`en`).
    """
    content: dict[str, Any] = {"pretty_name": " ".join(name.split())}
    if licence:
        content["license"] = licence
    if languages:
        content["language"] = list(languages)
    content["tags"] = ["constitutional-ai", "rlaif", "synthetic"]
    if files:
        content["task_categories"] = ["text-generation"]
        content["size_categories"] = [size_category(rows)]
        content["configs"] = [
            {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in parts.items()]}
            for name, parts in files.items()
        ]
    return as_front_matter(content)


def as_front_matter(content: Mapping[str, Any]) -> str:
    """Any content between two lines of dashes."""
    return f"---\n{yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1_000)}---"


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    return next((name for below, name in SIZES if rows < below), LARGEST)
