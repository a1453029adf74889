"""Text for a terminal. Loads nothing, so that every command may use it."""

from __future__ import annotations


def visible(text: str) -> str:
    """Text with control characters made visible, so that it cannot steer a terminal; line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
