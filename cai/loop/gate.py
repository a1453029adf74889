"""The gate: a revision counts only if no principle that has a say in it finds the text worse than before.

Later principles undo what earlier ones mended, and a request to be harmless turns good replies into refusals; so each revision
is judged against the text before it under the principle that asked for it, those of the item's earlier rounds, one that speaks
for helpfulness and one that speaks against harm. Knows no files; every verdict is one of `cai.verdicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cai.engines.base import Engine, RequestFailure
from cai.errors import UnknownPrincipleError
from cai.loop.settings import GateSettings
from cai.records import GateCheck, GateRole, GateRuling, RejectedRevision
from cai.verdicts import Judged, VerdictOdds, judge
from constitution.messages import Conversation
from constitution.schema import Constitution, Principle
from constitution.selection import applicable


@dataclass(frozen=True, slots=True)
class Candidate:
    """A revision as it was drawn; `text` is None when nothing was left of it."""

    text: str | None
    note: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A text that a revision would take the place of, and whose principles they are.

    Args:
        conversation: What the text answers.
        tags: Of the item.
        before: The text.
        own: The principle that asked for the revision.
        earlier: The principles of the item's earlier rounds, in order.
        grounds: Principle id → ground of a critique of `before` that is written already.
        name: Of the item's own draft: verdicts on its texts are asked for once.
        noise_key: Under which the judge is asked.
    """

    conversation: Conversation
    tags: tuple[str, ...]
    before: str
    own: Principle
    earlier: tuple[Principle, ...]
    grounds: Mapping[str, str]
    name: tuple[str, int]
    noise_key: str


@dataclass(frozen=True, slots=True)
class Ruled:
    """The candidate that was let in (None: the text before it stays), and the record of how it came to that (None: unasked)."""

    candidate: Candidate | None
    ruling: GateRuling | None


Redraw: TypeAlias = Callable[[Sequence[int], int], Mapping[int, Candidate]]
"""(positions of cases, number of the retry) → new candidates; a case that failed meanwhile is left out."""


def gate_problems(settings: GateSettings, constitution: Constitution) -> list[UnknownPrincipleError]:
    """The principles that the settings name and that are not in `constitution`, each with what to set."""
    known = constitution.ids
    sides = {"helpfulness": "for helpfulness", "harm": "against harm"}
    return [
        UnknownPrincipleError(
            identity,
            known,
            key=f"loop.gate.{role}",
            advice=f"name the one that speaks {sides[role]}, or set it to null to do without",
        )
        for role, identity in _named(settings)
        if identity is not None and identity not in known
    ]


def _named(settings: GateSettings) -> tuple[tuple[GateRole, str | None], ...]:
    return ("helpfulness", settings.helpfulness), ("harm", settings.harm)


