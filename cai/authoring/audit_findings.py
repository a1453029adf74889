"""From what principles made of texts to what an audit says: pure counting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cai.authoring.audit_results import AuditRow, GroupAudit, OrderAudit, PairAudit, PrincipleAudit
from cai.records import Item
from constitution.schema import Constitution, Principle
from constitution.selection import applicable

Truth: TypeAlias = Callable[[Item, str], bool | None]
"""Whether a reply is good by exact truth; None where nobody can say."""
QUOTED = 3
"""Rows quoted for each finding."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What one principle made of one text."""

    fault: bool
    text: str
    changed: bool
    critique: str


Alone: TypeAlias = Mapping[tuple[str, str], Applied]
"""(principle id, uid) → what the principle made of the draft."""
After: TypeAlias = Mapping[tuple[str, str, str], Applied]
"""(first, second, uid) → what `second` made of the revision by `first`."""
Odds: TypeAlias = Mapping[tuple[str, str, str], float]
"""(principle id, uid, text) → log-odds in nats that the principle has nothing against the text."""


def tags_of(item: Item) -> str:
    return ", ".join(item.tags) or "without tags"


def principle_audit(
    principle: Principle, items: Sequence[Item], constitution: Constitution, alone: Alone, odds: Odds, failures: int
) -> PrincipleAudit:
    own = {item.uid: alone[principle.id, item.uid] for item in items if (principle.id, item.uid) in alone}
    fires = {uid for uid, outcome in own.items() if outcome.fault}
    together = {
        other.id: sum((other.id, uid) in alone and alone[other.id, uid].fault for uid in fires)
        for other in constitution.principles
        if other is not principle
    }
    seconded = {
        uid
        for uid in fires
        if any(o is not principle and (o.id, uid) in alone and alone[o.id, uid].fault for o in constitution.principles)
    }
    nearest = max(together, key=lambda name: together[name], default="")
    changed = [(uid, outcome) for uid, outcome in own.items() if outcome.changed]
    again = [odds[principle.id, uid, o.text] for uid, o in changed if (principle.id, uid, o.text) in odds]
    return PrincipleAudit(
        principle_id=principle.id,
        applies=len(own),
        fired=len(fires),
        changed=len(changed),
        judged=len(again),
        mended=sum(each > 0 for each in again),
        failed=failures,
        redundant=bool(fires) and fires == seconded,
        nearest=nearest if together.get(nearest) else "",
        nearest_rows=together.get(nearest, 0),
    )


def removable(items: Sequence[Item], constitution: Constitution, alone: Alone) -> tuple[str, ...]:
    """See `AuditResult.removable`; what twins have in common stays with one of them."""
    fires = {
        p.id: {item.uid for item in items if (p.id, item.uid) in alone and alone[p.id, item.uid].fault}
        for p in constitution.principles
    }
    kept = {name: rows for name, rows in fires.items() if rows}
    gone: list[str] = []
    for name in sorted(kept, key=lambda each: len(kept[each])):
        others = set[str]().union(*(rows for other, rows in kept.items() if other != name))
        if kept[name] <= others:
            del kept[name]
            gone.append(name)
    return tuple(gone)


def pair_audit(first: str, second: str, items: Sequence[Item], alone: Alone, after: After, odds: Odds) -> PairAudit:
    rows = [
        (item, alone[first, item.uid], after[first, second, item.uid]) for item in items if (first, second, item.uid) in after
    ]
    objections = [(i, one, two) for i, one, two in rows if two.fault and not alone[second, i.uid].fault]
    undoings = [
        (i, one, two)
        for i, one, two in rows
        if two.changed and odds.get((first, i.uid, one.text), -1.0) > 0 and odds.get((first, i.uid, two.text), 1.0) < 0
    ]
    return PairAudit(
        first=first,
        second=second,
        rows=len(rows),
        objected=len(objections),
        rewrote=sum(two.changed for _, _, two in rows),
        undone=len(undoings),
        objections=tuple(_quoted(i, one.text, two.text, two.critique) for i, one, two in objections[:QUOTED]),
        undoings=tuple(_quoted(i, one.text, two.text, two.critique) for i, one, two in undoings[:QUOTED]),
    )


def order_audit(one: str, other: str, items: Sequence[Item], alone: Alone, after: After, odds: Odds) -> OrderAudit | None:
    rows = [
        item.uid
        for item in items
        if (one, other, item.uid) in after
        and (other, one, item.uid) in after
        and alone[one, item.uid].changed
        and alone[other, item.uid].changed
        and all((p, item.uid, after[f, s, item.uid].text) in odds for f, s in ((one, other), (other, one)) for p in (f, s))
    ]
    if not rows:
        return None

    def satisfied(first: str, second: str) -> float:
        final = {uid: after[first, second, uid].text for uid in rows}
        return sum(odds[p, uid, final[uid]] > 0 for uid in rows for p in (one, other)) / (2 * len(rows))

    return OrderAudit(
        one=one,
        other=other,
        rows=len(rows),
        differ=sum(after[one, other, uid].text != after[other, one, uid].text for uid in rows),
        satisfied_one_first=satisfied(one, other),
        satisfied_other_first=satisfied(other, one),
    )


def group_audits(
    items: Sequence[Item],
    constitution: Constitution,
    drafts: Mapping[str, str],
    alone: Alone,
    truth: Truth | None,
    group: Callable[[Item], str],
) -> tuple[GroupAudit, ...]:
    members: dict[str, list[Item]] = {}
    for item in items:
        if item.uid in drafts:
            members.setdefault(group(item), []).append(item)
    return tuple(_group(name, rows, constitution, drafts, alone, truth) for name, rows in sorted(members.items()))


def _group(
    name: str,
    items: Sequence[Item],
    constitution: Constitution,
    drafts: Mapping[str, str],
    alone: Alone,
    truth: Truth | None,
) -> GroupAudit:
    fired = {i.uid for i in items if any((p.id, i.uid) in alone and alone[p.id, i.uid].fault for p in constitution.principles)}
    verdicts = {i.uid: truth(i, drafts[i.uid]) for i in items} if truth is not None else {}
    known = any(verdict is not None for verdict in verdicts.values())
    bare = [i for i in items if not applicable(constitution, i.tags)]
    passed = [i for i in items if verdicts.get(i.uid) is False and i.uid not in fired]
    return GroupAudit(
        group=name,
        rows=len(items),
        applicable=len(items) - len(bare),
        fired=len(fired),
        bad=sum(verdict is False for verdict in verdicts.values()) if known else None,
        bad_passed=len(passed) if known else None,
        passed=tuple(_quoted(i, drafts[i.uid], drafts[i.uid], "") for i in passed[:QUOTED]),
        bare=tuple(_quoted(i, drafts[i.uid], drafts[i.uid], "") for i in bare[:QUOTED]),
    )


def _quoted(item: Item, before: str, after: str, critique: str) -> AuditRow:
    return AuditRow(uid=item.uid, prompt=item.messages[-1].content, before=before, after=after, critique=critique)
