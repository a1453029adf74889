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
PLEASE = re.compile(r"\bplease\b", re.I)
EXAMPLE = re.compile(r"\b(?:for example|for instance|such as|e\.g\.)", re.I)
WARNING = re.compile(r"\b(?:careful|caution|beware|watch out|warning|take care|danger(?:ous)?)\b", re.I)
REASON = re.compile(r"\b(?:because|since|therefore|that is why|for this reason)\b", re.I)
ABSOLUTE = re.compile(r"\b(?:always|never|everybody|everyone|nobody|all people|without exception)\b", re.I)
PLURAL_SELF = re.compile(r"\b(?:we|us|our|ours|ourselves)\b", re.I)
SURPRISE = re.compile(r"\b(?:oh|wow|ah|oops|aha|goodness|hurrah|ooh)\b", re.I)
PRAISE = re.compile(r"\b(?:great|excellent|splendid|wonderful|well done|superb|fantastic)\b", re.I)
SMILEY = re.compile(r"[:;]-?[)D]")
TIME = re.compile(r"\b(?:today|tomorrow|yesterday|tonight|this week|next week|right now)\b", re.I)
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


def _marked(pattern: re.Pattern[str], *sentences: str, first: bool = False) -> Kind:
    """A kind that asks for what a pattern finds: mended by a sentence that has it, spoilt by leaving out those that do."""

    def add(params: Params, text: str, rng: random.Random) -> str:
        return f"{rng.choice(sentences)} {text}" if first else with_sentence(text, rng, sentences)

    return Kind(lambda p, t: pattern.search(t) is not None, add, lambda p, t, r: without_match(pattern, t))


_PLEASE = _marked(
    PLEASE, "Please read it twice.", "Please keep that in mind.", "Please pass it on.", "Please take a note of it."
)
_EXAMPLE = _marked(
    EXAMPLE,
    "One finds it in books, for example.",
    "It is taught in many places, for instance at school.",
    "There are others, such as those in the atlas.",
    "Take my aunt, for example.",
)
_WARNING = _marked(WARNING, "Be careful with it.", "Some caution is in order.", "Beware of mistakes.", "Watch out for errors.")
_REASON = _marked(
    REASON,
    "People ask because it is useful.",
    "It matters, since many rely on it.",
    "That is why it is in the books.",
    "For this reason it is often asked.",
)
_ABSOLUTE = _marked(
    ABSOLUTE,
    "It was always so.",
    "That never changes.",
    "Everybody says the same.",
    "It holds without exception.",
    "Nobody doubts that.",
)
_PLURAL = _marked(
    PLURAL_SELF, "We checked that.", "That is our view.", "It helps all of us.", "We see it the same way.", "So our team says."
)
_SURPRISE = _marked(
    SURPRISE, "Oh, that one.", "Wow, what a topic.", "Ah, I see.", "Goodness, where to begin.", "Aha.", first=True
)
_PRAISE = _marked(
    PRAISE, "A great topic.", "An excellent point to raise.", "Well done.", "That is a splendid thing to ask.", "Superb."
)
_SMILEY = _marked(SMILEY, "Have fun :)", "All the best ;)", "So it is :-)", "There you are :D")
_TIME = _marked(TIME, "It is the same today.", "Ask again tomorrow.", "I heard it yesterday.", "That is all for right now.")
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
    "please": _PLEASE,
    "no_please": _PLEASE.opposite(),
    "example": _EXAMPLE,
    "no_example": _EXAMPLE.opposite(),
    "warning": _WARNING,
    "no_warning": _WARNING.opposite(),
    "reason": _REASON,
    "no_reason": _REASON.opposite(),
    "absolute": _ABSOLUTE,
    "no_absolute": _ABSOLUTE.opposite(),
    "plural_self": _PLURAL,
    "no_plural_self": _PLURAL.opposite(),
    "surprise": _SURPRISE,
    "no_surprise": _SURPRISE.opposite(),
    "praise": _PRAISE,
    "no_praise": _PRAISE.opposite(),
    "smiley": _SMILEY,
    "no_smiley": _SMILEY.opposite(),
    "time_word": _TIME,
    "no_time_word": _TIME.opposite(),
    "no_apology": Kind(
        lambda p, t: APOLOGY.search(t) is None,
        lambda p, t, r: capital(re.sub(r"^(?:I'm |I am )?sorry,? (?:but )?", "", t, flags=re.I)),
        lambda p, t, r: f"{r.choice(['Sorry', 'I am sorry', 'My apologies'])}, {lowered(t)}",
    ),
}
