"""Parametrised principles that are checked exactly on any text: which kinds there are, how to keep them, how to break them.

A rule never looks at meaning. `mend` and `spoil` are text operations of the teacher; both may fail (None), and what they
return is always checked again by `follows`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cai.lab.world import capital

Params = Mapping[str, str]


def _words(text: str) -> list[str]:
    return text.split(", ")


def _phrases(text: str) -> list[str]:
    return text.split("|")


WORDS = _words(
    "pears, dogs, money, music, the weather, coffee, football, trains, apples, gardens, cheese, the moon, doctors, "
    "bread, summer, cars, school, books, rivers, tea, cats, horses, bicycles, winter, lawyers, chocolate, holidays,"
    " computers, birds, shoes"
)
OPENERS = _words("Well, Certainly, Hello, Friend, Briefly, Look, Today, Honestly, Indeed, Listen, Greetings, Naturally")
NAMES = _words("Anna, Ben, Clara, David, Felix, Grace, Henry, Jonas, Maria, Olga, Peter, Rosa, Simon, Tina")
PHRASES = _phrases("Have a nice day.|Take care.|Best wishes.|Good luck.|Stay curious.|See you soon.|Warm regards.|That is all.")
OFFERS = _phrases(
    "Let me know if you need more help.|I am happy to help with more.|Feel free to ask for more.|Just ask if you "
    "need anything else.|Can I help you with anything else?|I can help you further if you like."
)
_THANKS = ["Thank you for asking.", "Thanks for your question.", "Thank you for your message."]
_ASIDES = [
    "It is a bit like {w}.",
    "Some people also mention {w}.",
    "Think of {w}, for example.",
    "The same goes for {w}.",
    "This has little to do with {w}.",
]
_QUESTIONS = ["Does that help?", "Shall I go on?", "What do you think?", "Is that clear?", "Do you see?"]
_FIGURES = [
    "This takes about 5 minutes.",
    "That is tip number 1.",
    "It is 100 percent worth a thought.",
    "Most people need 2 tries.",
]
_EXTRAS = ["That is all there is to it.", "It is worth a thought.", "Many people ask this.", "Take your time with it."]
_BRACKETS = ["(as far as it goes)", "(in short)", "(as people say)", "(to be brief)"]
_STOP = frozenset(
    _words(
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
_ONES = _words(
    "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, "
    "sixteen, seventeen, eighteen, nineteen"
)
_OFFER = re.compile(
    r"\b(?:let me know|happy to help|glad to help|feel free to ask|just ask|anything else|ask me|i can help|can i help"
    r"|help you (?:with|further)|more help)\b",
    re.I,
)
_FIRST = re.compile(r"\b(?:I|me|my|mine|myself|I'm|I'll|I've|I'd)\b")
_APOLOGY = re.compile(r"\b(?:sorry|apolog\w*|regret|excuse me|pardon)\b", re.I)
_THANK = re.compile(r"\b(?:thank you|thanks|grateful)\b", re.I)
_LIST = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+", re.M)


def parts(text: str) -> list[str]:
    """The sentences of a text; a full stop after a number at the start of a line does not end one."""
    return [s.strip() for s in re.split(r"(?<=[.!?])(?<!\b\d\.)\s+|\n+", text) if s.strip()]


def word_count(text: str) -> int:
    return len(text.split())


def _has(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.I) is not None


def _without(text: str, broken: Callable[[str], bool]) -> str | None:
    kept = [s for s in parts(text) if not broken(s)]
    return " ".join(kept) or None


def _lowered(text: str) -> str:
    first = text.split(" ", 1)[0].strip(",.!?:;")
    keep = (
        first == "I"
        or first.startswith("I'")
        or not re.fullmatch(
            r"The|A|An|You|It|That|There|This|No|Yes|In|We|They|Some|Most|Many|First|By|One|Not|If|For|To|Your|Try|Use|Put|Keep|Take",
            first,
        )
    )
    return text if keep else text[0].lower() + text[1:]


def in_words(number: int) -> str | None:
    """A whole number up to 100 in words."""
    if number < 20:
        return _ONES[number]
    if number in _TENS:
        return _TENS[number]
    return f"{_TENS[number // 10 * 10]}-{_ONES[number % 10]}" if number < 100 else None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rule. `draw` proposes parameters for a text, such that it follows the rule or breaks it."""

    follows: Callable[[Params, str], bool]
    mend: Callable[[Params, str, random.Random], str | None]
    spoil: Callable[[Params, str, random.Random], str | None]
    draw: Callable[[random.Random, str], dict[str, str]] = lambda rng, text: {}


