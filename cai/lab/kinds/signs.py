"""Rules about signs: punctuation, quotation marks, brackets, digits, capital letters."""

from __future__ import annotations

import random
import re

from cai.lab.kinds.text import (
    Kind,
    Params,
    adds,
    content_words,
    has,
    in_words,
    lowered,
    recapitalised,
    with_sentence,
    without,
    without_match,
)
from cai.lab.kinds.words import WORDS
from cai.lab.world import capital

QUOTES = '"“”'
CAPS = re.compile(r"\b[A-Z]{2,}\b")
_DIGIT = re.compile(r"\d")
_QUESTION = re.compile(r"\?")
_ASKS = adds("Does that help?", "Shall I go on?", "What do you think?", "Is that clear?", "Do you see?", "Why do you ask?")
_FIGURES = adds(
    "This takes about 5 minutes.",
    "That is tip number 1.",
    "It is 100 percent worth a thought.",
    "Most people need 2 tries.",
    "There are 3 books about it.",
    "About 70 people asked today.",
)
_BRACKETS = ["(as far as it goes)", "(in short)", "(as people say)", "(to be brief)", "(more or less)", "(so to speak)"]
_QUOTED_ASIDES = ['It is a bit like "{word}".', 'Some people also mention "{word}".', 'Think of the word "{word}".']
_COMMA_OPENERS = ["Well", "In short", "As far as I know", "Simply put", "All in all"]
_COLON_OPENERS = ["In short", "The answer", "To be brief", "Here is the answer", "What to know", "Briefly"]


def _no_digits(params: Params, text: str, rng: random.Random) -> str | None:
    if re.search(r"\d[.,:/]\d|\d{4}|\d[a-zA-Z]|[a-zA-Z]\d", text):
        return without_match(_DIGIT, text)
    text = re.sub(r"\d+", lambda m: in_words(int(m[0])) or m[0], text)
    return capital(text) if not _DIGIT.search(text) else None


def _exclaimed(params: Params, text: str, rng: random.Random) -> str:
    """One full stop, anywhere, becomes an exclamation mark."""
    stops = [m.start() for m in re.finditer(r"(?<!\d)\.(?=\s|$)", text)]
    if not stops:
        return (
            f"{text.rstrip()}!" if not text.rstrip().endswith("?") else with_sentence(text, rng, ["So it is!", "There you go!"])
        )
    at = rng.choice(stops)
    return f"{text[:at]}!{text[at + 1 :]}"


def _calmed(params: Params, text: str, rng: random.Random) -> str:
    return re.sub(r"!+", ".", re.sub(r"!*\?!+", "?", text))


def _bracketed(params: Params, text: str, rng: random.Random) -> str:
    return re.sub(r"([.!?]?)$", lambda m: f" {rng.choice(_BRACKETS)}{m[1]}", text, count=1)


def _unbracketed(params: Params, text: str, rng: random.Random) -> str | None:
    return re.sub(r"\s*[(\[][^)\]]*[)\]]?|[)\]]", "", text).strip() or None


def _in_quotes(word: str) -> re.Pattern[str]:
    return re.compile(rf"[{QUOTES}]({re.escape(word)})([.,!?]?)[{QUOTES}]", re.I)


def _quote(word: str, text: str, rng: random.Random) -> str:
    if has(word, text):
        return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda m: f'"{m[0]}"', text, count=1, flags=re.I)
    return with_sentence(text, rng, _QUOTED_ASIDES, word=word)


def _quote_any(params: Params, text: str, rng: random.Random) -> str:
    return _quote(rng.choice(content_words(text) or WORDS), text, rng)


def _unquoted(params: Params, text: str, rng: random.Random) -> str:
    return re.sub(rf"[{QUOTES}]", "", text)


