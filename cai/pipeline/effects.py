"""What two runs came to, stage by stage, and where that differs: rows, labels, figures with intervals, bytes of files."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from cai.errors import StoreError
from cai.evaluation.results import EvaluationResult
from cai.evaluation.suite_results import SuiteAnswer, SuiteResult
from cai.records import EVALUATION, SUITE_ANSWERS, SUITE_RESULTS, RecordKind, Stage
from cai.report.collecting import read_metrics
from cai.statistics import Interval, cluster_bootstrap, holm, sign_flip_p, wilson_interval
from cai.store import RunFolder
from cai.store.pairing import Common, Labels, paired

FileState: TypeAlias = Literal[
    "same", "same but for times", "same but for where the model lies", "different", "only first", "only second", "not compared"
]
SHOWN_ROWS = 10
_TIMES = frozenset({"seconds", "tokens_per_second", "resumed_from_step", "reference_computed"})
"""How long training took and where it was interrupted: in its notes, and no part of what was made."""
_PLACE = "base_model_name_or_path"
"""In an adapter's settings, the model it is for, as the user named it: models are compared by content, wherever they lie."""
BESIDE = ("reward", "rl")
"""Folders of models that other commands make of a run."""


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file that a stage wrote, in one run or in both."""

    path: str
    stage: str
    state: FileState

    @property
    def differs(self) -> bool:
        return self.state in ("different", "only first", "only second")


@dataclass(frozen=True, slots=True)
class BehaviourDifference:
    """Bad answers after training in two runs, on the same prompts; `difference` is second − first, in shares.

    Args:
        behaviour: Its id.
        label: What is counted.
        prompts: In both runs; of a suite, groups of prompts that belong together.
        answers: In both runs.
        first: Share in the first run.
        second: Share in the second run.
        difference: Second − first.
        interval: 95 %, of the difference, resampling prompts.
        p_holm: That there is none, by flipped signs of whole clusters, corrected for the number of behaviours.
    """

    behaviour: str
    label: str
    prompts: int
    answers: int
    first: float
    second: float
    difference: float
    interval: Interval
    p_holm: float


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """A figure of the last logged step of training."""

    stage: str
    name: str
    first: float | None
    second: float | None


NOTHING = Common(0, 0, 0, 0)
NO_LABELS = Labels(0, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class Effects:
    """What two runs came to.

    Args:
        items: Input rows.
        revisions: Whole records of the loop.
        drafts: Their drafts alone, among rows that both runs have finished.
        changed_rows: The first rows whose record is not the same: uid, replica.
        labels: Labels of the same two answers.
        flip_interval: 95 %, of the share of flips among those decided in both; None without any.
        label_records: Kind → whole records.
        outcomes: (first outcome, second outcome) → rows.
        totals: Outcome → rows in the first run and in the second, where single rows cannot be compared.
        files: That stages wrote.
        metrics: Of training, where they differ.
        behaviours: After training.
        not_compared: What could not be, and why.
    """

    items: Common = NOTHING
    revisions: Common = NOTHING
    drafts: Common = NOTHING
    changed_rows: tuple[tuple[str, int], ...] = ()
    labels: Labels = NO_LABELS
    flip_interval: Interval | None = None
    label_records: Mapping[str, Common] = field(default_factory=dict[str, Common])
    outcomes: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    totals: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    files: tuple[FileDifference, ...] = ()
    metrics: tuple[MetricDifference, ...] = ()
    behaviours: tuple[BehaviourDifference, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def changed_outcomes(self) -> dict[tuple[str, str], int]:
        return {pair: rows for pair, rows in self.outcomes.items() if pair[0] != pair[1]}

    def differing(self, stage: str) -> bool:
        """Whether anything that a stage made is not the same."""
        if any(each.stage == stage and each.differs for each in self.files):
            return True
        if stage == Stage.GENERATE:
            return not self.revisions.alike
        if stage != Stage.LABEL:
            return False
        rows = self.changed_outcomes or any(one != other for one, other in self.totals.values())
        return bool(rows) or not all(each.alike for each in self.label_records.values())


def effects(
    first: RunFolder,
    second: RunFolder,
    *,
    of_second: bool = False,
    until: Stage = Stage.EVALUATE,
    beside: bool = False,
) -> Effects:
    """Compare what two runs made. Fast also for many rows: what is the same, SQLite finds without a row being read.

    Args:
        first: A run.
        second: Another.
        of_second: Only rows that are the second run's input: it repeats a sample of the first.
        until: The last stage that both were to come to.
        beside: Also what other commands made of the runs: reward models, models optimised by `cai rl`.

    Raises:
        StoreError: If one is damaged.
    """
    not_compared = [*_stopped("first", first, until), *_stopped("second", second, until)]
    behaviours = _behaviours(first, second, not_compared) if until is Stage.EVALUATE else []
    wanted = _up_to(until) if not of_second else ()
    others = _beside(first.path, second.path, not_compared) if beside else []
    with paired(first.path, second.path, of_second=of_second) as both:
        labels = both.labels()
        return Effects(
            items=both.items(),
            revisions=both.records(RecordKind.REVISION),
            drafts=both.texts("draft"),
            changed_rows=tuple(both.changed_rows(SHOWN_ROWS)),
            labels=labels,
            flip_interval=wilson_interval(labels.flips, labels.decided) if labels.decided else None,
            label_records={
                kind.value: both.records(kind)
                for kind in RecordKind
                if kind not in (RecordKind.REVISION, RecordKind.FINDING) and until is not Stage.GENERATE
            },
            outcomes={(one, other): n for one, other, n in both.outcomes() if until is not Stage.GENERATE},
            files=(*(each for each in _files(first, second) if each.stage in wanted), *others),
            metrics=tuple(
                each for each in _metrics(first.path, second.path) if each.stage in wanted or (beside and each.stage in BESIDE)
            ),
            behaviours=tuple(behaviours),
            not_compared=tuple(not_compared),
        )


def _stopped(name: str, run: RunFolder, until: Stage) -> Iterator[str]:
    """That a run is not finished, or still at work: what it lacks is then no difference of what it makes."""
    made = {
        Stage.GENERATE: (RecordKind.REVISION,),
        Stage.LABEL: (RecordKind.PREFERENCE, RecordKind.UNDECIDED),
    }
    for stage, kinds in made.items():
        if stage.value not in _up_to(until) or run.stage(stage) is not None:
            continue
        begun = stage is Stage.GENERATE or any(map(run.count_records, kinds))
        why = f"it was stopped in {stage.value}, or is still at it" if begun else f"it has not come to {stage.value}"
        yield f"rows that the {name} run does not have: {why}"
        return


def noted_effects(first: Mapping[str, Any], second: Mapping[str, Any], *, until: Stage = Stage.EVALUATE) -> Effects:
    """The same from two manifests, where there is no more of the first run: ledger and hashes of files."""
    mine, theirs = (cast("dict[str, dict[str, Any]]", each.get("outputs") or {}) for each in (first, second))
    files: list[FileDifference] = []
    for path in sorted({*mine, *theirs}):
        one, other = mine.get(path), theirs.get(path)
        stage = str((one or other or {}).get("stage"))
        if stage not in _up_to(until):
            continue
        if one is None or other is None:
            files.append(FileDifference(path, stage, "only first" if other is None else "only second"))
        elif one["sha256"] == other["sha256"]:
            files.append(FileDifference(path, stage, "same"))
        else:
            unsure = _holds_times(Path(path)) or _names_a_model(Path(path))
            files.append(FileDifference(path, stage, "not compared" if unsure else "different"))
    rows = [cast("dict[str, dict[str, int]]", each.get("ledger") or {}).get("rows", {}) for each in (first, second)]
    comparable = rows[0] and until is not Stage.GENERATE
    totals = {name: (rows[0].get(name, 0), rows[1].get(name, 0)) for name in rows[1]} if comparable else {}
    return Effects(totals=totals, files=tuple(files), not_compared=("rows: only the manifest of the first run is here",))


def _up_to(until: Stage) -> tuple[str, ...]:
    order = list(Stage)
    return tuple(stage.value for stage in order[: order.index(until) + 1])


def _files(first: RunFolder, second: RunFolder) -> Iterator[FileDifference]:
    mine, theirs = ({file.path: file for file in run.files()} for run in (first, second))
    for path in sorted({*mine, *theirs}):
        one, other = mine.get(path), theirs.get(path)
        if one is None or other is None:
            found = one or other
            assert found is not None, "in one of them"
            yield FileDifference(path, found.stage, "only first" if other is None else "only second")
        elif one.sha256 == other.sha256:
            yield FileDifference(path, one.stage, "same")
        else:
            yield FileDifference(path, one.stage, _state_of_other_bytes(first.path / path, second.path / path))


def _beside(first: Path, second: Path, not_compared: list[str]) -> list[FileDifference]:
    """Of finished models beside the runs; their bytes are read, for no run has noted them."""
    found: list[FileDifference] = []
    for name in BESIDE:
        mine, theirs = (_files_of(run / name) for run in (first, second))
        if unfinished := [of for of, files in (("first", mine), ("second", theirs)) if files and "training.json" not in files]:
            not_compared.append(f"{name}: of the {' and the '.join(unfinished)} run it is not finished")
            continue
        for path in sorted({*mine, *theirs}):
            place = f"{name}/{path}"
            if path not in mine or path not in theirs:
                found.append(FileDifference(place, name, "only first" if path in mine else "only second"))
            elif filecmp.cmp(mine[path], theirs[path], shallow=False):
                found.append(FileDifference(place, name, "same"))
            else:
                found.append(FileDifference(place, name, _state_of_other_bytes(mine[path], theirs[path])))
    return found


def _files_of(folder: Path) -> dict[str, Path]:
    """What a training has left: model, adapter, notes."""
    if not (folder / "run.json").is_file():
        return {}
    files = [each for part in (folder, folder / "adapter") for each in part.glob("*") if each.is_file()]
    return {each.relative_to(folder).as_posix(): each for each in files if each.name != ".lock"}


def _state_of_other_bytes(one: Path, other: Path) -> FileState:
    """Of two files whose bytes differ."""
    if _without_times(one) == _without_times(other) is not None:
        return "same but for times"
    return "same but for where the model lies" if _without_place(one) == _without_place(other) is not None else "different"


def _without_place(path: Path) -> dict[str, Any] | None:
    """An adapter's settings without the name of its model; None for what is none."""
    if not _names_a_model(path):
        return None
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", found) | {_PLACE: None} if isinstance(found, dict) else None


