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
    "gold, clocks, rain, salt, islands, paper, windows, kings, ladders, oranges, pirates, robots, violins, deserts, "
    "tigers, spoons, lamps, forests, the wind, tractors, butter, marbles, pillows, castles, dragons, umbrellas, rabbits, "
    "onions, planets, ferries, elephants, taxes, mirrors, blankets, pepper, violets, the circus, penguins, baskets, "
    "trumpets, lemons, turtles, carpets, engines, hats, spiders, coins, harbours, dentists, parrots, hammers, ice, "
    "elections, tomatoes, lightning, owls, puppets, fountains, satellites, mushrooms, sailors, curtains, volcanoes, "
    "trousers, sugar, maps, ghosts, buttons, bells, camels, ropes, skates, jam, towers, wool, poets, caves, ducks"
)
OPENERS = listed(
    "Well, Certainly, Hello, Friend, Briefly, Look, Today, Honestly, Indeed, Listen, Greetings, Naturally, Frankly, "
    "Basically, Generally, Clearly, Now, Seriously, Right, Interesting, Surely, Roughly, Luckily, Sadly, Usually, "
    "Personally, Officially, Strictly, Finally, Sure, Fine, Understood, Absolutely, Gladly, Attention, Answer, Note, "
    "Simply, Truly, Often, Here, Then, Perhaps, Neighbour, Reader, Dear, Fact, Summary, Quickly"
)
NAMES = listed(
    "Anna, Ben, Clara, David, Felix, Grace, Henry, Jonas, Maria, Olga, Peter, Rosa, Simon, Tina, Bruno, Doris, Emil, "
    "Frida, Hugo, Irene, Karl, Laura, Oscar, Vera, Adam, Bella, Conrad, Dora, Edgar, Fiona, Gustav, Hanna, Ivan, Julia, "
    "Kevin, Lena, Martin, Nora, Otto, Paula, Quentin, Rita, Stefan, Thea, Ulla, Walter, Xenia, Yannick, Zoe"
)
ENDINGS = phrases("Have a nice day.|Take care.|Best wishes.|Good luck.|Stay curious.|See you soon.|Warm regards.|That is all.")
OPENINGS = phrases(
    "Good to hear from you.|Let us take a look.|Here is my answer.|A short reply from me.|Let me think about that."
    "|Happy to help."
    "|Glad that this came up.|One moment, please.|Here we go.|Let us see.|Good question to ponder:|To put it simply:"
    "|A few words on this:|From what I know:|My short answer:|Let us begin.|Nice to meet you.|In a nutshell:"
    "|You have come to the right place.|This is the help desk.|First things first:|Welcome aboard.|Off we go.|It is a pleasure."
    "|Your question has been read.|Lights on:|From the desk of the editor:|A note before we start:|Ready when you are."
    "|The library is open.|Speaking for the team:|Here comes the answer.|Ask and you shall hear:|With all due care:"
    "|Greetings from the north.|As a friend would say:|The facts are these.|On this fine day:|Answer number one:"
    "|Short and sweet:|Much has been written about this.|Tea is served.|Here is what we have:|No time to lose."
)
PHRASES = phrases(
    "in short|as far as I know|by the way|in other words|for example|to be honest|on the whole|simply put"
    "|so to speak|in my view"
    "|all in all|in general|for what it is worth|in the end|after all|at first sight|as luck would have it|at any rate"
    "|believe it or not|come to think of it|first and foremost|for the time being|from time to time|in a manner of speaking"
    "|in all fairness|in plain words|in theory|last but not least|like it or not|little by little|more often than not"
    "|needless to say|now and then|of all things|on second thoughts|one way or another|sooner or later|strictly speaking"
    "|to cut a long story short|to say the least|truth be told|under the circumstances|up to a point|when all is said"
    "|with a bit of luck|without a doubt|year after year|step by step|by and large|as a rule"
)
_OF_SENTENCES = (
    listed(
        "The bus, Our office, The train, The library, The shop on the corner, The museum, The night ferry, The kitchen, "
        "Our garden, The phone line, The market, The post office"
    ),
    listed(
        "opens at nine, closes at noon, is open on Mondays, moves to a new house soon, is closed for lunch, costs nothing, "
        "needs more light, has a new door, is near the bridge, smells of paint, will be empty tomorrow, belongs to all of us"
    ),
)
"""Any of the first with any of the second is a sentence that nobody knows by heart."""
_PLACED = (
    listed("beyond, behind, beneath, across, under, near, past, above, beside, around"),
    listed("green, old, quiet, narrow, last, blue, wooden, crooked, sunny, forgotten, second, frozen"),
    listed("hill, bridge, tower, orchard, staircase, canal, chimney, lantern, meadow, gate, stable, market stall"),
)
"""Any three of these, with an article, are a phrase that nobody knows by heart: "beyond the green hill"."""
_SIGNED = (
    listed(
        "The night desk, Your neighbours, The team, Your assistant, The editors, A friend, The night porter, Your helper, "
        "The front desk, The crew, Your guide, The writers"
    ),
    listed(
        "from the library, at the harbour, of the museum, on the third floor, at the station, from the old mill, "
        "at your service, in the north, of this house, by the lake, from room nine, on duty"
    ),
)
"""Any of the first with any of the second signs a reply."""
_LAST = [
    "So much for {word}.",
    "The same goes for {word}.",
    "It is a bit like {word}.",
    "Think of {word}.",
    "Some prefer {word}.",
]
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
    if own and rng.random() < 0.5:
        return {"phrase": rng.choice(own)}
    return {"phrase": rng.choice(PHRASES) if rng.random() < 0.5 else _placed(rng)}


