"""Run folder → `ReportData`. Reads only, and works on a run of which only a part is done.

Long lists are cut to a sample that depends on the rows' names alone: the same run gives the same report.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from cai.evaluation.results import AnswerPair, EvaluationResult
from cai.labels.quality import LabelQuality
from cai.loop import GateTally
from cai.records import (
    EVALUATION,
    FailureRecord,
    LedgerEntry,
    Outcome,
    PreferenceRecord,
    RecordKind,
    RevisionRecord,
    Stage,
    Verdict,
)
from cai.report.data import (
    ConstitutionView,
    LabelsView,
    LedgerView,
    PrincipleUse,
    Reason,
    ReportData,
    TrainingView,
    Transcript,
)
from cai.store import RunFolder
from cai.training.results import TrainingResult

MAX_TRANSCRIPTS = 200
MAX_ANSWERS = 300
MAX_FAILURES = 20
BINS = 20

Model = TypeVar("Model", bound=BaseModel)


def collect(
    folder: RunFolder, *, max_transcripts: int = MAX_TRANSCRIPTS, max_answers: int = MAX_ANSWERS, name: str | None = None
) -> ReportData:
    """Read what a report shows from an open run folder; read-only is enough.

    Args:
        folder: Of a run in any state.
        max_transcripts: At most so many transcripts, drawn by the hash of their names.
        max_answers: At most so many pairs of evaluation answers, drawn likewise.
        name: Title of the report; default: the folder's name.

    Raises:
        StoreError: If the folder is damaged or was written by another version.
    """
    manifest = folder.manifest
    config = _mapping(manifest.get("config"))
    evaluation = next(folder.measurements(EVALUATION, EvaluationResult), None)
    answers = evaluation.answers if evaluation else ()
    labels = _labels(folder)
    uses: Counter[tuple[str, str]] = Counter()
    transcripts = _sample((_counted(record, uses) for record in _revisions(folder)), max_transcripts, _record_name)
    return ReportData(
        name=name or folder.path.resolve().name,
        program=str(manifest.get("program", "")),
        stages=_stages(folder, config),
        ledger=_ledger(folder, replicas=int(_mapping(config.get("loop")).get("replicas", 1))),
        evaluation=evaluation,
        answers=tuple(_sample(answers, max_answers, _answer_name)),
        answers_total=len(answers),
        transcripts=_transcripts(folder, transcripts),
        transcripts_total=folder.count_records(RecordKind.REVISION),
        gate=_gate(folder),
        labels=labels,
        training=tuple(_training(folder)),
        constitution=_constitution(_mapping(manifest.get("constitution")), uses),
        usage=folder.usage(),
        facts=tuple(_facts(manifest)),
        datasets=_datasets(folder),
        config=config,
    )


# ---- samples


def _sample(rows: Iterable[Model], size: int, name: Callable[[Model], str]) -> list[Model]:
    """At most `size` rows, in their own order: those whose names have the smallest hashes."""
    numbered = ((hashlib.blake2b(name(row).encode(errors="replace")).digest(), n, row) for n, row in enumerate(rows))
    return [row for _, _, row in sorted(heapq.nsmallest(size, numbered, key=lambda each: each[:2]), key=lambda each: each[1])]


def _record_name(record: RevisionRecord) -> str:
    return f"{record.uid}/{record.replica}"


def _answer_name(answer: AnswerPair) -> str:
    return f"{answer.uid}/{answer.temperature}/{answer.seed}"


# ---- parts


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _revisions(folder: RunFolder) -> Iterable[RevisionRecord]:
    return folder.records(RecordKind.REVISION, RevisionRecord)


def _counted(record: RevisionRecord, uses: Counter[tuple[str, str]]) -> RevisionRecord:
    for each in record.rounds:
        uses[each.principle_id, "drawn"] += 1
        uses[each.principle_id, "faults"] += each.verdict is Verdict.FAULT
        uses[each.principle_id, "revisions"] += each.revision is not None
    return record


def _stages(folder: RunFolder, config: dict[str, Any]) -> dict[Stage, bool]:
    left_out = {stage for stage in (Stage.SFT, Stage.DPO) if config and config.get(stage) is None}
    return {stage: finished for stage in Stage if (finished := folder.stage(stage) is not None) or stage not in left_out}


def _ledger(folder: RunFolder, *, replicas: int) -> LedgerView:
    counts = folder.ledger_counts()
    reasons = [Reason(outcome, reason, rows) for (outcome, reason), rows in folder.ledger_reasons().items()]
    order = list(Outcome)
    unreadable = folder.count_read_failures()
    total = unreadable + folder.count_records(RecordKind.FAILURE)
    failures = islice(chain(folder.read_failures(), folder.records(RecordKind.FAILURE, FailureRecord)), MAX_FAILURES)
    return LedgerView(
        items=folder.count_items(),
        replicas=replicas,
        unreadable=unreadable,
        rows=sum(counts.values()),
        counts=counts,
        reasons=tuple(sorted(reasons, key=lambda each: (order.index(each.outcome), -each.rows, each.reason))),
        failures=tuple((f"{each.uid}, {each.stage}: {each.cause}", each.detail) for each in failures),
        failures_left_out=max(0, total - MAX_FAILURES),
    )


def _transcripts(folder: RunFolder, records: list[RevisionRecord]) -> tuple[Transcript, ...]:
    wanted = {(record.uid, record.replica) for record in records}
    entries = {(entry.uid, entry.replica): entry for entry in folder.ledger() if (entry.uid, entry.replica) in wanted}
    labels = {
        (label.uid, label.replica): label
        for label in folder.records(RecordKind.PREFERENCE, PreferenceRecord)
        if (label.uid, label.replica) in wanted
    }

    def transcript(record: RevisionRecord) -> Transcript:
        key = (record.uid, record.replica)
        entry = entries.get(key, LedgerEntry(uid=record.uid, replica=record.replica, outcome=Outcome.PENDING))
        return Transcript(record, entry.outcome, entry.reason, labels.get(key))

    return tuple(transcript(record) for record in records)


def _gate(folder: RunFolder) -> GateTally | None:
    stage = folder.stage(Stage.GENERATE)
    return _parsed(GateTally, stage.summary["gate"]) if stage and "gate" in stage.summary else None


def _labels(folder: RunFolder) -> LabelsView | None:
    stage = folder.stage(Stage.LABEL)
    quality = _parsed(LabelQuality, stage.summary) if stage else None
    if quality is None:
        return None
    bins = [0] * BINS
    for label in folder.records(RecordKind.PREFERENCE, PreferenceRecord):
        bins[min(BINS - 1, int((label.p_chosen - 0.5) * 2 * BINS))] += 1
    return LabelsView(quality, tuple(bins))


def _training(folder: RunFolder) -> Iterable[TrainingView]:
    for stage in (Stage.SFT, Stage.DPO):
        finished = folder.stage(stage)
        metrics = tuple(read_metrics(folder.path / stage / "metrics.jsonl"))
        if finished or metrics:
            yield TrainingView(stage, _parsed(TrainingResult, finished.summary) if finished else None, metrics)


def read_metrics(path: Path) -> Iterable[dict[str, float]]:
    """The finite numbers of each whole line of a `metrics.jsonl`; a torn last line ends it, a missing file has none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for text in lines:
        try:
            line = _mapping(json.loads(text))
        except ValueError:
            return
        yield {name: float(value) for name, value in line.items() if isinstance(value, int | float) and math.isfinite(value)}


