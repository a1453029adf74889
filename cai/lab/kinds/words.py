"""Rules about words and phrases: forbidden ones, required ones, first ones, names."""

from __future__ import annotations

import random
import re

from cai.lab.kinds.text import (
    Kind,
    Params,
    content_words,
    deprived_of_start,
    ended,
    has,
    listed,
    lowered,
    phrases,
    starts,
    with_sentence,
    without,
)
from cai.lab.world import capital

WORDS = listed(
    "pears, dogs, money, music, the weather, coffee, football, trains, apples, gardens, cheese, the moon, doctors, "
    "bread, summer, cars, school, books, rivers, tea, cats, horses, bicycles, winter, lawyers, chocolate, holidays,"
    " computers, birds, shoes, boats, soup, snow, mountains, letters, candles, bridges, honey, the sea, teachers, "
    "gold, clocks, rain, salt, islands, paper, windows, kings"
)
OPENERS = listed(
    "Well, Certainly, Hello, Friend, Briefly, Look, Today, Honestly, Indeed, Listen, Greetings, Naturally, Frankly, "
    "Basically, Generally, Clearly, Now, Seriously, Right, Interesting"
)
NAMES = listed(
    "Anna, Ben, Clara, David, Felix, Grace, Henry, Jonas, Maria, Olga, Peter, Rosa, Simon, Tina, Bruno, Doris, Emil, "
    "Frida, Hugo, Irene, Karl, Laura, Oscar, Vera"
)
ENDINGS = phrases("Have a nice day.|Take care.|Best wishes.|Good luck.|Stay curious.|See you soon.|Warm regards.|That is all.")
OPENINGS = phrases(
    "Good to hear from you.|Let us take a look.|Here is my answer.|A short reply from me.|Let me think about that."
    "|Happy to help."
    "|Glad that this came up.|One moment, please.|Here we go.|Let us see.|Good question to ponder:|To put it simply:"
    "|A few words on this:|From what I know:|My short answer:|Let us begin.|Nice to meet you.|In a nutshell:"
)
PHRASES = phrases(
    "in short|as far as I know|by the way|in other words|for example|to be honest|on the whole|simply put"
    "|so to speak|in my view"
    "|all in all|in general|for what it is worth|in the end|after all|at first sight"
)
_ASIDES = [
    "It is a bit like {word}.",
    "Some people also mention {word}.",
    "Think of {word}, for example.",
    "The same goes for {word}.",
    "This has little to do with {word}.",
]
_PAIRED_ASIDES = [
    "Think of {word} and {other}.",
    "It is a bit like {word} or {other}.",
    "Some people also mention {other} and {word}.",
    "This has little to do with {word} or {other}.",
]
_TAILS = ["That is, {phrase}, the answer.", "It is worth a thought, {phrase}.", "This is, {phrase}, well known."]
_CALLS = ["I hope that helps, {name}.", "That is all, {name}.", "So it is, {name}."]


def _draw_word(rng: random.Random, text: str) -> dict[str, str]:
    own = content_words(text)
    return {"word": rng.choice(own) if own and rng.random() < 0.5 else rng.choice(WORDS)}


def _draw_two(rng: random.Random, text: str) -> dict[str, str]:
    word = _draw_word(rng, text)["word"]
    while (other := _draw_word(rng, text)["word"]) == word:
        pass
    return {"word": word, "other": other}


def _draw_first(rng: random.Random, text: str) -> dict[str, str]:
    own = re.match(r"\W*([A-Za-z]+(?:['’][a-z]+)?)", text)
    return {"word": own[1] if own and rng.random() < 0.5 else rng.choice(OPENERS)}


def _draw_phrase(rng: random.Random, text: str) -> dict[str, str]:
    own = [phrase for phrase in PHRASES if has(phrase, text)]
    return {"phrase": rng.choice(own) if own and rng.random() < 0.5 else rng.choice(PHRASES)}


def _draw_name(rng: random.Random, text: str) -> dict[str, str]:
    """A name that the reply does not have yet, since one in it may be somebody else's than the user's."""
    return {"name": rng.choice([name for name in NAMES if not has(name, text)])}


def _aside(params: Params, text: str, rng: random.Random) -> str:
    return with_sentence(text, rng, _ASIDES, **params)


