"""One item on its way through the loop: its text so far, its rounds, and the record it ends as. Asks no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from cai.engines.base import FinishReason, Generation
from cai.loop.gate import Candidate, Case
from cai.loop.whole_sentences import whole_sentences
from cai.records import FailureRecord, GateRuling, Item, RevisionRecord, Round, Verdict
from cai.tool_calls import checked_reply
from constitution.messages import tools_of
from constitution.schema import Constitution, Principle

BAD_CALL = "bad_call"
"""Cause of a draft with a call of no tool there is, or with arguments that do not fit its schema."""


@dataclass
class Thread:
    """One (item, replica). `grounds` holds principle id → ground of the greedy critique of `text` that is written already."""

    item: Item
    replica: int
    draft: str = ""
    draft_cut: bool = False
    draft_trimmed: bool = False
    rounds: list[Round] = field(default_factory=list[Round])
    grounds: dict[str, str] = field(default_factory=dict[str, str])
    failure: FailureRecord | None = None

    @property
    def name(self) -> tuple[str, int]:
        """What tells it from all others."""
        return self.item.uid, self.replica

    @property
    def text(self) -> str:
        """What the next critique speaks of."""
        revised = [r.revision for r in self.rounds if r.revision is not None]
        return revised[-1] if revised else self.draft

    def begin(self, draft: str, *, cut: bool = False, trim: bool = False) -> None:
        """The draft, as the policy wrote it or somebody else gave it; with `trim`, only the whole sentences of a cut one.

        An empty one fails the thread, and so does one with a call that cannot be made: no critique could speak of it as a call.
        """
        self.draft, self.draft_cut = draft.strip(), cut
        tools = tools_of(self.item.messages)
        if cut and trim and not tools and (whole := whole_sentences(self.draft)):  # half a call is none
            self.draft, self.draft_cut, self.draft_trimmed = whole, False, True
        if not self.draft:
            self.fail("draft", "empty_draft", "the policy answered nothing")
        elif tools:
            checked = checked_reply(self.draft, tools)
            self.draft = checked.text
            if checked.problem:
                self.fail("draft", BAD_CALL, checked.problem)

    def case(self, own: Principle, constitution: Constitution, noise_key: str) -> Case:
        """What the gate has to know of a revision of `text` under `own`."""
        earlier = dict.fromkeys(each.principle_id for each in self.rounds)
        return Case(
            conversation=self.item.messages,
            tags=self.item.tags,
            before=self.text,
            own=own,
            earlier=tuple(constitution.by_id(identity) for identity in earlier),
            grounds=dict(self.grounds),
            name=self.name,
            noise_key=noise_key,
        )

    def keep(self, number: int, principle: Principle, critique: Generation) -> None:
        """Close a round in which there was nothing to change."""
        self.rounds.append(
            Round(
                round=number,
                principle_id=principle.id,
                critique=critique.text.strip(),
                verdict=Verdict.NOTHING_TO_CHANGE,
                revision=None,
                critique_cut=critique.finish_reason is FinishReason.LENGTH,
            )
        )

    def revise(
        self,
        number: int,
        principle: Principle,
        critique: Generation | None,
        candidate: Candidate | None,
        gate: GateRuling | None,
    ) -> None:
        """Close a round in which a revision was asked for; `candidate` is the one that counts, None if the gate let none in."""
        self.rounds.append(
            Round(
                round=number,
                principle_id=principle.id,
                critique=critique.text.strip() if critique else "",
                verdict=Verdict.FAULT,
                revision=candidate.text if candidate else None,
                critique_cut=critique is not None and critique.finish_reason is FinishReason.LENGTH,
                revision_cut=candidate is not None and candidate.cut,
                note=candidate.note if candidate else "",
                gate=gate,
            )
        )
        if self.rounds[-1].revision is not None:
            self.grounds.clear()

    def fail(self, stage: str, cause: str, detail: str) -> None:
        self.failure = FailureRecord(uid=self.item.uid, replica=self.replica, stage=stage, cause=cause, detail=detail)

    def record(self) -> RevisionRecord | FailureRecord:
        """How the item ends."""
        return self.failure or RevisionRecord(
            uid=self.item.uid,
            replica=self.replica,
            messages=self.item.messages,
            tags=self.item.tags,
            facts=self.item.facts,
            draft=self.draft,
            draft_cut=self.draft_cut,
            draft_trimmed=self.draft_trimmed,
            rounds=tuple(self.rounds),
        )