def _names_a_model(path: Path) -> bool:
    return path.name == "adapter_config.json"


def _without_times(path: Path) -> Any:
    """A note of training without what tells of the clock; None for what is no such note."""
    if not _holds_times(path):
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]
        return [_timeless(json.loads(line)) for line in lines]
    except (OSError, ValueError):
        return None


def _holds_times(path: Path) -> bool:
    return path.suffix in (".json", ".jsonl") and path.parent.name in (Stage.SFT, Stage.DPO, *BESIDE)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        facts = cast("dict[str, Any]", value)
        return {name: _timeless(below) for name, below in facts.items() if name not in _TIMES}
    return [_timeless(below) for below in cast("list[Any]", value)] if isinstance(value, list) else value


def _metrics(first: Path, second: Path) -> Iterator[MetricDifference]:
    for stage in (Stage.SFT.value, Stage.DPO.value, *BESIDE):
        last: list[dict[str, float]] = []
        for folder in (first, second):
            lines = list(read_metrics(folder / stage / "metrics.jsonl"))
            last.append(lines[-1] if lines else {})
        for name in sorted({*last[0], *last[1]} - _TIMES):
            if last[0].get(name) != last[1].get(name):
                yield MetricDifference(stage, name, last[0].get(name), last[1].get(name))