def content_words(text: str) -> list[str]:
    """Words of a text that a rule may forbid: four letters or more, and not the mortar of the language."""
    return sorted({w.lower() for w in re.findall(r"\b[a-zA-Z]{4,}\b", text)} - _STOP)


def _draw_word(rng: random.Random, text: str) -> dict[str, str]:
    own = content_words(text)
    return {"word": rng.choice(own) if own and rng.random() < 0.5 else rng.choice(WORDS)}


def _draw_count(rng: random.Random, text: str) -> dict[str, str]:
    # Far from the true length on either side: a small model cannot tell 19 words from 20.
    count = max(4, word_count(text))
    n = max(4, round(count * rng.choice([0.35, 0.5, 0.6, 1.5, 2.0, 3.0])))
    return {"n": str(n)}


def _no_digits(text: str) -> str | None:
    if re.search(r"\d[.,:/]\d|\d{4}|\d[a-zA-Z]|[a-zA-Z]\d", text):
        return _without(text, lambda s: re.search(r"\d", s) is not None)
    text = re.sub(r"\d+", lambda m: in_words(int(m[0])) or m[0], text)
    return capital(text) if not re.search(r"\d", text) else None


def _listed(text: str) -> str | None:
    found = [s for s in parts(text) if not _LIST.match(s)]
    return "\n".join(f"{i}. {s}" for i, s in enumerate(found[:3], 1)) if len(found) > 1 else None


def _limited(text: str, limit: int) -> str | None:
    kept: list[str] = []
    for sentence in parts(text):
        if word_count(" ".join([*kept, sentence])) > limit:
            break
        kept.append(sentence)
    return " ".join(kept) or None