def _draw_quoted(rng: random.Random, text: str) -> dict[str, str]:
    inside = re.findall(rf"[{QUOTES}](\w+)[{QUOTES}]", text)
    own = inside if inside and rng.random() < 0.6 else content_words(text)
    return {"word": rng.choice(own) if own and rng.random() < 0.8 else rng.choice(WORDS)}


def _no_commas(params: Params, text: str, rng: random.Random) -> str:
    """The comma of "Yes, it is." becomes a full stop; other commas just go."""
    text = re.sub(r"^(\w+), (?=\w)", r"\1. ", text)
    return recapitalised(re.sub(r"\s*,(?!\s)", "", re.sub(r"\s*,\s+", " ", text)))


def _with_comma(params: Params, text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{rng.choice(_COMMA_OPENERS)}, {lowered(text)}"
    return with_sentence(
        text, rng, ["That is, in short, the answer.", "Yes, so it is.", "It is simple, after all.", "There it is, then."]
    )


def _no_colon(params: Params, text: str, rng: random.Random) -> str | None:
    if re.search(r":\S", text):
        return without(text, lambda s: ":" in s)
    text = re.sub(r"^[^:.!?\n]{1,30}:\s+(?=\w)", "", text)
    return recapitalised(capital(re.sub(r":(?=\s*(?:\n|$))", ".", text).replace(":", ",")))


def _with_colon(params: Params, text: str, rng: random.Random) -> str:
    return f"{rng.choice(_COLON_OPENERS)}: {lowered(text)}"


def _shouted(params: Params, text: str, rng: random.Random) -> str:
    small = [w for w in content_words(text) if re.search(rf"\b{w}\b", text)]
    if not small:
        return with_sentence(text, rng, ["It is THAT simple.", "This is worth a LONG look.", "There is MORE to say."])
    return re.sub(rf"\b{rng.choice(small)}\b", lambda m: m[0].upper(), text, count=1)


def _unshouted(params: Params, text: str, rng: random.Random) -> str | None:
    """Long words in capitals become small; a sentence with a short one, which may be an abbreviation, goes."""
    text = recapitalised(re.sub(r"\b[A-Z]{4,}\b", lambda m: m[0].lower(), text))
    return without_match(CAPS, text)


_EXCLAMATION = Kind(lambda p, t: "!" in t, _exclaimed, _calmed)
_ASK_QUESTION = Kind(lambda p, t: "?" in t, _ASKS, lambda p, t, r: without_match(_QUESTION, t))
_DIGITS = Kind(lambda p, t: _DIGIT.search(t) is not None, _FIGURES, _no_digits)
_HAS_BRACKETS = Kind(lambda p, t: re.search(r"[()\[\]]", t) is not None, _bracketed, _unbracketed)
_HAS_CAPS = Kind(lambda p, t: CAPS.search(t) is not None, _shouted, _unshouted)
SIGN_KINDS: dict[str, Kind] = {
    "no_exclamation": _EXCLAMATION.opposite(),
    "exclamation": _EXCLAMATION,
    "no_question": _ASK_QUESTION.opposite(),
    "ask_question": _ASK_QUESTION,
    "no_digits": _DIGITS.opposite(),
    "digits": _DIGITS,
    "no_brackets": _HAS_BRACKETS.opposite(),
    "brackets": _HAS_BRACKETS,
    "no_quotes": Kind(lambda p, t: re.search(rf"[{QUOTES}]", t) is None, _unquoted, _quote_any),
    "quote_word": Kind(
        lambda p, t: _in_quotes(p["word"]).search(t) is not None,
        lambda p, t, r: _quote(p["word"], t, r),
        lambda p, t, r: _in_quotes(p["word"]).sub(r"\1\2", t),
        _draw_quoted,
    ),
    "no_commas": Kind(lambda p, t: "," not in t, _no_commas, _with_comma),
    "no_colon": Kind(lambda p, t: ":" not in t, _no_colon, _with_colon),
    "no_caps": _HAS_CAPS.opposite(),
    "caps": _HAS_CAPS,
}
