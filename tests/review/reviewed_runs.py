"""Runs to be reviewed: labelled and undecided pairs, tags, findings, rows without a pair; and verdicts on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cai.labels.quality import label_quality
from cai.records import (
    FindingRecord,
    HumanVerdict,
    Item,
    Judgement,
    LedgerEntry,
    Outcome,
    PreferenceRecord,
    RecordKind,
    RevisionRecord,
    Stage,
    UndecidedRecord,
)
from cai.review.answers import Answers
from cai.store import MANIFEST_VERSION, RunFolder, VerdictFile
from constitution.messages import Message, user
from tests.labelled_runs import PRINCIPLES, revision_of


def pair(
    uid: str, *, chosen: str = "", rejected: str = "", tags: Sequence[str] = (), p: float = 0.8, prompt: str = ""
) -> PreferenceRecord:
    """A labelled pair; the revision was chosen, and stood first."""
    return PreferenceRecord(
        uid=uid,
        prompt=(user(prompt or f"question {uid}"),),
        chosen=chosen or f"the better reply to {uid}",
        rejected=rejected or f"the draft of {uid}",
        chosen_source="revision",
        rejected_source="draft",
        margin_nats=1.4,
        p_chosen=p,
        method="pointwise",
        principle_ids=("kind",),
        tags=tuple(tags),
    )


def undecided(uid: str, *, tags: Sequence[str] = ()) -> UndecidedRecord:
    return UndecidedRecord(
        uid=uid,
        prompt=(user(f"question {uid}"),),
        first=f"the revision of {uid}",
        second=f"the draft of {uid}",
        first_source="revision",
        second_source="draft",
        margin_nats=0.01,
        method="pointwise",
        principle_ids=("kind",),
        reason="small margin",
        tags=tuple(tags),
    )


def unchanged(uid: str, *, tags: Sequence[str] = (), draft: str = "") -> RevisionRecord:
    """A row whose draft needed no change: there is nothing to compare."""
    return RevisionRecord(
        uid=uid, messages=(user(f"question {uid}"),), draft=draft or f"the draft of {uid}", rounds=(), tags=tuple(tags)
    )


def write_run(
    folder: Path,
    pairs: Iterable[PreferenceRecord] = (),
    undecided_pairs: Iterable[UndecidedRecord] = (),
    alone: Iterable[RevisionRecord] = (),
    *,
    findings: Iterable[tuple[str, str]] = (),
    review: dict[str, Any] | None = None,
    label: str = "l",
) -> Path:
    """A run whose labels are made. `findings` are (uid, rule)."""
    pairs, open_pairs, alone = list(pairs), list(undecided_pairs), list(alone)
    records = [
        *(revision_of(each).model_copy(update={"tags": each.tags}) for each in pairs),
        *(_revision_of_undecided(each) for each in open_pairs),
        *alone,
    ]
    items = {each.uid: Item(uid=each.uid, messages=each.messages, tags=each.tags) for each in records}
    with_pair = {each.uid for each in pairs}
    config: dict[str, Any] = {"policy": {"name": "scripted:p.yaml"}, "filters": {"pii": "flag"}}
    if review is not None:
        config["review"] = review
    with RunFolder.open(folder) as run:
        run.put_items(items.values())
        run.put_records(RecordKind.REVISION, records)
        run.put_records(RecordKind.PREFERENCE, pairs)
        run.put_records(RecordKind.UNDECIDED, open_pairs)
        run.put_records(
            RecordKind.FINDING, [FindingRecord(uid=uid, rule=rule, action="flag", detail="found") for uid, rule in findings]
        )
        run.settle(
            LedgerEntry(uid=uid, outcome=Outcome.PAIR) if uid in with_pair else LedgerEntry(uid=uid, outcome=Outcome.KEPT)
            for uid in items
        )
        run.put_stage(Stage.GENERATE, "g", {"records": len(records), "failures": 0})
        run.put_stage(Stage.LABEL, label, label_quality(pairs, open_pairs).model_dump(mode="json"))
        run.write_manifest(
            {
                "version": MANIFEST_VERSION,
                "program": "0.1.0",
                "seed": 7,
                "config": config,
                "constitution": {
                    "name": "mine",
                    "fingerprint": "0123456789abcdef0123",
                    "principles": [{"id": name, "principle": text} for name, text in PRINCIPLES.items()],
                },
            }
        )
    return folder


def _revision_of_undecided(each: UndecidedRecord) -> RevisionRecord:
    messages: tuple[Message, ...] = each.prompt
    base = pair(each.uid, chosen=each.first, rejected=each.second)
    return revision_of(base).model_copy(update={"messages": messages, "tags": each.tags})


def verdict(
    on: PreferenceRecord | UndecidedRecord | RevisionRecord, said: Judgement | str, reviewer: str = "Ann", **changes: Any
) -> HumanVerdict:
    """A verdict. For two answers `said` may be the text that is better."""
    answers = Answers.of_record(on) if isinstance(on, RevisionRecord) else Answers.of_pair(on)
    judgement = said if isinstance(said, Judgement) else (Judgement.FIRST, Judgement.SECOND)[answers.texts.index(said)]
    values: dict[str, Any] = {
        "replies": answers.replies,
        "uid": answers.uid,
        "reviewer": reviewer,
        "judgement": judgement,
        "shown": "single" if answers.single else "first_second",
        "at": "2026-11-28T21:00:00.000+00:00",
        "by": "page",
    }
    return HumanVerdict(**values | changes)


def say(run: Path, *verdicts: HumanVerdict) -> None:
    with VerdictFile.open(run) as file:
        file.add(verdicts)
