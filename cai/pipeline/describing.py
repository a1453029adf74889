"""What the card of a data set tells of its run: read from the run folder, where the stages left it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, cast

from pydantic import ValidationError

from cai.data.cards import DatasetFacts, FilterFact
from cai.data.filters.leakage import LEAKAGE
from cai.data.filters.stored import rules_of, stored_overview
from cai.data.readable import readable
from cai.labels import LabelQuality
from cai.models.spec import ModelSpec
from cai.records import Outcome, Stage
from cai.report.labels_in_words import (
    calibration_in_words,
    exam_in_words,
    human_in_words,
    principles_in_words,
    quality_in_words,
    unknown_judge,
)
from cai.report.review_in_words import review_in_words
from cai.review.figures import review_figures
from cai.store import RunFolder

WEAK_LABELS_KEY = "weak_labels_allowed"
"""In the summary of the labels: why they were made although the labeller was found wanting."""
_TOLD_ELSEWHERE = ("chunk_items", "models", "human", "allow_weak_labels")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
_HUB_SOURCE = re.compile(r"hub \S+@(\S+)")


def dataset_facts(folder: RunFolder, *, licence: str | None = None, languages: tuple[str, ...] = ()) -> DatasetFacts:
    """All that a card tells of a run, but its files and rows.

    Args:
        folder: Of a run whose labels are made.
        licence: Of the data set, as the hub names it.
        languages: Codes.
    """
    manifest = folder.manifest
    config, constitution = _mapping(manifest.get("config")), _mapping(manifest.get("constitution"))
    labelled = folder.stage(Stage.LABEL)
    summary = dict(labelled.summary) if labelled else {}
    name = str(constitution.get("name", ""))
    found = review_figures(folder) if labelled else None
    reviewed = {f"by review: {meaning}": figure for figure, meaning in review_in_words(found)} if found is not None else {}
    return DatasetFacts(
        name=f"Revisions and preferences under “{name}”",
        files={},
        rows={},
        ledger={f"{o.value}: {reason}" if reason else o.value: n for (o, reason), n in folder.ledger_reasons().items()},
        models=_models(manifest, config),
        constitution=name,
        constitution_fingerprint=str(constitution.get("fingerprint", "")),
        seed=int(manifest.get("seed", 0)),
        licence=licence,
        languages=languages,
        principles={str(each["id"]): str(each["principle"]) for each in constitution.get("principles", ())},
        making=dict(_making(manifest, config)),
        label_quality=dict(_label_quality(summary)) | reviewed,
        filters=tuple(_filters(folder)),
        reviewed=found is not None,
        warnings=tuple(_warnings(summary)),
    )


def _warnings(summary: Mapping[str, Any]) -> Iterator[str]:
    if weak := summary.get(WEAK_LABELS_KEY):
        yield f"These labels were made although the labeller was found wanting: {_listed(weak)}."
    quality = _quality(summary)
    if quality is not None:
        yield from unknown_judge(quality)


def _quality(summary: Mapping[str, Any]) -> LabelQuality | None:
    """The figures; None where another version of the program wrote them."""
    try:
        return LabelQuality.model_validate(summary)
    except ValidationError:
        return None


def _label_quality(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each figure means → the figure."""
    if not summary:
        return
    quality = _quality(summary)
    if quality is None:
        yield "the figures", "not told here: another version of the program wrote them; see the report it made"
        return
    yield from ((meaning, figure) for figure, meaning in (*quality_in_words(quality), *principles_in_words(quality)))
    if quality.exam is not None:
        yield "the labeller's examination", exam_in_words(quality.exam)
    if quality.human is not None:
        lines = (*human_in_words(quality.human), *calibration_in_words(quality.human))
        yield from ((f"against people: {meaning}", figure) for figure, meaning in lines)


def _models(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    described = _mapping(manifest.get("models"))
    specs = {role: _mapping(config.get(role) or config.get("policy")) for role in ("policy", "feedback")}
    labellers = cast("list[object]", _mapping(config.get("labels")).get("models") or [])
    specs |= {f"labeller {number}": _mapping(each) for number, each in enumerate(labellers, start=1)}
    return {role: _model(_mapping(described[role]), spec) for role, spec in specs.items() if role in described}


def _model(about: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """Name, revision, fingerprint and licence, as far as they are known; of a path, only the last part."""
    adapter = spec.get("adapter")
    parts = [_public(str(spec.get("name", about.get("name", ""))))]
    if adapter:
        parts[0] += f" + {_public(str(adapter))}"
    if spec.get("server"):
        parts[0] += " (served)"
    source = str(about.get("source", ""))
    commit = _HUB_SOURCE.fullmatch(source)
    revision = commit.group(1) if commit else spec.get("revision")
    if revision:
        parts.append(f"revision {revision}")
    if about.get("fingerprint"):
        parts.append(f"fingerprint {str(about['fingerprint'])[:16]}")
    if licence := about.get("licence"):
        parts.append(f"licence {licence}")
    return ", ".join(parts)


def shown_model(spec: ModelSpec) -> str:
    """A model as tables and pages name it: without the folders it lies in."""
    name = _public(spec.name) + (f" + {_public(spec.adapter)}" if spec.adapter else "")
    return f"{name} (served)" if spec.server is not None else name


def _public(name: str) -> str:
    """A hub id as it is; a path without its folders, which are this machine's affair."""
    return name if _HUB_ID.fullmatch(name) else PurePath(name.removeprefix("scripted:")).name


def _making(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prompts = _mapping(manifest.get("prompts"))
    if "source" in prompts:
        yield "prompts", f"{_public(str(prompts['source']))} ({int(prompts.get('rows', 0)):,} rows)"
    for section in ("loop", "labels"):
        lines = readable(_mapping(config.get(section)), leaving_out=_TOLD_ELSEWHERE)
        yield from ((f"{section}: {name}", value) for name, value in lines.items())
    if "program" in manifest:
        yield "program", f"constitution-cai {manifest['program']}"


def _filters(folder: RunFolder) -> Iterator[FilterFact]:
    counts = {reason: n for (outcome, reason), n in folder.ledger_reasons().items() if outcome is Outcome.FILTERED}
    compared = ", ".join(map(_public, rules_of(folder).evaluation_sets))
    for each in stored_overview(folder).rules:
        meaning = each.description
        if each.rule == LEAKAGE.id and each.action != "off":
            meaning += f" Compared with: {compared}."
        yield FilterFact(each.rule, each.action, counts.pop(each.rule, 0), each.found, meaning)
    yield from (FilterFact(reason, "–", n, n) for reason, n in sorted(counts.items()))


def _listed(reasons: object) -> str:
    return "; ".join(map(str, cast("list[object]", reasons))) if isinstance(reasons, list) else str(reasons)


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
