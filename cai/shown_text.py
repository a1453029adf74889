"""Text that people did not choose, made safe to look at. Knows no HTML and no terminal."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = {"\u200c", "\u200d"}
"""Part of ordinary writing in many scripts, and of emoji."""
_ORDINARY = re.compile(r"[\t\n -~\u00a0-\u00ac\u00ae-\u05ff\u2010-\u2027\u2030-\u205f\u2070-\ud7ff]*")
"""Text of these signs alone is visible as it is. Others may be, too."""


def visible(text: str) -> str:
    """The text with signs that cannot be seen made visible: control, bidi override, zero-width and tag characters, surrogates.

    Line feeds, tabs and the joiners of scripts and emoji stay; a carriage return before a line feed goes.
    """
    if is_ordinary(text):
        return text
    return "".join(_visible(sign) for sign in text.replace("\r\n", "\n"))


def is_ordinary(text: str) -> bool:
    """Whether nothing in a text needs to be made visible; False says only that somebody must look."""
    return _ORDINARY.fullmatch(text) is not None


def _visible(sign: str) -> str:
    code = ord(sign)
    if sign in "\n\t" or sign in _JOINERS or unicodedata.category(sign) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return sign
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ␀ for NUL …
    return "␡" if code == 0x7F else f"⟦U+{code:04X}⟧"
