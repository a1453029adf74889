"""Run folders whose labels are made, written through the store itself: what an export reads, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cai.labels.quality import label_quality
from cai.records import (
    ComparisonRecord,
    Item,
    LedgerEntry,
    Outcome,
    PreferenceRecord,
    RecordKind,
    RevisionRecord,
    Round,
    Stage,
    Verdict,
)
from cai.store import MANIFEST_VERSION, RunFolder
from constitution.messages import Message, assistant, system, user

PRINCIPLES = {"kind": "Be kind, and say *why*.", "brief": "Be brief.", "unasked": "Be | unasked."}
NASTY = 'say "hi", é 日本語 \U0001f600;\r\n\t{{ x }} <script> <|im_end|> \u2028 \\'
TURNS = (system("Be kind."), user("a"), assistant("b"), user(NASTY))


def labelled_pair(
    uid: str = "one",
    *,
    replica: int = 0,
    number: int = 0,
    prompt: tuple[Message, ...] = (user("q"),),
    chosen: str = "a better reply",
    rejected: str = "a worse reply",
    p_chosen: float = 0.875,
    margins: Sequence[tuple[str, float]] = (("kind", 2.0), ("brief", -0.5)),
    chosen_is_first: bool = True,
) -> PreferenceRecord:
    """A pair; `margins` are those of the principles, and speak of the reply that stood first."""
    comparisons = tuple(
        ComparisonRecord(uid=uid, replica=replica, principle_id=principle, method="pointwise", order="none", margin_nats=margin)
        for principle, margin in margins
    )
    return PreferenceRecord(
        uid=uid,
        replica=replica,
        number=number,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_source="revision",
        rejected_source="draft",
        chosen_is_first=chosen_is_first,
        p_chosen=p_chosen,
        margin_nats=1.5,
        method="pointwise",
        principle_ids=tuple(principle for principle, _ in margins),
        comparisons=comparisons,
    )


PAIRS = (
    labelled_pair("one", prompt=TURNS),
    labelled_pair("two", chosen=NASTY, p_chosen=0.6),
    labelled_pair("two", number=1, chosen="another draft of it", p_chosen=0.95),
    labelled_pair("three", prompt=(user("x"), assistant("y"), user("z")), rejected="w" * 40, p_chosen=1.0),
)


def revision_of(pair: PreferenceRecord) -> RevisionRecord:
    done = Round(round=0, principle_id="kind", critique="c", verdict=Verdict.FAULT, revision=pair.chosen)
    return RevisionRecord(uid=pair.uid, replica=pair.replica, messages=pair.prompt, draft=pair.rejected, rounds=(done,))


def write_labelled_run(
    folder: Path,
    pairs: Iterable[PreferenceRecord] = PAIRS,
    *,
    policy: str = "scripted:policy.yaml",
    labelled: bool = True,
    extra_summary: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run of these pairs, one revision for each item, and one row that a filter took out."""
    known = list(pairs)
    firsts = {(pair.uid, pair.replica): pair for pair in reversed(known)}
    uids = list(dict.fromkeys(pair.uid for pair in known))
    prompts = {uid: next(pair.prompt for pair in known if pair.uid == uid) for uid in uids}
    replicas = 1 + max((pair.replica for pair in known), default=0)
    settings: dict[str, Any] = {"policy": {"name": policy}, "filters": {"meta_talk": True, "max_growth": 8.0}, **(config or {})}
    with RunFolder.open(folder) as run:
        items = [Item(uid=uid, messages=prompts[uid]) for uid in uids] + [Item(uid="spoilt", messages=(user("s"),))]
        run.put_items(items, replicas=replicas)
        run.put_records(RecordKind.REVISION, [revision_of(pair) for pair in firsts.values()])
        run.put_records(RecordKind.PREFERENCE, known)
        run.settle(
            LedgerEntry(uid=item.uid, replica=replica, outcome=Outcome.PAIR)
            if (item.uid, replica) in firsts
            else LedgerEntry(uid=item.uid, replica=replica, outcome=Outcome.FILTERED, reason="meta_talk")
            for item in items
            for replica in range(replicas)
        )
        run.put_stage(Stage.GENERATE, "g", {"records": len(firsts), "failures": 0})
        if labelled:
            run.put_stage(Stage.LABEL, "l", {**label_quality(known).model_dump(mode="json"), **(extra_summary or {})})
        run.write_manifest(
            {
                "version": MANIFEST_VERSION,
                "program": "0.1.0",
                "seed": 7,
                "config": settings,
                "constitution": {
                    "name": "mine",
                    "fingerprint": "0123456789abcdef0123",
                    "principles": [{"id": name, "principle": text} for name, text in PRINCIPLES.items()],
                },
                "models": {
                    "policy": {"name": policy, "source": "a script", "fingerprint": "f" * 64},
                    "feedback": {"name": policy, "source": "a script", "fingerprint": "f" * 64},
                },
                "prompts": {"source": "/somewhere/of/mine/prompts.jsonl", "rows": len(items), "items": len(items)},
            }
        )
    return folder