def _both(params: Params, text: str, rng: random.Random) -> str:
    lacking = [word for word in params.values() if not has(word, text)]
    if len(lacking) == 1:
        return _aside({"word": lacking[0]}, text, rng)
    return with_sentence(text, rng, _PAIRED_ASIDES, **params)


def _lacking_one(params: Params, text: str, rng: random.Random) -> str | None:
    word = rng.choice(list(params.values()))
    return without(text, lambda s: has(word, s))


def _one_or_both(params: Params, text: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        return with_sentence(text, rng, _PAIRED_ASIDES, **params)
    return _aside({"word": rng.choice(list(params.values()))}, text, rng)


def _opened(params: Params, text: str, rng: random.Random) -> str:
    return f"{params['word']}, {lowered(text)}"


def _opened_otherwise(params: Params, text: str, rng: random.Random) -> str:
    rest = deprived_of_start(text, params["word"])
    return rest or f"{rng.choice([w for w in OPENERS if w != params['word']])}, {lowered(text)}"


def _with_phrase(params: Params, text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{capital(params['phrase'])}, {lowered(text)}"
    return with_sentence(text, rng, _TAILS, **params)


def _without_phrase(params: Params, text: str, rng: random.Random) -> str | None:
    phrase = params["phrase"]
    fresh = deprived_of_start(text, capital(phrase)) or re.sub(rf",? \b{phrase}\b(?:,|(?=[.!?]))", "", text)
    return fresh if not has(phrase, fresh) else without(text, lambda s: has(phrase, s))


def _called(params: Params, text: str, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return f"{params['name']}, {lowered(text)}"
    return with_sentence(text, rng, _CALLS, **params)


def _deprived_of_name(params: Params, text: str, rng: random.Random) -> str | None:
    return capital(re.sub(rf"(?:, )?\b{params['name']}\b(?:, )?", "", text).strip(" ,")) or None


_MUST_WORD = Kind(lambda p, t: has(p["word"], t), _aside, lambda p, t, r: without(t, lambda s: has(p["word"], s)), _draw_word)
_START_WORD = Kind(
    lambda p, t: starts(p["word"], t),
    _opened,
    lambda p, t, r: deprived_of_start(t, p["word"]),
    lambda r, t: {"word": r.choice(OPENERS)},
)
_MUST_PHRASE = Kind(lambda p, t: has(p["phrase"], t), _with_phrase, _without_phrase, _draw_phrase)
_USE_NAME = Kind(lambda p, t: has(p["name"], t), _called, _deprived_of_name, _draw_name)
WORD_KINDS: dict[str, Kind] = {
    "no_word": _MUST_WORD.opposite(),
    "must_word": _MUST_WORD,
    "must_both": Kind(lambda p, t: has(p["word"], t) and has(p["other"], t), _both, _lacking_one, _draw_two),
    "neither": Kind(
        lambda p, t: not has(p["word"], t) and not has(p["other"], t),
        lambda p, t, r: without(t, lambda s: has(p["word"], s) or has(p["other"], s)),
        _one_or_both,
        _draw_two,
    ),
    "start_word": _START_WORD,
    "no_start_word": Kind(lambda p, t: not starts(p["word"], t), _opened_otherwise, _opened, _draw_first),
    "opening": Kind(
        lambda p, t: starts(p["phrase"].rstrip(".:"), t),
        lambda p, t, r: f"{p['phrase']} {t}",
        lambda p, t, r: deprived_of_start(t, p["phrase"].rstrip(".:")),
        lambda r, t: {"phrase": r.choice(OPENINGS)},
    ),
    "must_phrase": _MUST_PHRASE,
    "no_phrase": _MUST_PHRASE.opposite(),
    "no_name": _USE_NAME.opposite(),
    "use_name": _USE_NAME,
    "closing": Kind(
        lambda p, t: t.rstrip().rstrip(".!").endswith(p["phrase"].rstrip(".")),
        lambda p, t, r: f"{ended(t)} {p['phrase']}",
        lambda p, t, r: t.replace(p["phrase"], "").strip() or None,
        lambda r, t: {"phrase": r.choice(ENDINGS)},
    ),
}
