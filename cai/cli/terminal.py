"""Text for a terminal. Loads nothing, so that every command may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_FILES = 140
"""Columns of a table that goes into a file or a pipe, where nothing needs to be squeezed."""


def visible(text: str) -> str:
    """Text with control characters made visible, so that it cannot steer a terminal; line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def tables(width_of_files: int = WIDTH_OF_FILES) -> Console:
    """A console for tables: as wide as the terminal, or `width_of_files` columns where there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=width_of_files)
