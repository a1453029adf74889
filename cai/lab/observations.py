"""What the critique of a rule quotes from a reply: the words that decide, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cai.lab.kinds.manner import (
    ABSOLUTE,
    APOLOGY,
    CONTRACTION,
    EXAMPLE,
    FIRST_PERSON,
    GREETING,
    HEDGE,
    INTENSIFIER,
    OFFER,
    PLEASE,
    PLURAL_SELF,
    PRAISE,
    REASON,
    SECOND_PERSON,
    SMILEY,
    SURPRISE,
    THANK,
    TIME,
    WARNING,
)
from cai.lab.kinds.signs import CAPS, QUOTES
from cai.lab.kinds.text import ONES, has, parts, word_count

_NO_QUOTE = re.escape(QUOTES) + r"\s(\["
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "digit": re.compile(r"\d+"),
    "self": FIRST_PERSON,
    "you": SECOND_PERSON,
    "sorry": APOLOGY,
    "thank": THANK,
    "offer": OFFER,
    "hedge": HEDGE,
    "strong": INTENSIFIER,
    "short": CONTRACTION,
    "please": PLEASE,
    "example": EXAMPLE,
    "warning": WARNING,
    "reason": REASON,
    "absolute": ABSOLUTE,
    "plural": PLURAL_SELF,
    "surprise": SURPRISE,
    "praise": PRAISE,
    "smiley": SMILEY,
    "time": TIME,
    "caps": CAPS,
    "exclaimed": re.compile(rf"[^{_NO_QUOTE}]*!"),
    "comma": re.compile(rf"[^{_NO_QUOTE}]*,"),
    "colon": re.compile(rf"[^{_NO_QUOTE}]*:"),
    "bracket": re.compile(r"[(\[](?:\S+\s+){0,3}?[^\s()\[\]]*[)\]]|[()\[\]]"),
}
"""Each is quoted by its first match in the reply."""


def observed(text: str, params: Mapping[str, str] | None = None) -> dict[str, str]:
    """What may be quoted from a reply by name; "" where there is no such thing in it.

    Long replies are counted in round numbers, as a reader would guess them. `params` of the rule decide how many words "start"
    and "end" have (as many as the phrase asked for) and, of the words asked for, what is "missing" and which comes first as
    "present".
    """
    found = {name: match[0] if (match := pattern.search(text)) else "" for name, pattern in _PATTERNS.items()}
    count, words = word_count(text), text.split()
    asked_for = params.get("phrase", params.get("word", "")).split() if params else []
    opening = words[: len(asked_for) if params and "phrase" in params else 3]
    ending = words[-max(1, len(asked_for)) :]
    asked = [params[key] for key in ("word", "other") if params and key in params]
    greeting = GREETING.search(text)
    return found | {
        "count": str(count) if count <= 10 else f"about {5 * round(count / 5)}",
        "sentences": _sentences(len(parts(text))),
        "first": re.sub(r"^\W+|\W+$", "", words[0]) if words else "",
        "start": re.sub(r"^\W+|\W+$", "", " ".join(opening)),
        "end": re.sub(r"^\W+|\W+$", "", " ".join(ending)),
        "hello": greeting[1] if greeting else "",
        "question": _question(text),
        "quoted": _quoted(text),
        "missing": " and ".join(f'"{word}"' for word in asked if not has(word, text)),
        "present": next((word for word in asked if has(word, text)), ""),
    }


def _sentences(count: int) -> str:
    return "one sentence" if count == 1 else f"{ONES[count] if count < len(ONES) else count} sentences"


def _question(text: str) -> str:
    """The last words of the first question: what stands before the mark is what shows it."""
    asked = re.search(r"([^.!?\n]*)\?", text)
    return " ".join(re.sub(rf"[{QUOTES}]", "", asked[0]).split()[-4:]) if asked else ""


def _quoted(text: str) -> str:
    """The first words in quotation marks."""
    inside = re.search(rf"[{QUOTES}]([^{QUOTES}]*)", text)
    return " ".join(inside[1].split()[:3]) if inside else ""
