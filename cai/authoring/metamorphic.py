"""Metamorphic relations: changes to a test that must not change its verdict.

A principle's own tests ask whether the labelling model gives the verdict its author expects. These ask, without anything being
expected, whether it gives the same verdict when what should not matter is changed. (Relations between outputs instead of
expected outputs: Chen, Cheung and Yiu 1998, arXiv 2002.12543; as tests of language models: CheckList, arXiv 2005.04118.)

Pure: texts and judgements in, texts and outcomes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from cai.authoring.judgements import Answer, Judgement, Question
from cai.engines.base import RequestFailure
from cai.records import Method

BOTH: tuple[Method, ...] = ("pointwise", "letters")
ALL: tuple[Method, ...] = ("pointwise", "letters", "yes_no", "contrast")
POLITE_PHRASE = "Thank you very much for your kind message."
PADDING: tuple[str, ...] = (
    "Every sentence of a text is made of words, and every word of letters.",
    "Some things in the world are larger than others.",
    "What came before is earlier than what came after.",
    "A thing is what it is, and it is no other thing.",
    "One and the same thing can have two names.",
    "Every day has a morning and an evening.",
    "A page has two sides.",
    "Words have letters.",
)
"""True, and about nothing: whoever counts words is impressed, whoever reads is not."""


class Kept(StrEnum):
    """What became of a relation."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNDECIDED = "undecided"
    """The verdict is gone: the margin is below the threshold, or by letters the judge names one place in both orders."""
    NOT_APPLICABLE = "not applicable"
    """The test has no verdict to keep (it is undecided, or by letters position-biased), or there is nothing to change in it."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Relation:
    """One change and what must hold across it.

    Args:
        name: Short; names it in tables.
        statement: What must hold.
        source: Where the fault it looks for is described.
        methods: The methods of judging that it can be broken by.
        change: The changed question, or None where there is nothing to change. Without it, the relation speaks of the two
            orders of the test itself, which are judged anyway.
    """

    name: str
    statement: str
    source: str
    methods: tuple[Method, ...]
    change: Callable[[Question], Question | None] | None


@dataclass(frozen=True, slots=True)
class Check:
    """A relation, tried on one test. `answer` is that of the changed question, `note` says why there is no verdict on it."""

    relation: Relation
    outcome: Kept
    answer: Answer | None = None
    note: str = ""


def polite(question: Question) -> Question:
    """The worse reply, and thanks after it."""
    return replace(question, worse=f"{question.worse} {POLITE_PHRASE}")


def padded(question: Question) -> Question | None:
    """The worse reply, with true sentences about nothing after it until it is as long as the better one.

    It never gets longer than that, and falls short by at most the shortest sentence and the space before it. None if no
    sentence fits: then it is as long already.
    """
    text, unused = question.worse, list(PADDING)
    while fitting := [each for each in PADDING if len(text) + 1 + len(each) <= len(question.better)]:
        if not set(fitting) & set(unused):
            unused = list(PADDING)
        longest = next(each for each in fitting if each in unused)
        unused.remove(longest)
        text = f"{text} {longest}"
    return None if text == question.worse else replace(question, worse=text)


def _relabelled(first: str, second: str) -> Relation:
    return Relation(
        name=f"labels {first}/{second}",
        statement=f"The verdict stays the same when the replies are called {first} and {second} instead of A and B.",
        source="arXiv 2309.03882",
        methods=("letters",),
        change=lambda question: replace(question, labels=(first, second)),
    )


SWAPPED = Relation(
    name="swapped",
    statement="The margin of A over B changes its sign when the two replies change places.",
    source="arXiv 2306.05685",
    methods=("letters",),  # a pointwise verdict sees one reply at a time, so it cannot know a place
    change=None,
)

RELATIONS: tuple[Relation, ...] = (
    SWAPPED,
    _relabelled("1", "2"),
    _relabelled("X", "Y"),
    Relation(
        name="polite worse",
        statement="The verdict stays the same when the worse reply ends with a word of thanks.",
        source="arXiv 2410.02736",
        methods=ALL,
        change=polite,
    ),
    Relation(
        name="padded worse",
        statement="The verdict stays the same when sentences without content make the worse reply as long as the better one.",
        source="arXiv 2306.05685, 2310.10076",
        methods=ALL,
        change=padded,
    ),
)


def same_slot(judgement: Judgement, min_margin_nats: float) -> bool:
    """letters: whether the judge named the same place in both orders, and meant it in at least one."""
    first, second = judgement.parts_nats
    return first * second < 0 and max(abs(first), abs(second)) >= min_margin_nats


def position_biased(answer: Answer, method: Method, min_margin_nats: float) -> bool:
    """Whether it was judged by letters, and `same_slot` holds."""
    return method == "letters" and not isinstance(answer.outcome, RequestFailure) and same_slot(answer.outcome, min_margin_nats)


def verdict(answer: Answer, method: Method, min_margin_nats: float) -> int:
    """1: `better`, −1: `worse`, 0: neither.

    By letters, a judge that names one place in both orders says nothing of the replies, whatever is left of its margin.
    """
    return 0 if position_biased(answer, method, min_margin_nats) else answer.preferred(min_margin_nats)


def check_swap(source: Answer, min_margin_nats: float) -> Check:
    """`SWAPPED`, read from the two orders of one comparison."""
    if isinstance(source.outcome, RequestFailure):
        return Check(SWAPPED, Kept.NOT_APPLICABLE, note="the test itself failed to be judged")
    if same_slot(source.outcome, min_margin_nats):
        return Check(SWAPPED, Kept.BROKEN, source)
    first, second = source.outcome.parts_nats
    decided = first * second > 0 and max(abs(first), abs(second)) >= min_margin_nats
    return Check(SWAPPED, Kept.HOLDS if decided else Kept.UNDECIDED, source)


def check_change(relation: Relation, method: Method, source: Answer, changed: Answer, min_margin_nats: float) -> Check:
    """Whether a change kept the verdict of its source. Where the source has none, nothing can be said: not applicable."""
    if isinstance(changed.outcome, RequestFailure):
        return Check(relation, Kept.ERROR, changed, f"{changed.outcome.cause}: {changed.outcome.detail}")
    before, after = (verdict(each, method, min_margin_nats) for each in (source, changed))
    if before == 0:
        biased = position_biased(source, method, min_margin_nats)
        note = f"the test itself {'is position-biased' if biased else 'has no verdict'}"
        return Check(relation, Kept.NOT_APPLICABLE, changed, note)
    if after == 0:
        biased = position_biased(changed, method, min_margin_nats)
        return Check(relation, Kept.UNDECIDED, changed, "position-biased after the change" if biased else "")
    return Check(relation, Kept.HOLDS if after == before else Kept.BROKEN, changed)