def _placed(rng: random.Random) -> str:
    where, which, what = (rng.choice(each) for each in _PLACED)
    return f"{where} the {which} {what}"


def _draw_opening(rng: random.Random, text: str) -> dict[str, str]:
    """A phrase from the list, or one that is made up on the spot, which can only be copied."""
    made = (_draw_sentence(rng, text)["phrase"], f"{capital(_placed(rng))}:", f"News from {rng.choice(NAMES)}:")
    return {"phrase": rng.choice(OPENINGS) if rng.random() < 0.4 else rng.choice(made)}


def _draw_name(rng: random.Random, text: str) -> dict[str, str]:
    """A name that the reply does not have yet, since one in it may be somebody else's than the user's."""
    return {"name": rng.choice([name for name in NAMES if not has(name, text)])}


def _draw_sentence(rng: random.Random, text: str) -> dict[str, str]:
    subject, rest = (rng.choice(each) for each in _OF_SENTENCES)
    return {"phrase": f"{subject} {rest}."}


def _draw_signature(rng: random.Random, text: str) -> dict[str, str]:
    who, where = (rng.choice(each) for each in _SIGNED)
    return {"phrase": f"{rng.choice([who, rng.choice(NAMES)])} {where}"}


def _draw_last(rng: random.Random, text: str) -> dict[str, str]:
    own = re.search(r"([A-Za-z]{3,})\W*$", text)
    return {"word": own[1].lower() if own and rng.random() < 0.5 else rng.choice(WORDS)}


def _with_sentence(params: Params, text: str, rng: random.Random) -> str:
    return f"{ended(text)} {params['phrase']}" if rng.random() < 0.6 else f"{params['phrase']} {text}"


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


def _ends(phrase: str, text: str) -> bool:
    """Whether a text ends with a phrase, whole and in any case, punctuation aside."""
    return re.search(rf"(?<!\w){re.escape(phrase.rstrip('.'))}\W*$", text, re.I) is not None


def _without_end(params: Params, text: str, rng: random.Random) -> str | None:
    """A reply that ends without the phrase: it stands elsewhere in it, or nowhere."""
    phrase = params["phrase"]
    rest = re.sub(rf"\s*{re.escape(phrase)}\W*$", "", text).strip()
    if not rest:
        return None
    return rest if rng.random() < 0.5 else f"{ended(phrase)} {rest}"


def _otherwise_signed(params: Params, text: str, rng: random.Random) -> str | None:
    """Signed by somebody else, or by nobody."""
    rest = re.sub(rf"\s*{re.escape(params['phrase'])}\W*$", "", text).strip()
    if not rest or rng.random() < 0.5:
        return rest or None
    return f"{ended(rest)} {_draw_signature(rng, text)['phrase']}"


_MUST_WORD = Kind(lambda p, t: has(p["word"], t), _aside, lambda p, t, r: without(t, lambda s: has(p["word"], s)), _draw_word)
_START_WORD = Kind(
    lambda p, t: starts(p["word"], t),
    _opened,
    lambda p, t, r: deprived_of_start(t, p["word"]),
    lambda r, t: {"word": r.choice(OPENERS)},
)
_MUST_PHRASE = Kind(lambda p, t: has(p["phrase"], t), _with_phrase, _without_phrase, _draw_phrase)
_MUST_SENTENCE = Kind(
    lambda p, t: has(p["phrase"].rstrip("."), t),
    _with_sentence,
    lambda p, t, r: without(t, lambda s: has(p["phrase"].rstrip("."), s)),
    _draw_sentence,
)
_USE_NAME = Kind(lambda p, t: has(p["name"], t), _called, _deprived_of_name, _draw_name)
_SIGNATURE = Kind(
    lambda p, t: _ends(p["phrase"], t), lambda p, t, r: f"{ended(t)} {p['phrase']}", _otherwise_signed, _draw_signature
)
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
        _draw_opening,
    ),
    "must_phrase": _MUST_PHRASE,
    "no_phrase": _MUST_PHRASE.opposite(),
    "must_sentence": _MUST_SENTENCE,
    "no_sentence": _MUST_SENTENCE.opposite(),
    "no_name": _USE_NAME.opposite(),
    "use_name": _USE_NAME,
    "signature": _SIGNATURE,
    "no_signature": _SIGNATURE.opposite(),
    "postscript": Kind(
        lambda p, t: _ends(p["phrase"], t),
        lambda p, t, r: f"{ended(t)} {p['phrase']}",
        _without_end,
        lambda r, t: {"phrase": f"P.S. {_draw_sentence(r, t)['phrase']}"},
    ),
    "last_word": Kind(
        lambda p, t: _ends(p["word"], t),
        lambda p, t, r: with_sentence(t, r, _LAST, **p),
        lambda p, t, r: without(t, lambda s: _ends(p["word"], s)),
        _draw_last,
    ),
    "closing": Kind(
        lambda p, t: t.rstrip().rstrip(".!").endswith(p["phrase"].rstrip(".")),
        lambda p, t, r: f"{ended(t)} {p['phrase']}",
        lambda p, t, r: t.replace(p["phrase"], "").strip() or None,
        lambda r, t: {"phrase": r.choice(ENDINGS)},
    ),
}
