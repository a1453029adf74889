"""The shards of a run → one run folder, in which every input row stands exactly once.

What is refused: shards of different runs, missing, doubled or unfinished ones, and a whole that is not the input they were
made of. The records are those of an unsharded run, to the byte; `cai run` goes on from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cai.config.settings import RunConfig
from cai.data.corpus import input_fingerprint
from cai.data.filters.sieve import sees_whole
from cai.errors import CaiError, ConfigError, ProblemList, StoreError
from cai.labels import LabelQuality, label_quality
from cai.labels.stop_bar import WeakLabellerError, advice, weaknesses
from cai.loop import gate_tally
from cai.pipeline.generating import HELD_OUT, LABEL_KINDS, label_key, shard_key, whole_generation_key
from cai.pipeline.manifest import results_of
from cai.pipeline.sharding import Shard
from cai.records import BAD_CALLS_KEY, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage, UndecidedRecord
from cai.store import REVIEW_NAME, RunFolder, VerdictFile

_SHOWN_NUMBERS = 20


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge came to. Not `labelled` where a shard was without labels or a filter needs all rows: they are still to be
    put together.
    """

    folder: Path
    shards: int
    labelled: bool
    ledger: dict[Outcome, int]


@dataclass(frozen=True, slots=True)
class _Part:
    """One shard's folder, open for reading, and what its manifest says."""

    folder: RunFolder
    shard: Shard
    config: RunConfig
    facts: dict[str, str]

    @property
    def whole_key(self) -> str:
        """Fingerprint of the loop's records in the run that it is a share of."""
        names = ("prompts", "constitution", "model policy", "model feedback")
        return whole_generation_key(self.config, *(self.facts[name] for name in names))

    @property
    def generated(self) -> bool:
        stage = self.folder.stage(Stage.GENERATE)
        return stage is not None and stage.fingerprint == shard_key(self.whole_key, self.shard)

    @property
    def labelled(self) -> bool:
        stage = self.folder.stage(Stage.LABEL)
        # Labels that hang on all margins of the run cannot be put together from those of its shares.
        of_the_whole = self.config.labels.ensemble == "normalised"
        generated, human = shard_key(self.whole_key, self.shard), self.facts["human labels"]
        key = label_key(self.config, self.labellers, generated, human, of_shard=True)
        return not of_the_whole and stage is not None and stage.fingerprint == key

    @property
    def labellers(self) -> list[str]:
        """Fingerprints of the models that label."""
        roles = [role for role in self.config.models if role.startswith("labeller")] or ["feedback"]
        return [self.facts[f"model {role}"] for role in roles]


def merge(out: Path, shards: Sequence[Path]) -> Merged:
    """Put the shards together in the run folder `out`. Interrupted, it is begun again; the shards are not changed.

    Raises:
        ProblemList: With everything that speaks against it; `out` is as it was.
        StoreError: If `out` holds another run, or cannot be written.
        WeakLabellerError: If only all pairs together show that the labeller mostly names a place, and no shard allowed it.
    """
    with ExitStack() as stack:
        parts = _checked([_opened(stack, path) for path in dict.fromkeys(path.resolve() for path in shards)])
        whole = stack.enter_context(RunFolder.open(out))
        key = parts[0].whole_key
        before = whole.stage(Stage.GENERATE)
        if before is not None and before.fingerprint != key:
            raise StoreError(f"{out}: holds another run.", "Choose a new or an empty folder.")
        whole.join([part.folder.path for part in parts])
        # Rules that need all rows could not be asked in a shard: the labels are then put together again, from stored calls.
        labelled = all(part.labelled for part in parts) and not sees_whole(parts[0].config.filters)
        if not labelled:
            whole.reopen(RecordKind.REVISION, dropping=LABEL_KINDS)
        _check_whole(whole, parts, labelled=labelled)
        _note(whole, parts, labelled=labelled)
        _join_verdicts(whole.path, parts)
        return Merged(out, len(parts), labelled, whole.ledger_counts())


