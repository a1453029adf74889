"""Rules of form: nothing said, cut, unchanged, out of measure."""

from __future__ import annotations

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.settings import FilterRules

LONG_WORDS = 60
"""Below this, a revision is not too long, however short its draft."""


def _empty(reply: Reply, _: FilterRules) -> Finding | None:
    return None if any(c.isalnum() for c in reply.text) else Finding("empty", "no letter or digit")


def _cut_short(reply: Reply, _: FilterRules) -> Finding | None:
    return Finding("cut_short", "cut at its token limit", _end(reply.text)) if reply.cut else None


def _unchanged(reply: Reply, _: FilterRules) -> Finding | None:
    if reply.before is None or _bare(reply.before) != _bare(reply.text):
        return None
    return Finding("unchanged", "the same as the text before it, but for space and case")


def _too_long(reply: Reply, rules: FilterRules) -> Finding | None:
    if reply.before is None or rules.max_growth is None:
        return None
    before, after = len(reply.before.split()), len(reply.text.split())
    if after < LONG_WORDS or after <= rules.max_growth * before:
        return None
    growth = after / before if before else float(after)
    return Finding("too_long", f"{before} words became {after}", score=growth, limit=rules.max_growth)


def _too_short(reply: Reply, rules: FilterRules) -> Finding | None:
    if reply.before is None or rules.min_share_kept is None:
        return None
    before, after = len(reply.before.split()), len(reply.text.split())
    if after >= rules.min_share_kept * before:
        return None
    return Finding("too_short", f"{before} words became {after}", score=after / before, limit=rules.min_share_kept)


def _bare(text: str) -> str:
    return " ".join(text.lower().split())


def _end(text: str) -> tuple[int, int]:
    """The last word."""
    end = len(text.rstrip())
    return max((text.rfind(space, 0, end) + 1 for space in " \n"), default=0), end


EMPTY = Rule("empty", "No letter or digit in the reply.", look=_empty)
CUT_SHORT = Rule("cut_short", "The reply was cut at its token limit.", look=_cut_short)
UNCHANGED = Rule("unchanged", "The revision repeats the draft, but for space and case.", look=_unchanged, of_revisions=True)
TOO_LONG = Rule(
    "too_long", "The revision is many times as long as its draft.", limits=("max_growth",), look=_too_long, of_revisions=True
)
TOO_SHORT = Rule(
    "too_short", "The revision lost most of its draft's words.", limits=("min_share_kept",), look=_too_short, of_revisions=True
)