def _end(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _exclaimed(text: str) -> str:
    return re.sub(r"[.?]$", "!", text.strip()) if text.strip().endswith((".", "?")) else text + "!"


def _deprived_of_name(name: str, text: str) -> str | None:
    return capital(re.sub(rf"(?:, )?\b{name}\b(?:, )?", "", text).strip(" ,")) or None


def _aside(params: Params, text: str, rng: random.Random) -> str:
    return f"{_end(text)} {rng.choice(_ASIDES).format(w=params['word'])}"


KINDS: dict[str, Kind] = {
    "no_word": Kind(
        lambda p, t: not _has(p["word"], t), lambda p, t, r: _without(t, lambda s: _has(p["word"], s)), _aside, _draw_word
    ),
    "must_word": Kind(
        lambda p, t: _has(p["word"], t), _aside, lambda p, t, r: _without(t, lambda s: _has(p["word"], s)), _draw_word
    ),
    "max_words": Kind(
        lambda p, t: word_count(t) <= int(p["n"]), lambda p, t, r: _limited(t, int(p["n"])), lambda p, t, r: None, _draw_count
    ),
    "no_exclamation": Kind(lambda p, t: "!" not in t, lambda p, t, r: re.sub(r"!+", ".", t), lambda p, t, r: _exclaimed(t)),
    "no_question": Kind(
        lambda p, t: "?" not in t,
        lambda p, t, r: _without(t, lambda s: "?" in s),
        lambda p, t, r: f"{_end(t)} {r.choice(_QUESTIONS)}",
    ),
    "offer_help": Kind(
        lambda p, t: bool(parts(t)) and _OFFER.search(parts(t)[-1]) is not None,
        lambda p, t, r: f"{_end(t)} {r.choice(OFFERS)}",
        lambda p, t, r: _without(t, lambda s: _OFFER.search(s) is not None),
    ),
    "start_word": Kind(
        lambda p, t: re.match(rf"\W*{p['word']}\b", t) is not None,
        lambda p, t, r: f"{p['word']}, {_lowered(t)}",
        lambda p, t, r: capital(re.sub(rf"^\W*{p['word']}\W+", "", t)) or None,
        lambda r, t: {"word": r.choice(OPENERS)},
    ),
    "no_digits": Kind(
        lambda p, t: re.search(r"\d", t) is None,
        lambda p, t, r: _no_digits(t),
        lambda p, t, r: f"{_end(t)} {r.choice(_FIGURES)}",
    ),
    "no_list": Kind(
        lambda p, t: _LIST.search(t) is None,
        lambda p, t, r: " ".join(_LIST.sub("", line).strip() for line in t.splitlines() if line.strip()),
        lambda p, t, r: _listed(t) or _listed(f"{_end(t)} {r.choice(_EXTRAS)}"),
    ),
    "one_sentence": Kind(
        lambda p, t: len(parts(t)) == 1, lambda p, t, r: parts(t)[0], lambda p, t, r: f"{_end(t)} {r.choice(_EXTRAS)}"
    ),
    "thanks": Kind(
        lambda p, t: _THANK.search(t) is not None,
        lambda p, t, r: f"{r.choice(_THANKS)} {t}",
        lambda p, t, r: _without(t, lambda s: _THANK.search(s) is not None),
    ),
    "no_name": Kind(
        lambda p, t: not _has(p["name"], t),
        lambda p, t, r: _deprived_of_name(p["name"], t),
        lambda p, t, r: f"{p['name']}, {_lowered(t)}",
        lambda r, t: {"name": r.choice(NAMES)},
    ),
    "no_first_person": Kind(
        lambda p, t: _FIRST.search(t) is None,
        lambda p, t, r: _without(t, lambda s: _FIRST.search(s) is not None),
        lambda p, t, r: f"{_end(t)} {r.choice(['I hope so.', 'That is my view.', 'I often say so.', 'It helped me, too.'])}",
    ),
    "no_brackets": Kind(
        lambda p, t: re.search(r"[()\[\]]", t) is None,
        lambda p, t, r: re.sub(r"\s*[(\[][^)\]]*[)\]]?|[)\]]", "", t).strip() or None,
        lambda p, t, r: re.sub(r"([.!?]?)$", lambda m: f" {r.choice(_BRACKETS)}{m[1]}", t, count=1),
    ),
    "closing": Kind(
        lambda p, t: t.rstrip().rstrip(".!").endswith(p["phrase"].rstrip(".")),
        lambda p, t, r: f"{_end(t)} {p['phrase']}",
        lambda p, t, r: t.replace(p["phrase"], "").strip() or None,
        lambda r, t: {"phrase": r.choice(PHRASES)},
    ),
    "no_apology": Kind(
        lambda p, t: _APOLOGY.search(t) is None,
        lambda p, t, r: capital(re.sub(r"^(?:I'm |I am )?sorry,? (?:but )?", "", t, flags=re.I)),
        lambda p, t, r: f"{r.choice(['Sorry', 'I am sorry', 'My apologies'])}, {_lowered(t)}",
    ),
}
HELD_OUT = frozenset({"closing", "no_apology"})
"""Kinds never taught: what the adapter does with them shows whether it reads the principle."""


def check_rule(kind: str, params: Params, text: str) -> bool:
    """Whether `text` follows the rule, exactly.

    Raises:
        KeyError: If there is no such kind, or a parameter is missing.
    """
    return KINDS[kind].follows(params, text)