def _parsed(model: type[Model], summary: dict[str, Any]) -> Model | None:
    """A stage's summary, or None when the program of another version wrote it: the rest of the report still stands."""
    try:
        return model.model_validate(summary)
    except ValidationError:
        return None


def _constitution(constitution: dict[str, Any], uses: Counter[tuple[str, str]]) -> ConstitutionView | None:
    if not constitution:
        return None
    return ConstitutionView(
        name=str(constitution.get("name", "")),
        fingerprint=str(constitution.get("fingerprint", "")),
        principles=tuple(
            PrincipleUse(
                id=str(each["id"]),
                principle=str(each["principle"]),
                rationale=str(each.get("rationale", "")),
                weight=float(each.get("weight", 1.0)),
                applies_to=tuple(each.get("applies_to", ())),
                drawn=uses[each["id"], "drawn"],
                faults=uses[each["id"], "faults"],
                revisions=uses[each["id"], "revisions"],
            )
            for each in constitution.get("principles", ())
        ),
    )


def _facts(manifest: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """The manifest's short values, as (name, value) in the order a reader looks for them."""
    if "seed" in manifest:
        yield "seed", str(manifest["seed"])
    models = _mapping(manifest.get("models"))
    for role in sorted(models, key=lambda role: role != "policy"):
        yield from _listed_facts(role, _mapping(models[role]))
    constitution = _mapping(manifest.get("constitution"))
    if constitution:
        yield "constitution: fingerprint", str(constitution.get("fingerprint", ""))
    for group in ("prompts", "environment"):
        yield from _listed_facts(group, _mapping(manifest.get(group)))
    if "program" in manifest:
        yield "program version", str(manifest["program"])


def _listed_facts(group: str, facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Names and sources first, then the rest by name."""
    first = ("name", "source", "rows", "fingerprint", "python")
    for key in sorted(facts, key=lambda key: (first.index(key) if key in first else len(first), key)):
        yield f"{group}: {key.replace('_', ' ')}", str(facts[key])


def _datasets(folder: RunFolder) -> tuple[tuple[str, int, str], ...]:
    stage = folder.stage(Stage.EXPORT)
    if stage is None:
        return ()
    files, rows = _mapping(stage.summary.get("files")), _mapping(stage.summary.get("rows"))
    return tuple((kind, int(count), _listed(files.get(kind, ()))) for kind, count in rows.items())


def _listed(files: object) -> str:
    """A stage names one file or several."""
    return files if isinstance(files, str) else ", ".join(str(file) for file in cast("list[object]", files))
