"""Parametrised principles that are checked exactly on any text: which kinds there are, how to keep them, how to break them.

A rule never looks at meaning. Most kinds come in opposite pairs (thank, do not thank) about the same facts of a reply, so that
the verdict can only come from reading the rule.
"""

from __future__ import annotations

from cai.lab.kinds.manner import MANNER_KINDS
from cai.lab.kinds.shape import SHAPE_KINDS
from cai.lab.kinds.signs import SIGN_KINDS
from cai.lab.kinds.text import Kind, Params, content_words, in_words, parts, word_count
from cai.lab.kinds.words import WORD_KINDS

__all__ = ["HELD_OUT", "KINDS", "Kind", "Params", "check_rule", "content_words", "in_words", "parts", "word_count"]

KINDS: dict[str, Kind] = {**WORD_KINDS, **SIGN_KINDS, **SHAPE_KINDS, **MANNER_KINDS}
HELD_OUT = frozenset({"closing", "no_apology"})
"""Kinds never taught: what the adapter does with them shows whether it reads the principle."""


def check_rule(kind: str, params: Params, text: str) -> bool:
    """Whether `text` follows the rule, exactly.

    Raises:
        KeyError: If there is no such kind, or a parameter is missing.
    """
    return KINDS[kind].follows(params, text)
