"""What a constitution does to a sample of prompts, measured before money is spent on all of them.

Every principle criticises and revises every draft on its own (`_alone`); then others are asked about its revisions (`_after`),
so that what one principle does to another is counted, not guessed. Engines in, figures out; knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import combinations, permutations
from typing import TypeAlias

from cai.authoring.audit_findings import (
    After,
    Alone,
    Applied,
    Truth,
    group_audits,
    order_audit,
    pair_audit,
    principle_audit,
    removable,
    tags_of,
)
from cai.authoring.audit_results import AuditResult
from cai.engines.base import Engine, GenerationRequest, RequestFailure
from cai.loop import LoopEvent, LoopSettings, noise_key, run_loop
from cai.records import FailureRecord, Item, RevisionRecord, Verdict
from cai.verdicts import Judged, judge
from constitution.schema import Constitution, Principle
from constitution.selection import applies

OnAudit: TypeAlias = Callable[[str, int, int], None]
"""(step, calls answered, calls in all)."""


@dataclass(frozen=True)
class AuditSettings:
    """How much is measured.

    Args:
        rows_per_pair: Most revisions of one principle that another is asked about; bounds the cost for long constitutions.
        ground_tokens: Longest reasoning before a verdict, in tokens.
    """

    rows_per_pair: int = 8
    ground_tokens: int = 64


def sample_items(items: Sequence[Item], count: int, seed: int) -> tuple[Item, ...]:
    """`count` items, the groups of tags in turn; which ones depends on (seed, uid) alone. In the order of `items`."""
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in sorted(items, key=lambda each: _rank(seed, each.uid)):
        groups.setdefault(tuple(sorted(item.tags)), []).append(item)
    queues = [iter(members) for _, members in sorted(groups.items())]
    chosen: set[str] = set()
    while queues and len(chosen) < count:
        for queue in list(queues):
            item = next(queue, None)
            if item is None:
                queues.remove(queue)
            elif len(chosen) < count:
                chosen.add(item.uid)
    return tuple(item for item in items if item.uid in chosen)


def audit(
    items: Sequence[Item],
    constitution: Constitution,
    policy: Engine,
    feedback: Engine,
    loop: LoopSettings,
    settings: AuditSettings,
    *,
    seed: int,
    truth: Truth | None = None,
    group: Callable[[Item], str] | None = None,
    on_event: OnAudit | None = None,
) -> AuditResult:
    """Measure every principle, every pair of them and every group of rows.

    Args:
        items: The sample; see `sample_items`.
        constitution: All its principles are measured, whatever the loop would draw.
        policy: Drafts.
        feedback: Critiques, revises and judges.
        loop: Its sampling parameters; rounds and replicas are not used.
        settings: How much is measured.
        seed: Of the run, so that a run with the same settings makes the same drafts.
        truth: Exact truth, where there is any.
        group: The behaviour of an item; by default its tags.
        on_event: Told of progress.
    """
    work = _Work(constitution, policy, feedback, loop, settings, seed, on_event)
    drafts = work.drafts(items)
    alone = work.alone(items, drafts)
    after = work.after(items, alone)
    odds = work.satisfaction(items, alone, after)
    return AuditResult(
        constitution=constitution.name,
        items=len(items),
        failures=work.failures,
        principles=tuple(
            principle_audit(p, items, constitution, alone, odds, work.failed_of.get(p.id, 0)) for p in constitution.principles
        ),
        pairs=tuple(
            pair_audit(p.id, q.id, items, alone, after, odds)
            for p, q in permutations(constitution.principles, 2)
            if any((p.id, q.id, item.uid) in after for item in items)
        ),
        orders=tuple(
            found
            for p, q in combinations(constitution.principles, 2)
            if (found := order_audit(p.id, q.id, items, alone, after, odds)) is not None
        ),
        removable=removable(items, constitution, alone),
        groups=group_audits(items, constitution, drafts, alone, truth, group or tags_of),
    )


@dataclass
class _Work:
    constitution: Constitution
    policy: Engine
    feedback: Engine
    loop: LoopSettings
    settings: AuditSettings
    seed: int
    on_event: OnAudit | None
    failures: int = 0
    failed_of: dict[str, int] = field(default_factory=dict[str, int])

    def drafts(self, items: Sequence[Item]) -> dict[str, str]:
        """Draft by uid, as the run itself makes it; an item whose draft failed is not in it."""
        requests = [
            GenerationRequest(messages=i.messages, params=self.loop.draft, noise_key=noise_key(self.seed, i.uid, 0, "draft"))
            for i in items
        ]
        found: dict[str, str] = {}
        for done, (index, result) in enumerate(self.policy.generate(requests), start=1):
            if isinstance(result, RequestFailure) or not result.text.strip():
                self.failures += 1
            else:
                found[items[index].uid] = result.text.strip()
            self._tell("drafts", done, len(requests))
        return found

    def alone(self, items: Sequence[Item], drafts: Mapping[str, str]) -> dict[tuple[str, str], Applied]:
        found: dict[tuple[str, str], Applied] = {}
        for number, principle in enumerate(self.constitution.principles, start=1):
            step = f"each alone ({number} of {len(self.constitution.principles)})"
            asked = {
                item.uid: (item, drafts[item.uid]) for item in items if item.uid in drafts and applies(principle, item.tags)
            }
            found |= {(principle.id, uid): outcome for uid, outcome in self._apply(principle, asked, step)}
        return found

    def after(self, items: Sequence[Item], alone: Alone) -> dict[tuple[str, str, str], Applied]:
        """Ask every principle about revisions made under every other one, `rows_per_pair` of them."""
        found: dict[tuple[str, str, str], Applied] = {}
        for number, second in enumerate(self.constitution.principles, start=1):
            asked: dict[str, tuple[Item, str]] = {}
            origin: dict[str, tuple[str, str]] = {}
            for first in self.constitution.principles:
                if first is second:
                    continue
                revised = [i for i in items if (first.id, i.uid) in alone and alone[first.id, i.uid].changed]
                revised = [i for i in revised if (second.id, i.uid) in alone]
                # Rows that both alter come first: only these tell whether the order matters.
                revised.sort(key=lambda i: (not alone[second.id, i.uid].changed, _rank(self.seed, i.uid)))
                for item in revised[: self.settings.rows_per_pair]:
                    uid = f"{item.uid}@{first.id}"
                    asked[uid] = (item, alone[first.id, item.uid].text)
                    origin[uid] = (first.id, item.uid)
            step = f"each after the others ({number} of {len(self.constitution.principles)})"
            for uid, outcome in self._apply(second, asked, step):
                first_id, item_uid = origin[uid]
                found[first_id, second.id, item_uid] = outcome
        return found

    def satisfaction(self, items: Sequence[Item], alone: Alone, after: After) -> dict[tuple[str, str, str], float]:
        """How content principles are with their own revisions, and with what others made of these."""
        by_uid = {item.uid: item for item in items}
        wanted = {(p, uid, each.text): None for (p, uid), each in alone.items() if each.changed}
        for (first, second, uid), each in after.items():
            wanted[first, uid, each.text] = None
            if alone[second, uid].changed:
                wanted[second, uid, each.text] = None
        asked = [
            Judged(by_uid[uid].messages, text, self.constitution.by_id(p), noise_key(self.seed, uid, 0, "verdict"))
            for p, uid, text in wanted
        ]

        def tell(done: int, total: int) -> None:
            self._tell("verdicts", done, total)

        odds: dict[tuple[str, str, str], float] = {}
        answers = judge(self.feedback, asked, ground_tokens=self.settings.ground_tokens, on_done=tell)
        for key, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, RequestFailure):
                self.failures += 1
            else:
                odds[key] = answer.log_odds_nats
        return odds

    def _apply(self, principle: Principle, asked: Mapping[str, tuple[Item, str]], step: str) -> Iterator[tuple[str, Applied]]:
        """One round of the loop under one principle, from given texts."""
        if not asked:
            return
        settings = self.loop.model_copy(
            update={
                "rounds": 1,
                "replicas": 1,
                "critique_free": False,
                "gate": None,
            }
        )
        items = [item.model_copy(update={"uid": uid}) for uid, (item, _) in asked.items()]
        everywhere = Constitution(name="one", principles=(principle,))
        texts = {uid: text for uid, (_, text) in asked.items()}
        made = run_loop(
            items,
            everywhere,
            self.policy,
            self.feedback,
            settings,
            seed=self.seed,
            on_event=self._telling(step),
            drafts=texts,
        )
        for record in self._sound(made, principle.id):
            only = record.rounds[0]
            yield (
                record.uid,
                Applied(
                    fault=only.verdict is Verdict.FAULT,
                    text=record.final,
                    changed=record.final != record.draft,
                    critique=only.critique,
                ),
            )

    def _sound(self, made: Iterator[RevisionRecord | FailureRecord], principle_id: str) -> Iterator[RevisionRecord]:
        for each in made:
            if isinstance(each, FailureRecord):
                self.failures += 1
                self.failed_of[principle_id] = self.failed_of.get(principle_id, 0) + 1
            else:
                yield each

    def _telling(self, step: str) -> Callable[[LoopEvent], None]:
        return lambda event: self._tell(f"{step}: {event.stage}", event.done, event.total)

    def _tell(self, step: str, done: int, total: int) -> None:
        if self.on_event is not None:
            self.on_event(step, done, total)


def _rank(seed: int, uid: str) -> bytes:
    return blake2b(f"{seed}/audit/{uid}".encode(), digest_size=8).digest()