def _opened(stack: ExitStack, path: Path) -> _Part | CaiError:
    try:
        folder = stack.enter_context(RunFolder.open(path, create=False, read_only=True))
        manifest = folder.whole_manifest
    except CaiError as error:
        return error
    if not manifest.get("shard"):
        return ConfigError(f"{path}: not the folder of a shard.", "Name folders made by `cai run CONFIG --shard 1/8` …")
    try:
        shard = Shard.parse(str(manifest["shard"]))
        config = RunConfig.model_validate(manifest["config"])
        facts = {
            "prompts": str(manifest["prompts"]["fingerprint"]),
            "constitution": str(manifest["constitution"]["fingerprint"]),
            "human labels": str(manifest["human_labels"]["fingerprint"] if manifest["human_labels"] else ""),
            **{f"model {role}": str(manifest["models"][role]["fingerprint"]) for role in config.models},
        }
    except (KeyError, TypeError, ValidationError, ConfigError):
        return StoreError(f"{path}: its manifest was written by another version.", "Run the shard again: model calls are kept.")
    return _Part(folder, shard, config, facts)


def _checked(found: Sequence[_Part | CaiError]) -> list[_Part]:
    """The shards in their order.

    Raises:
        ProblemList: If they are not all the finished shards of one run.
    """
    problems = [each for each in found if isinstance(each, CaiError)]
    parts = sorted((each for each in found if isinstance(each, _Part)), key=lambda part: part.shard.number)
    if parts:
        problems += _missing(parts)
        for part in parts:
            problems += _differences(parts[0], part)
            if not part.generated:
                again = f"Run it to its end: `cai run CONFIG --shard {part.shard}`."
                problems.append(StoreError(f"{part.folder.path}: its generation is not finished.", again))
    if problems:
        raise ProblemList("These shards cannot be merged:", problems)
    return parts


def _missing(parts: Sequence[_Part]) -> list[CaiError]:
    problems: list[CaiError] = []
    of = parts[0].shard.of
    numbers = [part.shard.number for part in parts if part.shard.of == of]
    problems += [
        ConfigError(f"{part.folder.path}: is shard {part.shard}, others are of {of}.", "Merge the shards of one run.")
        for part in parts
        if part.shard.of != of
    ]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        problems.append(ConfigError(f"there twice: {', '.join(f'{number}/{of}' for number in twice)}.", "Name each once."))
    missing = sorted(set(range(1, of + 1)) - set(numbers))
    if missing:
        shown = ", ".join(f"{number}/{of}" for number in missing[:_SHOWN_NUMBERS])
        more = f" and {len(missing) - _SHOWN_NUMBERS} more" if len(missing) > _SHOWN_NUMBERS else ""
        problems.append(ConfigError(f"not there: {shown}{more}.", "Run and name every shard."))
    return problems


def _differences(first: _Part, part: _Part) -> list[CaiError]:
    old, new = first.facts | _settings(first.config), part.facts | _settings(part.config)
    names = ", ".join(name for name in old | new if old.get(name) != new.get(name))
    if not names:
        return []
    hint = "All shards need one configuration, one constitution, the same prompts and models."
    return [ConfigError(f"{part.folder.path}: differs from {first.folder.path} in {names}.", hint)]


def _settings(config: RunConfig) -> dict[str, Any]:
    """What records depend on besides prompts, principles and models."""
    every = config.model_dump(mode="json", include={"seed", "holdout_share", "loop", "labels", "filters"})
    for section in ("loop", "labels"):
        cast("dict[str, Any]", every[section]).pop("chunk_items")
    for name in ("models", "allow_weak_labels"):
        every["labels"].pop(name)
    return every


