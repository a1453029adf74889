"""What the filters found, rule by rule, with a few examples each; and what they say of one row. Plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cai.data.filters.findings import Finding, Place, Reply
from cai.data.filters.settings import Action, FilterRules
from cai.data.filters.sieve import RULES, Looked, is_on

EXAMPLES = 3
EXCERPT_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Example:
    """A row that a rule found something in. `excerpt` is what triggered it with a little around it: before, it, after."""

    uid: str
    replica: int
    detail: str
    excerpt: tuple[str, str, str] | None


@dataclass(frozen=True, slots=True)
class RuleCount:
    """One rule: rows it found something in, rows it dropped (of those that several rules would drop, the first counts)."""

    rule: str
    description: str
    action: Action
    found: int
    dropped: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All rules over `rows` rows; `unreadable` names rows of a file that could not be looked at, and why.

    `revisions` of the rows are revisions of a text that is known; None where nobody counted.
    """

    name: str
    rows: int
    dropped: int
    flagged: int
    rules: tuple[RuleCount, ...]
    unreadable: tuple[str, ...] = ()
    unreadable_rows: int = 0
    revisions: int | None = None

    @property
    def blind(self) -> tuple[str, ...]:
        """Rules that are on and compare a reply with the text before it, where some of the rows have none."""
        if self.revisions in (None, self.rows):
            return ()
        of_revisions = {rule.id for rule in RULES if rule.of_revisions}
        return tuple(each.rule for each in self.rules if each.rule in of_revisions and each.action != "off")

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": self.rows,
            "dropped": self.dropped,
            "flagged": self.flagged,
            "unreadable": self.unreadable_rows,
            "revisions": self.revisions,
            "rules": [
                {
                    "rule": each.rule,
                    "description": each.description,
                    "action": each.action,
                    "found": each.found,
                    "dropped": each.dropped,
                    "examples": [
                        {
                            "uid": example.uid,
                            "replica": example.replica,
                            "detail": example.detail,
                            "excerpt": list(example.excerpt) if example.excerpt else None,
                        }
                        for example in each.examples
                    ],
                }
                for each in self.rules
            ],
        }


@dataclass
class Counting:
    """Sums findings up, row after row; memory does not grow with the rows."""

    rules: FilterRules
    rows: int = 0
    flagged: int = 0
    revisions: int | None = None
    """0 to count them: worth it for files, whose rows need not be revisions at all."""
    found: Counter[str] = field(default_factory=Counter[str])
    dropped: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[Example]] = field(default_factory=dict[str, list[Example]])

    def add(self, reply: Reply, replica: int, findings: tuple[Finding, ...], dropped_by: str | None) -> None:
        """Count a row that was looked at."""
        self.rows += 1
        if self.revisions is not None:
            self.revisions += reply.before is not None
        self.flagged += bool(findings) and dropped_by is None
        if dropped_by is not None:
            self.dropped[dropped_by] += 1
        for each in findings:
            self.found[each.rule] += 1
            self.show(each.rule, Example(reply.uid, replica, each.detail, excerpt(text_at(reply, each.place), each.span)))

    def show(self, rule: str, example: Example) -> None:
        """Keep an example, if there are not enough."""
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def overview(self, name: str, unreadable: tuple[str, ...] = (), unreadable_rows: int = 0) -> Overview:
        """Of all that was added."""
        counts = tuple(
            RuleCount(
                rule=rule.id,
                description=rule.description,
                action=self.rules.action(rule.id) if is_on(self.rules, rule) else "off",
                found=self.found[rule.id],
                dropped=self.dropped[rule.id],
                examples=tuple(self.examples.get(rule.id, ())),
            )
            for rule in RULES
        )
        return Overview(
            name, self.rows, self.dropped.total(), self.flagged, counts, unreadable, unreadable_rows, self.revisions
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the rules say of one row, and its texts. `looked` is empty where the filters never saw it: `outcome` says why."""

    uid: str
    replica: int
    outcome: str
    reply: Reply | None
    looked: tuple[Looked, ...]

    def as_json(self) -> dict[str, Any]:
        reply = self.reply
        texts: dict[str, Any] = {}
        if reply is not None:
            texts = {"prompt": reply.question, "reply": reply.text, "before": reply.before, "cut": reply.cut}
        return {"uid": self.uid, "replica": self.replica, "outcome": self.outcome, **texts, "rules": self._rules()}

    def _rules(self) -> list[dict[str, Any]]:
        return [
            {
                "rule": each.rule.id,
                "description": each.rule.description,
                "action": each.action,
                "limits": dict(each.limits),
                "finding": _as_json(each.finding),
            }
            for each in self.looked
        ]


def _as_json(finding: Finding | None) -> Mapping[str, object] | None:
    if finding is None:
        return None
    span = list(finding.span) if finding.span else None
    numbers = {"score": finding.score, "limit": finding.limit}
    return {"detail": finding.detail, "place": finding.place, "span": span, **numbers}


def text_at(reply: Reply, place: Place) -> str:
    return reply.text if place == "reply" else reply.question


def excerpt(text: str, span: tuple[int, int] | None) -> tuple[str, str, str] | None:
    """A span with a little around it, on one line: before, it, after. A long span loses its middle."""
    if span is None:
        return None
    start, end = span
    inside = text[start:end]
    if len(inside) > 2 * EXCERPT_CHARACTERS:
        inside = f"{inside[:EXCERPT_CHARACTERS]} … {inside[-EXCERPT_CHARACTERS:]}"
    before, after = text[max(0, start - EXCERPT_CHARACTERS) : start], text[end : end + EXCERPT_CHARACTERS]
    return _line(before), _line(inside), _line(after)


def _line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")
