"""Run folder → `ReportData`. Reads only, and works on a run of which only a part is done.

The same run gives the same report: where long lists are cut to a sample, that depends on the rows' names alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from cai.data.filters.overview import Overview
from cai.data.filters.stored import rules_of, stored_overview
from cai.errors import StoreError
from cai.evaluation.results import EvaluationResult
from cai.evaluation.suite_results import SuiteResult
from cai.labels.quality import LabelQuality
from cai.loop import GateTally
from cai.records import EVALUATION, SUITE_RESULTS, FailureRecord, Outcome, RecordKind, Stage
from cai.report.data import (
    BesideView,
    ConstitutionView,
    LabelsView,
    LedgerView,
    LengthRow,
    PrincipleUse,
    Reason,
    ReportData,
    TrainingView,
)
from cai.report.leash import FOLDER, leash_view
from cai.report.listings import (
    ANSWERS_SHARE,
    Pairs,
    budget_bytes_of,
    list_answers,
    list_suite_answers,
    list_transcripts,
)
from cai.review.figures import review_figures
from cai.review.flow import waiting
from cai.store import RunFolder
from cai.training.results import TrainingResult
from cai.training.reward_results import REWARD, read_quality

MAX_FAILURES = 20

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Beside:
    """Another run to show beside this one: what differs, and its folder, open."""

    view: BesideView
    folder: RunFolder


def collect(
    folder: RunFolder, *, name: str | None = None, budget_bytes: float | None = None, beside: Beside | None = None
) -> ReportData:
    """Read what a report shows from an open run folder; read-only is enough.

    Args:
        folder: Of a run in any state.
        name: Title of the report; default: the folder's name.
        budget_bytes: Most that transcripts and answers take in the page; default: by their number.
        beside: Another run.

    Raises:
        StoreError: If the folder is damaged or was written by another version.
    """
    manifest = folder.manifest
    config = _mapping(manifest.get("config"))
    evaluation = next(folder.measurements(EVALUATION, EvaluationResult), None)
    suites = tuple(folder.measurements(SUITE_RESULTS, SuiteResult))
    pairs = Pairs.of(folder)
    labels = _labels(folder, pairs)
    budget = budget_bytes_of(folder.count_records(RecordKind.REVISION), budget_bytes)
    answers = list_answers(evaluation, ANSWERS_SHARE * budget)
    suite_answers = list_suite_answers(folder, suites, ANSWERS_SHARE * budget)
    budget -= sum(each.size_bytes for each in (answers, suite_answers) if each)
    transcripts, tally = list_transcripts(
        folder,
        pairs,
        budget,
        other=beside.folder if beside else None,
        other_name=beside.view.name if beside else "",
    )
    return ReportData(
        name=name or folder.path.resolve().name,
        program=str(manifest.get("program", "")),
        stages=_stages(folder, config),
        ledger=_ledger(folder, replicas=int(_mapping(config.get("loop")).get("replicas", 1))),
        evaluation=evaluation,
        suites=suites,
        transcripts=transcripts,
        answers=answers,
        suite_answers=suite_answers,
        lengths=(*tally.lengths(), *pairs.lengths(), *_answer_lengths(evaluation)),
        beside=beside.view if beside else None,
        bad_calls=tally.bad_calls,
        gate=_gate(folder),
        filters=_filters(folder),
        labels=labels,
        review=review_figures(folder) if labels else None,
        waiting=str(found) if labels and (found := waiting(folder)) else "",
        training=tuple(_training(folder)),
        leash=leash_view(folder.path / FOLDER, list(read_metrics(folder.path / FOLDER / "metrics.jsonl"))),
        reward=read_quality(folder.path / REWARD),
        constitution=_constitution(_mapping(manifest.get("constitution")), tally.uses),
        usage=folder.usage(),
        facts=tuple(_facts(manifest)),
        datasets=_datasets(folder),
        config=config,
    )


# ---- parts


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


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


def _answer_lengths(evaluation: EvaluationResult | None) -> Iterable[LengthRow]:
    if evaluation is not None and (answers := evaluation.answers):
        before, after = (sum(len(text.split()) for text in side) / len(answers) for side in _both(evaluation))
        yield LengthRow("held-out answers", "before", before, "after", after, len(answers))


def _both(evaluation: EvaluationResult) -> tuple[list[str], list[str]]:
    return [each.before for each in evaluation.answers], [each.after for each in evaluation.answers]


def _gate(folder: RunFolder) -> GateTally | None:
    stage = folder.stage(Stage.GENERATE)
    return _parsed(GateTally, stage.summary["gate"]) if stage and "gate" in stage.summary else None


def _filters(folder: RunFolder) -> Overview | None:
    if folder.stage(Stage.LABEL) is None:
        return None
    try:
        rules_of(folder)
    except StoreError:
        return None  # settings of another version; the rest of the report still stands
    return stored_overview(folder)


def _labels(folder: RunFolder, pairs: Pairs) -> LabelsView | None:
    stage = folder.stage(Stage.LABEL)
    quality = _parsed(LabelQuality, stage.summary) if stage else None
    return LabelsView(quality, tuple(pairs.histogram)) if quality is not None else None


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
