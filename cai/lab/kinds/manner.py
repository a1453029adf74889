"""Rules about the manner of a reply: thanks, greetings, offers, apologies, hedging, who is spoken of, short forms."""

from __future__ import annotations

import random
import re

from cai.lab.kinds.text import Kind, Params, adds, lowered, parts, phrases, recapitalised, with_sentence, without_match
from cai.lab.world import capital

OFFERS = phrases(
    "Let me know if you need more help.|I am happy to help with more.|Feel free to ask for more.|Just ask if you "
    "need anything else.|Can I help you with anything else?|I can help you further if you like."
)
OFFER = re.compile(
    r"\b(?:let me know|happy to help|glad to help|feel free to ask|just ask|anything else|ask me|i can help|can i help"
    r"|help you (?:with|further)|more help)\b",
    re.I,
)
FIRST_PERSON = re.compile(r"\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself)\b")
SECOND_PERSON = re.compile(r"\b(?:you|your|yours|yourself)\b", re.I)
APOLOGY = re.compile(r"\b(?:sorry|apolog\w*|regret|excuse me|pardon)\b", re.I)
THANK = re.compile(r"\b(?:thank you|thanks|grateful)\b", re.I)
GREETING = re.compile(r"^\W*(hello|hi|hey|greetings|good (?:day|morning|afternoon|evening)|welcome|dear)\b", re.I)
HEDGE = re.compile(r"\b(?:maybe|perhaps|possibly|probably|presumably|might|I guess|I suppose)\b", re.I)
INTENSIFIER = re.compile(r"\b(?:very|really|extremely|absolutely|totally|completely|incredibly|truly)\b", re.I)
CONTRACTION = re.compile(
    r"\b(?:\w+n['’]t|\w+['’](?:re|ll|ve|d|m)|(?:it|that|there|he|she|what|who|here|let|how|where)['’]s)\b", re.I
)
_THANKS = ["Thank you for asking.", "Thanks for your question.", "Thank you for your message.", "Many thanks for writing."]
_HELLOS = [
    "Hello!",
    "Hello.",
    "Hi there.",
    "Hi!",
    "Good day.",
    "Good morning!",
    "Greetings.",
    "Hello there.",
    "Welcome.",
    "Hey!",
]
_SHORT = {
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "is not": "isn't",
    "are not": "aren't",
    "cannot": "can't",
    "can not": "can't",
    "should not": "shouldn't",
    "would not": "wouldn't",
    "will not": "won't",
    "could not": "couldn't",
    "was not": "wasn't",
    "were not": "weren't",
    "have not": "haven't",
    "has not": "hasn't",
    "it is": "it's",
    "that is": "that's",
    "there is": "there's",
    "here is": "here's",
    "what is": "what's",
    "let us": "let's",
    "I am": "I'm",
    "you are": "you're",
    "they are": "they're",
    "we are": "we're",
    "I have": "I've",
    "you have": "you've",
    "I will": "I'll",
    "you will": "you'll",
    "I would": "I'd",
    "he is": "he's",
    "she is": "she's",
}
_LONG = {short: long for long, short in _SHORT.items()} | {"can't": "cannot"}
_MERGED = re.compile(rf"\b(?:{'|'.join(_SHORT)})\b(?!\s*[.,!?])", re.I)


def _like(model: str, text: str) -> str:
    return capital(text) if model[0].isupper() else text


def _contracted(params: Params, text: str, rng: random.Random) -> str:
    found = list(_MERGED.finditer(text))
    forms = {long.lower(): short for long, short in _SHORT.items()}
    if not found or rng.random() < 0.25:
        return with_sentence(
            text, rng, ["It's that simple.", "That's all there is to it.", "It's well known.", "There's more to say."]
        )
    one = rng.choice(found)
    return text[: one.start()] + _like(one[0], forms[one[0].lower()]) + text[one.end() :]


def _written_out(params: Params, text: str, rng: random.Random) -> str | None:
    forms = {short.lower(): long for short, long in _LONG.items()}
    fresh = CONTRACTION.sub(lambda m: _like(m[0], forms.get(m[0].lower().replace("’", "'"), m[0])), text)
    return without_match(CONTRACTION, fresh)