def _check_whole(whole: RunFolder, parts: Sequence[_Part], *, labelled: bool) -> None:
    whole.assert_balanced(finished=labelled)
    held_out = (entry.reason == HELD_OUT for entry in whole.ledger() if entry.replica == 0)
    made = input_fingerprint(zip(held_out, whole.items(), strict=False), whole.read_failures())
    if made != parts[0].facts["prompts"]:
        raise StoreError(
            f"{whole.path}: the rows of the shards are not the input they were made of, each exactly once.",
            "A shard's folder was changed by hand; run the shards again: model calls are kept.",
        )
    expected = _sum(parts, "records"), whole.count_items() * parts[0].config.loop.replicas
    held = whole.ledger_reasons().get((Outcome.FILTERED, HELD_OUT), 0)
    records = whole.count_records(RecordKind.REVISION)
    if records != expected[0] or records + _sum(parts, "failures") + held != expected[1]:
        raise StoreError(
            f"{whole.path}: {records} records, {_sum(parts, 'failures')} failures and {held} held out do not make "
            f"{expected[1]} input rows.",
            "A shard's folder was changed by hand; run the shards again: model calls are kept.",
        )


def _join_verdicts(whole: Path, parts: Sequence[_Part]) -> None:
    """What people said of the shards counts for the whole, too."""
    if not any((part.folder.path / REVIEW_NAME).is_file() for part in parts):
        return
    with VerdictFile.open(whole) as verdicts:
        for part in parts:
            verdicts.join(part.folder.path)


def _note(whole: RunFolder, parts: Sequence[_Part], *, labelled: bool) -> None:
    """The finished stages, as an unsharded run would have noted them, and a manifest."""
    first = parts[0]
    summary: dict[str, Any] = {name: _sum(parts, name) for name in ("records", "failures")}
    if bad := _sum(parts, BAD_CALLS_KEY):
        summary[BAD_CALLS_KEY] = bad
    if first.config.loop.gate is not None:
        summary["gate"] = gate_tally(whole.records(RecordKind.REVISION, RevisionRecord)).model_dump(mode="json")
    manifest = first.folder.whole_manifest
    prompts = manifest["prompts"] | {
        name: sum(part.folder.manifest["prompts"][name] for part in parts) for name in ("rows", "items", "failures", "held_out")
    }
    config = first.config.model_copy(update={"run": whole.path})
    with whole.transaction():
        whole.put_stage(Stage.GENERATE, first.whole_key, summary)
        if labelled:
            quality = label_quality(
                whole.records(RecordKind.PREFERENCE, PreferenceRecord), whole.records(RecordKind.UNDECIDED, UndecidedRecord)
            )
            key = label_key(first.config, first.labellers, first.whole_key, first.facts["human labels"])
            whole.put_stage(Stage.LABEL, key, _with_examination(quality, parts).model_dump(mode="json"))
    noted = {"shard": None, "config": config, "prompts": prompts, "merged_shards": len(parts)}
    whole.write_manifest(manifest | noted | results_of(whole))


def _with_examination(quality: LabelQuality, parts: Sequence[_Part]) -> LabelQuality:
    """What is said of all labels, with what every shard found out about the same labellers.

    Raises:
        WeakLabellerError: If only all pairs together show that they are too weak, and no shard allowed it.
    """
    stages = [part.folder.stage(Stage.LABEL) for part in parts]
    own = [LabelQuality.model_validate(stage.summary) for stage in stages if stage is not None]
    merged = quality.model_copy(update={"exam": own[0].exam, "human": own[0].human})
    found = weaknesses(merged)
    if found and not any(part.config.labels.allow_weak_labels for part in parts):
        raise WeakLabellerError(found, advice(parts[0].config.labels.method))
    return merged.model_copy(update={"weak_labels_allowed": found})


def _sum(parts: Sequence[_Part], name: str) -> int:
    stages = [part.folder.stage(Stage.GENERATE) for part in parts]
    return sum(int(stage.summary.get(name, 0)) for stage in stages if stage is not None)
