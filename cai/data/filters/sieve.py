"""All rules over all rows, in a stream: what each found, and whether the row is dropped.

A decision is a pure function of the rows before it and, for boilerplate, of all rows; equal rows in equal order give equal
decisions. Memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cai.data.filters.boilerplate import BOILERPLATE, Habits, learned
from cai.data.filters.endings import TRUNCATED
from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.form import CUT_SHORT, EMPTY, TOO_LONG, TOO_SHORT, UNCHANGED
from cai.data.filters.languages import WRONG_LANGUAGE
from cai.data.filters.leakage import LEAKAGE, EvaluationSet, find_leakage
from cai.data.filters.near_duplicates import NEAR_DUPLICATE, SeenRows
from cai.data.filters.personal_data import PII
from cai.data.filters.preferences import MADE_WORSE
from cai.data.filters.refusals import CANNED_REFUSAL
from cai.data.filters.repetition import EMOJI_RUNS, LOOPS, REPETITION
from cai.data.filters.roles import ROLE_CONFUSION
from cai.data.filters.settings import Action, FilterRules
from cai.data.filters.talk import CRITIQUE_TALK, META_TALK
from cai.records import RevisionRecord

RULES: tuple[Rule, ...] = (
    EMPTY,
    CUT_SHORT,
    REPETITION,
    UNCHANGED,
    META_TALK,
    CRITIQUE_TALK,
    TOO_LONG,
    TOO_SHORT,
    ROLE_CONFUSION,
    TRUNCATED,
    LOOPS,
    EMOJI_RUNS,
    WRONG_LANGUAGE,
    CANNED_REFUSAL,
    PII,
    LEAKAGE,
    BOILERPLATE,
    NEAR_DUPLICATE,
    MADE_WORSE,
)
"""In the order in which they are asked: the first that drops a row is the ledger's reason."""
RULE_IDS = tuple(rule.id for rule in RULES)
OF_WHOLE = tuple(rule.id for rule in RULES if rule.scope == "whole")


@dataclass(frozen=True, slots=True)
class Sifted:
    """What the rules made of one reply: all that was found, in the order of the rules, and the rule that drops it."""

    findings: tuple[Finding, ...]
    dropped_by: str | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What one rule says of one reply: `limits` are its settings, `finding` is None where it found nothing or did not look."""

    rule: Rule
    action: Action
    limits: Mapping[str, object]
    finding: Finding | None = None


class Sieve:
    """Judges replies one after another.

    Args:
        rules: What is looked for.
        sets: Evaluation sets, for `leakage`.
        habits: Of all replies, for `boilerplate`; see `sieve_for`.
    """

    def __init__(self, rules: FilterRules, *, sets: Sequence[EvaluationSet] = (), habits: Habits | None = None) -> None:
        self.rules = rules
        self.sets = tuple(sets)
        self.habits = habits
        self._seen: SeenRows | None = None
        self._used = tuple(rule for rule in RULES if rule.scope != "pair" and is_on(rules, rule))

    def sift(self, reply: Reply) -> Sifted:
        """Ask every rule that is on. A reply that nothing drops is what later ones may be near-duplicates of."""
        findings: list[Finding] = []
        dropped_by: str | None = None
        for rule in self._used:
            if rule is NEAR_DUPLICATE and dropped_by is not None:
                continue
            found = self._look(rule, reply)
            if found is not None:
                findings.append(found)
                if dropped_by is None and self.rules.action(rule.id) == "drop":
                    dropped_by = rule.id
        return Sifted(tuple(findings), dropped_by)

    def explain(self, reply: Reply) -> tuple[Looked, ...]:
        """What every rule says of a reply, those that are off and those of the labels included."""
        return tuple(
            Looked(rule, self.rules.action(rule.id), _limits(self.rules, rule), self._look(rule, reply))
            if rule in self._used
            else Looked(rule, self.rules.action(rule.id) if is_on(self.rules, rule) else "off", _limits(self.rules, rule))
            for rule in RULES
        )

    def _look(self, rule: Rule, reply: Reply) -> Finding | None:
        if rule.look is not None:
            return rule.look(reply, self.rules)
        if rule is LEAKAGE:
            return find_leakage(reply, self.sets)
        if rule is BOILERPLATE:
            return self.habits.find(reply, self.rules) if self.habits is not None else None
        self._seen = self._seen or SeenRows()
        return self._seen.find(reply, self.rules)


def _limits(rules: FilterRules, rule: Rule) -> dict[str, object]:
    return {name: getattr(rules, name) for name in rule.limits}


def reply_of(record: RevisionRecord) -> Reply:
    """The reply that a record ends with, as the rules look at it."""
    before = record.draft if record.changed else None
    return Reply(record.messages, record.final, before, record.draft, cut=record.final_cut, uid=record.uid)


def sieve_for(rules: FilterRules, replies: Iterable[Reply], sets: Sequence[EvaluationSet] = ()) -> Sieve:
    """A sieve that has seen what its rules have to see before: all replies, if boilerplate is looked for."""
    habits = learned(replies) if is_on(rules, BOILERPLATE) else None
    return Sieve(rules, sets=sets, habits=habits)


def is_on(rules: FilterRules, rule: Rule) -> bool:
    """Whether a rule is asked: it is not switched off, and has the thresholds or sets it needs."""
    return rules.action(rule.id) != "off" and (not rule.limits or getattr(rules, rule.limits[0]) not in (None, ()))


def sees_whole(rules: FilterRules) -> bool:
    """Whether a rule is on that needs all rows, so that a shard cannot decide it."""
    return any(is_on(rules, rule) for rule in RULES if rule.scope == "whole")


def of_rows(rules: FilterRules) -> FilterRules:
    """The rules that one row can be judged by without the others: what a shard asks."""
    return rules.model_copy(update=dict.fromkeys(OF_WHOLE, "off"))