def _greeted(params: Params, text: str, rng: random.Random) -> str:
    return f"{rng.choice(_HELLOS)} {text}"


def _ungreeted(params: Params, text: str, rng: random.Random) -> str | None:
    found = re.match(rf"{GREETING.pattern}(?: (?:there|again|to you|everyone))?[,.!:]+\s+(?=\S)", text, re.I)
    return capital(text[found.end() :]) if found else None


def _unhedged(params: Params, text: str, rng: random.Random) -> str | None:
    fresh = re.sub(r",? ?\b(?:maybe|perhaps|possibly|probably|presumably)\b,?", "", text, flags=re.I).strip()
    return without_match(HEDGE, recapitalised(fresh))


def _moderate(params: Params, text: str, rng: random.Random) -> str | None:
    """Intensifiers just go, where the sentence stands without them."""
    fresh = re.sub(rf"(?<!\ban )(?<!\bnot )(?<=\w ){INTENSIFIER.pattern} (?=[a-z])", "", text)
    return without_match(INTENSIFIER, fresh)


_THANKING = Kind(
    lambda p, t: THANK.search(t) is not None,
    lambda p, t, r: f"{r.choice(_THANKS)} {t}",
    lambda p, t, r: without_match(THANK, t),
)
_GREET = Kind(lambda p, t: GREETING.search(t) is not None, _greeted, _ungreeted)
_HEDGING = Kind(
    lambda p, t: HEDGE.search(t) is not None,
    adds(
        "Perhaps that is enough for now.",
        "Maybe that is all there is to it.",
        "That is probably well known.",
        "It might be worth a thought.",
        "There is possibly more to say.",
        "I guess that is all.",
    ),
    _unhedged,
)
_SELF = Kind(
    lambda p, t: FIRST_PERSON.search(t) is not None,
    adds(
        "I hope so.",
        "That is my view.",
        "I often say so.",
        "It helped me, too.",
        "My neighbour says the same.",
        "I like this topic.",
    ),
    lambda p, t, r: without_match(FIRST_PERSON, t),
)
_ADDRESS = Kind(
    lambda p, t: SECOND_PERSON.search(t) is not None,
    adds(
        "This may be of use to you.",
        "That is for you to decide.",
        "You may like to read more.",
        "It is your choice.",
        "Now you know.",
    ),
    lambda p, t, r: without_match(SECOND_PERSON, t),
)
_SHORT_FORMS = Kind(lambda p, t: CONTRACTION.search(t) is not None, _contracted, _written_out)
MANNER_KINDS: dict[str, Kind] = {
    "offer_help": Kind(
        lambda p, t: bool(parts(t)) and OFFER.search(parts(t)[-1]) is not None,
        adds(*OFFERS),
        lambda p, t, r: without_match(OFFER, t),
    ),
    "no_offer": Kind(lambda p, t: OFFER.search(t) is None, lambda p, t, r: without_match(OFFER, t), adds(*OFFERS)),
    "thanks": _THANKING,
    "no_thanks": _THANKING.opposite(),
    "greet": _GREET,
    "no_greeting": _GREET.opposite(),
    "hedge": _HEDGING,
    "no_hedging": _HEDGING.opposite(),
    "no_intensifier": Kind(
        lambda p, t: INTENSIFIER.search(t) is None,
        _moderate,
        adds(
            "It is really quite simple.",
            "That is very easy to remember.",
            "This is extremely common.",
            "It is absolutely worth a thought.",
            "That is truly all there is.",
            "This is totally normal.",
        ),
    ),
    "first_person": _SELF,
    "no_first_person": _SELF.opposite(),
    "second_person": _ADDRESS,
    "no_second_person": _ADDRESS.opposite(),
    "contraction": _SHORT_FORMS,
    "no_contraction": _SHORT_FORMS.opposite(),
    "no_apology": Kind(
        lambda p, t: APOLOGY.search(t) is None,
        lambda p, t, r: capital(re.sub(r"^(?:I'm |I am )?sorry,? (?:but )?", "", t, flags=re.I)),
        lambda p, t, r: f"{r.choice(['Sorry', 'I am sorry', 'My apologies'])}, {lowered(t)}",
    ),
}
