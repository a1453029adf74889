"""Rules that keep spoilt text out of the data sets. Each names itself; what it takes out is counted under that name.

Pure functions of text: no model. The signs are of English; in other languages only the rules of form apply.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cai.records import LedgerEntry, Outcome, RevisionRecord

NGRAM = 4
"""Words that make up the unit of repetition."""

_ASKED = r"(?:revised|rewritten|re-?written|improved|updated|corrected|edited|new|better|modified|alternative)"
_TEXT = r"(?:reply|response|answer|version|revision|rewrite|text|message)"
_OPENING = re.compile(
    rf"""\A\W*(?:(?:sure|certainly|of\ course|okay|ok|absolutely|yes)\b[\s,.!:–—-]*)?(?:
        (?:here|below)(?:'s|’s|\ is|\ are|\ comes)?\ (?:an?|the|my|your|one)?\ ?
          (?:\w+\ ){{0,2}}?{_ASKED}\ (?:\w+\ ){{0,2}}?{_TEXT}\b
        | (?:here|below)(?:'s|’s|\ is)\ (?:a|the|my)\ (?:revision|rewrite)\b
        | (?:the|my)?\ ?{_ASKED}\ {_TEXT}\s*:
        | (?:revision|rewrite|revised|rewritten)\s*:
        | i(?:'ve|’ve|\ have)?\ (?:revised|rewritten|rewrote|rephrased|reworded|corrected|edited)\ (?:the|my|this|that)\b
        | (?:the|this|my)\ (?:revised|rewritten)\ {_TEXT}\b
        | (?:this|the)\ (?:revision|rewrite)\b
        | as\ (?:you\ )?(?:asked|requested)\b[^.]{{0,40}}\b(?:revis|rewr|rephras)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSING = re.compile(
    rf"\b(?:this|the|my) (?:{_ASKED} {_TEXT}|revision|rewrite)\b[^.]*"
    r"\b(?:principle|critique|original|avoids|removes|follows)\b[^.]*\W*\Z",
    re.IGNORECASE,
)
_CRITIQUE = re.compile(
    r"""\A\W*(?:
        (?:fault|critique|critique\s?request|principle|revision\s?request)\s*:
        | nothing\ to\ change\b
        | (?:the|this|that|my|your)\ (?:(?:last|previous|assistant['’]s|model['’]s|above)\ )?
          (?:reply|response|draft|answer(?!\ (?:is|was|would)\b))
          \ (?:is|was|does|did|should|could|fails|follows|violates|breaks|accepts|agrees|refuses|contains|needs|would|meets)\b
        | the\ assistant\ (?:is|was|does|did|should|could|fails|accepts|agrees)\b
    )
    | ^\W*(?:fault|critique\s?request|revision\s?request)\s*:""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_STUTTER = re.compile(r"(?=\S)(.{1,12}?\S?)\1{7,}", re.DOTALL)


class FilterRules(BaseModel):
    """Which finished items are left out of the data sets, and why. Every rule can be turned off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meta_talk: Annotated[
        bool, Field(description='Talk about the revision in it ("Here is the revised reply:"), or all in quotes.')
    ] = True
    critique_talk: Annotated[bool, Field(description="A critique where a revision was asked.")] = True
    empty: Annotated[bool, Field(description="No letter or digit in the final reply.")] = True
    unchanged: Annotated[bool, Field(description="A revision that repeats the draft (but for space and case).")] = True
    cut_short: Annotated[bool, Field(description="The final reply was cut at the token limit.")] = True
    max_repeated_share: Annotated[
        float | None,
        Field(
            gt=0.0, le=1.0, description="Most of the reply's words that may lie in 4-grams it has said before; null: no limit."
        ),
    ] = 0.3
    max_growth: Annotated[
        float | None,
        Field(gt=1.0, description="Longest revision, in lengths of the draft, once it has 60 words or more; null: no limit."),
    ] = 8.0
    min_share_kept: Annotated[
        float | None,
        Field(
            gt=0.0,
            lt=1.0,
            description="Shortest revision, as a share of the draft's words; null: no limit (refusals are short).",
        ),
    ] = None


def violated_rule(rules: FilterRules, draft: str, revision: str | None, *, cut: bool = False) -> str | None:
    """The first rule that an item breaks, by name, or None.

    Args:
        rules: What is looked for.
        draft: The first answer.
        revision: The newest revision; None when the draft was kept.
        cut: Whether the final reply (revision, else draft) was cut at the token limit.
    """
    final = draft if revision is None else revision
    if rules.empty and not any(c.isalnum() for c in final):
        return "empty"
    if rules.cut_short and cut:
        return "cut_short"
    if rules.max_repeated_share is not None and (stutters(final) or repeated_share(final) > rules.max_repeated_share):
        return "repetition"
    return None if revision is None else _violated_by_revision(rules, draft, revision)


def filtered(rules: FilterRules, record: RevisionRecord, *, cut: bool = False) -> LedgerEntry | None:
    """The ledger's line for a record that breaks a rule, or None."""
    rule = violated_rule(rules, record.draft, record.final if record.changed else None, cut=cut)
    return None if rule is None else LedgerEntry(uid=record.uid, replica=record.replica, outcome=Outcome.FILTERED, reason=rule)


def has_meta_talk(text: str) -> bool:
    """Whether a text speaks of being a revision, or stands in quotes as a whole."""
    stripped = text.strip()
    quoted = (
        len(stripped) > 2 and (stripped[0], stripped[-1]) in {('"', '"'), ("“", "”")} and not set('"“”') & set(stripped[1:-1])
    )
    return quoted or _OPENING.search(text) is not None or _CLOSING.search(text) is not None


def has_critique_talk(text: str) -> bool:
    """Whether a text judges a reply instead of being one."""
    return _CRITIQUE.search(text) is not None


def repeated_share(text: str) -> float:
    """Share, in [0, 1], of the words that lie in a 4-gram said before in the same text; 0 below 12 words."""
    words = text.lower().split()
    if len(words) < 3 * NGRAM:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = [False] * len(words)
    for start in range(len(words) - NGRAM + 1):
        gram = tuple(words[start : start + NGRAM])
        if gram in seen:
            repeated[start : start + NGRAM] = [True] * NGRAM
        seen.add(gram)
    return sum(repeated) / len(words)


def stutters(text: str) -> bool:
    """Whether up to 13 characters follow themselves seven times or more (`ha ha ha …`, a run of emoji); ruled lines may."""
    return any(any(c.isalpha() or ord(c) > 0x2FFF for c in found.group(1)) for found in _STUTTER.finditer(text))


def _violated_by_revision(rules: FilterRules, draft: str, revision: str) -> str | None:
    if rules.unchanged and _bare(draft) == _bare(revision):
        return "unchanged"
    # A reply that spoke like this before anybody asked for a revision speaks of the user's own text.
    if rules.meta_talk and has_meta_talk(revision) and not has_meta_talk(draft):
        return "meta_talk"
    if rules.critique_talk and has_critique_talk(revision) and not has_critique_talk(draft):
        return "critique_talk"
    before, after = len(draft.split()), len(revision.split())
    if rules.max_growth is not None and after >= 60 and after > rules.max_growth * before:
        return "too_long"
    if rules.min_share_kept is not None and after < rules.min_share_kept * before:
        return "too_short"
    return None


def _bare(text: str) -> str:
    return " ".join(text.lower().split())