@dataclass(frozen=True, slots=True)
class _Judged:
    """One answer of a trained model: whether it is bad, and the prompt or group of prompts it belongs to."""

    bad: bool
    cluster: str


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What the trained model of a run was asked: behaviour → label, and (behaviour, prompt, temperature, seed) → answer."""

    labels: dict[str, str]
    answers: dict[tuple[str, str, float, int], _Judged]


def _behaviours(first: RunFolder, second: RunFolder, not_compared: list[str]) -> list[BehaviourDifference]:
    """After training in both runs, on the prompts that both were asked."""
    try:
        one, other = _evaluated(first), _evaluated(second)
    except StoreError as error:
        not_compared.append(f"evaluation: {error.problem}")
        return []
    common = [key for key in one.answers if key in other.answers]
    if missing := len(one.answers) + len(other.answers) - 2 * len(common):
        not_compared.append(f"evaluation: {missing} answers to what only one of the runs was asked, or that nobody judged")
    by_name: dict[str, list[tuple[_Judged, _Judged]]] = {}
    for key in common:
        by_name.setdefault(key[0], []).append((one.answers[key], other.answers[key]))
    found = [_behaviour(name, one.labels.get(name, name), pairs) for name, pairs in by_name.items()]
    corrected = holm([each.p_holm for each in found])
    return [replace(each, p_holm=p) for each, p in zip(found, corrected, strict=True)]


def _evaluated(run: RunFolder) -> _Evaluated:
    found = _Evaluated({}, {})
    for result in run.measurements(EVALUATION, EvaluationResult):
        found.labels.update({row.behaviour: row.label for row in result.rows})
        for each in result.answers:
            if each.after_outcome != "unjudged":
                key = each.behaviour, each.uid, each.temperature, each.seed
                found.answers[key] = _Judged(each.after_outcome == "bad", each.uid)
    trained: dict[str, str] = {}
    for suite in run.measurements(SUITE_RESULTS, SuiteResult):
        trained[suite.suite] = suite.models[-1].model
        found.labels.update({f"{suite.suite}/{row.behaviour}": row.label for row in suite.models[-1].behaviours})
    for answer in run.measurements(SUITE_ANSWERS, SuiteAnswer):
        if answer.model == trained.get(answer.suite) and answer.outcome not in (None, "unjudged"):
            key = f"{answer.suite}/{answer.section}", answer.uid, answer.temperature, answer.seed
            found.answers[key] = _Judged(answer.outcome == "bad", answer.cluster)
    return found


def _behaviour(name: str, label: str, pairs: Sequence[tuple[_Judged, _Judged]]) -> BehaviourDifference:
    """One behaviour, its p-value not corrected yet."""
    steps = [float(second.bad) - float(first.bad) for first, second in pairs]
    clusters = [first.cluster for first, _ in pairs]
    return BehaviourDifference(
        behaviour=name,
        label=label,
        prompts=len(set(clusters)),
        answers=len(pairs),
        first=sum(first.bad for first, _ in pairs) / len(pairs),
        second=sum(second.bad for _, second in pairs) / len(pairs),
        difference=sum(steps) / len(steps),
        interval=cluster_bootstrap(steps, clusters),
        p_holm=sign_flip_p(steps, clusters),
    )
