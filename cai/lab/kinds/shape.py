"""Rules about the shape of a reply: how many words, how many sentences, a list or none."""

from __future__ import annotations

import random
import re

from cai.lab.kinds.text import EXTRAS, ONES, Kind, Params, ended, parts, word_count

LIST_MARK = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+", re.M)
_MOST_ADDED = 24
"""Words that a reply can grow by before its filling reads like nothing else."""


def _draw_count(rng: random.Random, text: str, *, least: int, most: int) -> dict[str, str]:
    """A count far from the true one on either side: a small model cannot tell 19 words from 20."""
    counts = [max(1, word_count(text)) * factor for factor in (0.35, 0.5, 0.6, 1.5, 2.0, 3.0)]
    return {"n": str(round(rng.choice([n for n in counts if least <= n <= most] or [least])))}


def _draw_most(rng: random.Random, text: str) -> dict[str, str]:
    # Hardly any good reply has fewer than seven words, so that no revision could follow a smaller limit.
    return _draw_count(rng, text, least=7, most=1000)


def _draw_least(rng: random.Random, text: str) -> dict[str, str]:
    return _draw_count(rng, text, least=4, most=max(4, word_count(text)) + _MOST_ADDED)


def _limited(params: Params, text: str, rng: random.Random) -> str | None:
    kept: list[str] = []
    for sentence in parts(text):
        if word_count(" ".join([*kept, sentence])) > int(params["n"]):
            break
        kept.append(sentence)
    return " ".join(kept) or None


def _filled(params: Params, text: str, rng: random.Random) -> str | None:
    for extra in rng.sample(EXTRAS, len(EXTRAS)):
        if word_count(text) >= int(params["n"]):
            return text
        text = f"{ended(text)} {extra}"
    return None


def _overfilled(params: Params, text: str, rng: random.Random) -> str | None:
    """More words than allowed by a margin, if that takes not too many."""
    least = round(1.4 * int(params["n"]))
    return _filled({"n": str(least)}, text, rng) if least - word_count(text) <= _MOST_ADDED else None


def _short_of(params: Params, text: str, rng: random.Random) -> str | None:
    """The first sentences, fewer words than asked for by a margin."""
    return _limited({"n": str(round(0.7 * int(params["n"])))}, text, rng)


def _number(params: Params) -> int:
    return ONES.index(params["n"])


def _draw_sentences(rng: random.Random, text: str) -> dict[str, str]:
    return {"n": rng.choice(["two", "two", "three"])}


def _more_sentences(wanted: int, text: str, rng: random.Random) -> str:
    missing = max(0, wanted - len(parts(text)))
    return " ".join([ended(text), *rng.sample(EXTRAS, missing)])


def _first(count: int, text: str) -> str:
    return " ".join(parts(text)[:count])


def _as_list(params: Params, text: str, rng: random.Random) -> str | None:
    found = [s for s in parts(text) if not LIST_MARK.match(s)]
    if len(found) < 2:
        found = parts(f"{ended(text)} {rng.choice(EXTRAS)}")
    return "\n".join(f"{i}. {s}" for i, s in enumerate(found[:3], 1)) if len(found) > 1 else None


def _as_prose(params: Params, text: str, rng: random.Random) -> str:
    return " ".join(LIST_MARK.sub("", line).strip() for line in text.splitlines() if line.strip())


_LIST = Kind(lambda p, t: LIST_MARK.search(t) is not None, _as_list, _as_prose)
SHAPE_KINDS: dict[str, Kind] = {
    "max_words": Kind(lambda p, t: word_count(t) <= int(p["n"]), _limited, _overfilled, _draw_most),
    "min_words": Kind(lambda p, t: word_count(t) >= int(p["n"]), _filled, _short_of, _draw_least),
    "one_sentence": Kind(
        lambda p, t: len(parts(t)) == 1, lambda p, t, r: _first(1, t), lambda p, t, r: _more_sentences(2, t, r)
    ),
    "min_sentences": Kind(
        lambda p, t: len(parts(t)) >= _number(p),
        lambda p, t, r: _more_sentences(_number(p), t, r),
        lambda p, t, r: _first(_number(p) - 1, t),
        _draw_sentences,
    ),
    "max_sentences": Kind(
        lambda p, t: len(parts(t)) <= _number(p),
        lambda p, t, r: _first(_number(p), t),
        lambda p, t, r: _more_sentences(_number(p) + r.choice([1, 2]), t, r),
        _draw_sentences,
    ),
    "no_list": _LIST.opposite(),
    "list": _LIST,
}
