"""What a kind of rule is, and the text operations that kinds are made of."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cai.lab.world import capital

Params = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rule. `draw` proposes parameters for a text, such that it follows the rule or breaks it.

    `mend` and `spoil` may fail (None), and may miss: what they return has to be checked by `follows`.
    """

    follows: Callable[[Params, str], bool]
    mend: Callable[[Params, str, random.Random], str | None]
    spoil: Callable[[Params, str, random.Random], str | None]
    draw: Callable[[random.Random, str], dict[str, str]] = lambda rng, text: {}

    def opposite(self) -> Kind:
        """The kind that asks for exactly what this one forbids."""
        return Kind(lambda p, t: not self.follows(p, t), self.spoil, self.mend, self.draw)


def listed(text: str) -> list[str]:
    """The entries of "a, b, c"."""
    return text.split(", ")


def phrases(text: str) -> list[str]:
    """The entries of "A b.|C d."."""
    return text.split("|")


EXTRAS = phrases(
    "That is all there is to it.|It is worth a thought.|Many people ask this.|Take your time with it."
    "|This comes up now and then.|There is more to read about it in any library.|Nothing else matters much here."
    "|A friend of mine once asked the same thing.|Some things are simpler than they look.|Not everybody knows that."
    "|It took people a long time to find out.|Children often ask this.|The rest is a matter of taste."
    "|It has been so for many years.|One could say more about it.|That is good to remember.|Books tell the same story."
    "|Few people give it a second thought.|It comes in handy at times.|The details are of no great weight."
    "|It was the same last year.|Nobody has to learn that by heart.|This is a point that comes up at school."
    "|Whoever hears it once will not forget it.|A look at a picture helps.|The same holds elsewhere."
)
"""Sentences that say nothing, for replies that have to grow."""
_STOP = frozenset(
    listed(
        "about, after, again, also, because, been, being, both, can't, could, does, don't, each, even, every, from, "
        "have, here, i'm, into, it's, just, like, many, more, most, much, only, other, over, same, some, such, than, "
        "that, that's, their, them, then, there, these, they, this, those, very, well, were, what, when, where, which, "
        "while, will, with, would, you're, your"
    )
)
_TENS = {
    20: "twenty",
    30: "thirty",
    40: "forty",
    50: "fifty",
    60: "sixty",
    70: "seventy",
    80: "eighty",
    90: "ninety",
    100: "a hundred",
}
ONES = listed(
    "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, "
    "sixteen, seventeen, eighteen, nineteen"
)
_PLAIN_START = re.compile(
    r"The|A|An|You|It|That|There|This|No|Yes|In|We|They|Some|Most|Many|First|By|One|Not|If|For|To|Your|Try|Use|Put|Keep|Take"
    r"|Nobody|Please|When|What|As|Is|Do|Make|Ask|So|And|But|Of|My|These|Those|All|Each|Every"
)


_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!^\d\.)(?<!\s\s\d\.)(?<![.!?:]\s\d\.)\s+|\n+", re.M)


def parts(text: str) -> list[str]:
    """The sentences of a text; the full stop after the number of a list's point does not end one."""
    return [s.strip() for s in _SENTENCE_END.split(text) if s.strip()]


def word_count(text: str) -> int:
    return len(text.split())


def in_words(number: int) -> str | None:
    """A whole number up to 100 in words."""
    if number < 20:
        return ONES[number]
    if number in _TENS:
        return _TENS[number]
    return f"{_TENS[number // 10 * 10]}-{ONES[number % 10]}" if number < 100 else None


def content_words(text: str) -> list[str]:
    """Words of a text that a rule may forbid: four letters or more, and not the mortar of the language."""
    return sorted({w.lower() for w in re.findall(r"\b[a-zA-Z]{4,}\b", text)} - _STOP)


def has(word: str, text: str) -> bool:
    """Whether a word or phrase occurs, whole, in any case."""
    # The plain search comes first because most words are not there, and every word would be a pattern to compile.
    return word.lower() in text.lower() and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.I) is not None


def without(text: str, broken: Callable[[str], bool]) -> str | None:
    """The sentences that are not `broken`; None when none is left."""
    kept = [s for s in parts(text) if not broken(s)]
    return " ".join(kept) or None


def without_match(pattern: re.Pattern[str], text: str) -> str | None:
    return without(text, lambda s: pattern.search(s) is not None)


def lowered(text: str) -> str:
    """A text as it reads after a comma: its first letter small, unless the word may be a name."""
    first = text.split(" ", 1)[0].strip(",.!?:;")
    return text[0].lower() + text[1:] if _PLAIN_START.fullmatch(first) else text


def recapitalised(text: str) -> str:
    """Capital letters where sentences start."""
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda m: m[1] + m[2].upper(), text)


def ended(text: str) -> str:
    text = text.rstrip()
    return text if re.search(r"[.!?][\"”)]?$", text) else text + "."


def with_sentence(text: str, rng: random.Random, sentences: Sequence[str], **slots: str) -> str:
    """A text and one of the sentences after it, `{slots}` filled in."""
    return f"{ended(text)} {rng.choice(sentences).format(**slots)}"


def adds(*sentences: str) -> Callable[[Params, str, random.Random], str]:
    """A `mend` or `spoil` that says one of `sentences` after the reply."""
    return lambda p, t, r: with_sentence(t, r, sentences, **p)


def starts(phrase: str, text: str) -> bool:
    """Whether a text starts with a phrase, quotation marks and the like aside; case matters."""
    return re.match(rf"\W*{re.escape(phrase)}(?![\w'’])", text) is not None


def deprived_of_start(text: str, phrase: str) -> str | None:
    """A text without its first words, where they stand apart from the rest."""
    found = re.match(rf"\W*{re.escape(phrase)}[,.!:]+\s+(?=\S)", text)
    return capital(text[found.end() :]) if found else None
