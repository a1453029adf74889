"""Text that goes round: words said before, sentences in a loop, runs of emoji."""

from __future__ import annotations

import re

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.sentences import normal, sentences
from cai.data.filters.settings import FilterRules

NGRAM = 4
"""Words that make up the unit of repetition."""
LONGEST_LOOP = 4
"""Sentences that may make up one turn of a loop."""
LOOP_WORDS = 4
"""Below this, one turn may be said again: "No. No. No." is a way to say no."""
LOOP_COPIES = 10
"""A line of fewer words may be said this often: tables and verses have such."""

_STUTTER = re.compile(r"(?=\S)(.{1,12}?\S?)\1{7,}", re.DOTALL)
_PICTURE = "[\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]"
_EMOJI = rf"{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]*(?:\u200d{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]*)*"
_ONE_EMOJI = re.compile(_EMOJI)
_EMOJI_RUN = re.compile(rf"{_EMOJI}(?:[ \t]?{_EMOJI})*")
_ASKS_FOR_EMOJI = re.compile(rf"emoji|emoticon|smiley|{_PICTURE}", re.IGNORECASE)


def repeated_share(text: str) -> float:
    """Share, in [0, 1], of the words that lie in a 4-gram said before in the same text; 0 below 12 words."""
    return _repeated(text)[0]


def _stutter(text: str) -> tuple[int, int] | None:
    """Where up to 13 characters follow themselves seven times or more (`ha ha ha …`, a run of emoji); ruled lines may."""
    for found in _STUTTER.finditer(text):
        if any(c.isalpha() or ord(c) > 0x2FFF for c in found.group(1)):
            return found.span()
    return None


def _repeated(text: str) -> tuple[float, tuple[int, int] | None]:
    """The repeated share, and where the first repetition lies."""
    words = text.lower().split()
    if len(words) < 3 * NGRAM:
        return 0.0, None
    seen: set[tuple[str, ...]] = set()
    repeated = [False] * len(words)
    for start in range(len(words) - NGRAM + 1):
        gram = tuple(words[start : start + NGRAM])
        if gram in seen:
            repeated[start : start + NGRAM] = [True] * NGRAM
        seen.add(gram)
    if True not in repeated:
        return 0.0, None
    first = repeated.index(True)
    last = repeated.index(False, first) if False in repeated[first:] else len(repeated)
    places = [found.span() for found in re.finditer(r"\S+", text)]
    span = (places[first][0], places[last - 1][1]) if len(places) == len(words) else None
    return sum(repeated) / len(words), span


def _repetition(reply: Reply, rules: FilterRules) -> Finding | None:
    limit = rules.max_repeated_share
    if limit is None:
        return None
    if (span := _stutter(reply.text)) is not None:
        return Finding("repetition", "the same few characters, eight times or more", span)
    share, span = _repeated(reply.text)
    if share <= limit:
        return None
    return Finding("repetition", "words that were said before", span, score=share, limit=limit)


def _loops(reply: Reply, rules: FilterRules) -> Finding | None:
    """A block of up to four sentences that stands more than `max_loops` times in a row."""
    places = list(sentences(reply.text))
    if len(places) <= rules.max_loops:
        return None
    said = [normal(reply.text[start:end]) for start, end in places]
    sizes = [one.count(" ") + 1 if one else 0 for one in said]
    for period in range(1, LONGEST_LOOP + 1):
        run = 0
        for n in range(period, len(said)):
            run = run + 1 if said[n] == said[n - period] else 0
            copies, last = run // period + 1, n == len(said) - 1 or said[n + 1] != said[n + 1 - period]
            if not last or copies <= rules.max_loops:
                continue
            turn = sum(sizes[n - period + 1 : n + 1])
            if turn >= LOOP_WORDS or (turn and copies >= LOOP_COPIES):
                span = places[n - run - period + 1][0], places[n][1]
                return Finding("loops", f"the same {turn} words again and again", span, score=copies, limit=rules.max_loops)
    return None


def _emoji_runs(reply: Reply, rules: FilterRules) -> Finding | None:
    for found in _EMOJI_RUN.finditer(reply.text):
        count = sum(1 for _ in _ONE_EMOJI.finditer(reply.text, *found.span()))
        if count > rules.max_emoji_run:
            if any(_ASKS_FOR_EMOJI.search(message.content) for message in reply.prompt):
                return None
            return Finding("emoji_runs", f"{count} emoji in a row", found.span(), score=count, limit=rules.max_emoji_run)
    return None


REPETITION = Rule("repetition", "Much of the reply repeats itself.", limits=("max_repeated_share",), look=_repetition)
LOOPS = Rule("loops", "The same sentences follow themselves over and over.", limits=("max_loops",), look=_loops)
EMOJI_RUNS = Rule("emoji_runs", "A run of emoji that nobody asked for.", limits=("max_emoji_run",), look=_emoji_runs)