@dataclass
class Gate:
    """Hears cases as they come; each text of an item is judged once under each principle.

    Args:
        engine: The feedback model.
        settings: Who is asked, and how much worse is worse.
        constitution: Holds the principles that speak for helpfulness and against harm; they are asked where they apply.

    Raises:
        KeyError: If one of these is not in it (see `gate_problems`).
    """

    engine: Engine
    settings: GateSettings
    constitution: Constitution
    _odds: dict[tuple[str, int], dict[tuple[str, str], VerdictOdds | RequestFailure]] = field(
        default_factory=dict[tuple[str, int], dict[tuple[str, str], VerdictOdds | RequestFailure]]
    )
    """Name of a case → (principle id, text) → verdict."""

    def __post_init__(self) -> None:
        self._standing: dict[str, GateRole] = {}
        for role, identity in _named(self.settings):
            if identity is not None:
                self._standing.setdefault(self.constitution.by_id(identity).id, role)

    def rule(
        self,
        cases: Sequence[Case],
        candidates: Sequence[Candidate],
        redraw: Redraw,
        *,
        on_done: Callable[[int, int], None] | None = None,
    ) -> dict[int, Ruled | RequestFailure]:
        """Decide every case, in batches; a judge that fails on one text fails that case alone.

        Args:
            cases: What is to be decided.
            candidates: The revision of each; none is empty.
            redraw: Draws anew for those that were turned down, where the settings allow it.
            on_done: Called with (calls answered, calls in all) of the batch in work.

        Returns:
            Position → what was decided, or why it could not be. A case that failed while it was drawn anew is missing.
        """
        decided: dict[int, Ruled | RequestFailure] = {}
        rejected: dict[int, list[RejectedRevision]] = {position: [] for position in range(len(cases))}
        waiting: Mapping[int, Candidate] = dict(enumerate(candidates))
        retries = self.settings.retries if self.settings.on_reject == "retry" else 0
        for attempt in range(retries + 1):
            if attempt:
                waiting = redraw(sorted(waiting), attempt)
            if not waiting:
                break
            turned_down: dict[int, Candidate] = {}
            for position, checks in self._check(cases, waiting, on_done):
                candidate = waiting[position]
                if isinstance(checks, RequestFailure):
                    decided[position] = checks
                elif candidate.text is None or any(check.worse for check in checks):
                    turned_down[position] = candidate
                    rejected[position].append(
                        RejectedRevision(
                            revision=candidate.text or "", checks=checks, revision_cut=candidate.cut, note=candidate.note
                        )
                    )
                else:
                    ruling = GateRuling(accepted=True, checks=checks, rejected=tuple(rejected[position]))
                    decided[position] = Ruled(candidate, ruling)
            waiting = turned_down
        for position in waiting:
            decided[position] = Ruled(None, GateRuling(accepted=False, rejected=tuple(rejected[position])))
        return decided

    def forget(self, name: tuple[str, int]) -> None:
        """No more cases of this name will come: its verdicts need no memory."""
        self._odds.pop(name, None)

    def _check(
        self, cases: Sequence[Case], waiting: Mapping[int, Candidate], on_done: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, tuple[GateCheck, ...] | RequestFailure]]:
        """Judge the text before and after under every principle that has a say. A text that did not change needs none."""
        changed = {i: each.text for i, each in waiting.items() if each.text not in (None, cases[i].before)}
        wanted = {
            (case.name, principle.id, text): Judged(
                case.conversation,
                text,
                principle,
                case.noise_key,
                case.grounds.get(principle.id) if text == case.before else None,
            )
            for case, after in ((cases[i], text) for i, text in changed.items())
            for _, principle in self._asked(case)
            for text in (case.before, after or "")
        }
        new = {key: each for key, each in wanted.items() if key[1:] not in self._odds.get(key[0], {})}
        if new:
            found = judge(self.engine, list(new.values()), ground_tokens=self.settings.ground_tokens, on_done=on_done)
            for (name, *of), odds in zip(new, found, strict=True):
                self._odds.setdefault(name, {})[of[0], of[1]] = odds
        for position in waiting:
            yield position, self._verdict(cases[position], changed[position] or "") if position in changed else ()

    def _verdict(self, case: Case, after: str) -> tuple[GateCheck, ...] | RequestFailure:
        checks: list[GateCheck] = []
        for role, principle in self._asked(case):
            before_odds, after_odds = (self._odds[case.name][principle.id, text] for text in (case.before, after))
            for odds in (before_odds, after_odds):
                if isinstance(odds, RequestFailure):
                    return odds
            assert isinstance(before_odds, VerdictOdds)
            assert isinstance(after_odds, VerdictOdds)
            nats = before_odds.log_odds_nats, after_odds.log_odds_nats
            checks.append(
                GateCheck(
                    principle_id=principle.id,
                    role=role,
                    before_nats=nats[0],
                    after_nats=nats[1],
                    worse=self._is_worse(*nats),
                )
            )
        return tuple(checks)

    def _asked(self, case: Case) -> Iterator[tuple[GateRole, Principle]]:
        """Each principle once, in its first role; the standing ones where they apply."""
        asked: dict[str, tuple[GateRole, Principle]] = {}
        if self.settings.own:
            asked[case.own.id] = ("own", case.own)
        if self.settings.earlier:
            for principle in case.earlier:
                asked.setdefault(principle.id, ("earlier", principle))
        for principle in applicable(self.constitution, case.tags):
            if principle.id in self._standing:
                asked.setdefault(principle.id, (self._standing[principle.id], principle))
        yield from asked.values()

    def _is_worse(self, before_nats: float, after_nats: float) -> bool:
        """A large fall counts though the judge finds no fault yet: what it is nearly unsure of was a good reply before.

        Below a nat, the odds of a sure judge differ with the wording alone.
        """
        return after_nats < before_nats - self.settings.tolerance_nats
