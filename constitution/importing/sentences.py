"""Which sentence of a prose section is its rule: the one that most plainly says what the assistant is to do. English only.

What the document calls the assistant is found by counting of whom it says "should", "must" or "we want … to".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from constitution.importing.outlines import Block, Section

MAX_RULE_CHARS = 1500
"""A list longer than this is not taken along with the sentence above it."""

_LONG = 320
_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(]?[A-ZÀ-Þ0-9])")
_MODAL = r"(?:should|must|shall|ought to|has to|can never|will never|will always|never|always)"
_WHO = re.compile(rf"\b([^\W\d_]{{1,40}})[’'s]*\s+{_MODAL}\b", re.IGNORECASE)
_ASSISTANTS = frozenset(
    {"agent", "ai", "answer", "answers", "assistant", "it", "model", "models", "reply", "replies", "response", "you"}
)
_OTHERS = frozenset(
    re.findall(
        r"\w+",
        """
    also and as but companies employees he humans i nobody not one operators or people principals she so that there these
    they this those users we what which who
    """,
    )
)
_WANTED = re.compile(r"\b(?:want|expect|ask|like) (?P<who>[^\W\d_]{1,40})(?: \w+)? to\b", re.IGNORECASE)
_DEMANDED = re.compile(r"\b(?:should|must)\b")
_OURS = re.compile(r"\b(?:we|our|us|I)\b", re.IGNORECASE)
_COMMAND = re.compile(
    r"(?:(?:Always|Never|Do not|Don[’']t|Please) \w+|(?:Admit|Answer|Ask|Avoid|Be|Care|Check|Choose|Consider|Correct|Decline|"
    r"Explain|Follow|Give|Help|Keep|Leave|Let|Make|Name|Offer|Point|Prefer|Protect|Put|Refuse|Remember|Respect|Say|Share|Show|Speak|Stay|"
    r"Take|Tell|Treat|Use|Write)\b)"
)
_LEANS = re.compile(
    r"(?:Although|And|Because|But|Despite|Even|For example|For instance|Given|Here|However|Indeed|Instead|Moreover|Of course|"
    r"Rather|Similarly|Since|So|That said|Then|Therefore|This|Though|Thus|Yet)\b"
)
"""How a sentence begins that cannot stand without the one before it."""


def assistant_names(sections: Iterable[Section]) -> frozenset[str]:
    """Who the document says it to: the usual words, and those of whom it often says that they should or are wanted to."""
    counts: Counter[str] = Counter()
    for section in sections:
        counts.update(found[1].lower() for found in _WHO.finditer(section.text))
        counts.update(found["who"].lower() for found in _WANTED.finditer(section.text))
    often = max(2, sum(counts.values()) // 10)
    return _ASSISTANTS | {word for word, count in counts.items() if count >= often and word not in _OTHERS}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, and the line on which its paragraph or item begins."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class SectionRules:
    """What a section asks for: most plainly in `rule` ("" when in no sentence), and besides in `others`."""

    rule: str
    others: Sequence[Sentence] = ()


def rules_of(section: Section, names: frozenset[str]) -> SectionRules:
    """The section's rule, with the list that a closing colon leads up to; and whatever else in it asks for something."""
    who = "|".join(sorted(map(re.escape, names)))
    asked = re.compile(rf"(?P<before>.*?)\b(?:{who})(?:[’']s \w+)?(?: \w+)? {_MODAL}\b", re.IGNORECASE)
    scored = [(_score(each.text, asked, names), each) for each in sentences(section.blocks)]
    best = max((score for score, _ in scored), default=0)
    if best <= 0:
        return SectionRules("")
    rule = next(each for score, each in scored if score == best)
    items = (Sentence(item.line, item.plain) for item in section.items if item.plain and item.plain not in rule.text)
    scored += [(_score(each.text, asked, names), each) for each in items]
    return SectionRules(rule.text, [each for score, each in scored if score > 0 and each.text != rule.text])


def sentences(blocks: Sequence[Block]) -> Iterator[Sentence]:
    """The sentences of the paragraphs among `blocks`; one that ends in a colon takes the list below it along."""
    for block, below in zip(blocks, [*blocks[1:], None], strict=True):
        if block.kind != "paragraph":
            continue
        *complete, last = _END.split(block.plain)
        yield from (Sentence(block.line, each) for each in complete if each)
        if last:
            yield Sentence(block.line, _with_list(last, below))


def _with_list(sentence: str, below: Block | None) -> str:
    if not sentence.endswith(":") or below is None or not below.items:
        return sentence
    longer = "\n".join([sentence, *(f"- {item.plain}" for item in below.items)])
    return longer if len(longer) <= MAX_RULE_CHARS else sentence


def _score(sentence: str, asked: re.Pattern[str], names: frozenset[str]) -> int:
    """How plainly a sentence asks; 0 or less when it does not."""
    head = sentence.partition("\n")[0]
    if head.endswith("?"):
        return 0
    found = asked.match(head)
    wanted = _WANTED.search(head)
    score = 0
    if _COMMAND.match(head):
        score = 6
    elif found:
        score = 6 if len(found["before"]) <= 4 else 4
    elif wanted and wanted["who"].lower() in names:
        score = 5
    elif _DEMANDED.search(head) and not _OURS.search(head):
        score = 3
    if score:
        score += 2 * sentence.count("\n- ", 0, 200) > 0
        score -= 2 * bool(_LEANS.match(head)) + (len(head) > _LONG) + (head.endswith(":") and "\n" not in sentence)
    return score
