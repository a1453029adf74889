"""A run done again from what its manifest and its folder kept: principles by text, prompts by row, settings, models by content.

Nothing is taken for the same that is not known to be: what is missing or has changed is told, all at once, before any weights
are read. What can only shift rounding (packages, the machine) is told with the outcome instead.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cai.config import RunConfig, changed_config
from cai.config.tracking import TrackingSettings
from cai.data.corpus import Corpus
from cai.data.filters.sieve import OF_WHOLE, of_rows
from cai.data.prompts import read_items
from cai.engines.scripts import is_script
from cai.errors import CaiError, ConfigError, DataError, ModelError, ProblemList, StoreError
from cai.pipeline.causes import Causes, causes
from cai.pipeline.differences import RunDifferences
from cai.pipeline.effects import effects, noted_effects
from cai.pipeline.events import OnProgress
from cai.pipeline.finished import ORDER
from cai.pipeline.preflight import Inputs, human_set, unusable_models
from cai.pipeline.provenance import commits, environment, file_facts, noted_models, packages
from cai.pipeline.running import run
from cai.pipeline.session import described_model, open_session
from cai.records import Outcome, Stage
from cai.store import MANIFEST_VERSION, REVIEW_NAME, RunFolder, VerdictFile
from cai.store.manifest import manifest_checksum, read_manifest, read_private, read_whole_manifest
from cai.store.run_folder import DATABASE_NAME
from constitution.schema import Constitution

PROMPTS = "prompts.path"


@dataclass(frozen=True)
class Reproduction:
    """A run that is ready to be done again.

    Args:
        original: Its folder.
        inputs: What to run, with a folder of its own.
        until: The last stage.
        surroundings: Packages, machine and commit, as far as they are not those of then, and settings that were changed.
        sampled: How many prompts of the original are done again; None: all.
    """

    original: Path
    inputs: Inputs
    until: Stage
    surroundings: Causes
    sampled: int | None = None


def prepare(
    original: Path, into: Path, *, until: Stage | None = None, sample: int | None = None, changes: Sequence[str] = ()
) -> Reproduction:
    """Put the inputs of a run together again.

    Args:
        original: Folder of the run, or one that holds its manifest only: prompts then come from the file that it names.
        into: Folder for the run: a new one, or one in which this very reproduction was begun.
        until: The last stage; None: the last one that the original finished.
        sample: Do only so many prompts again, up to the labels; which, follows from their names.
        changes: `key=value`, such as where prompts or a model lie on this machine.

    Raises:
        StoreError: If there is no such run, or `into` holds something else.
        ProblemList: With everything that is missing or not what it was, and what else is different here.
    """
    noted = _noted(original)
    whole = read_whole_manifest(original)
    _refuse_other(into, manifest_checksum(original), original)
    config = changed_config(cast("dict[str, Any]", whole["config"]), [f"run={into}", *changes])
    # The original's figures are in its own run of the tracker, whose package need not be here.
    config = config.model_copy(update={"tracking": TrackingSettings()})
    problems: list[CaiError] = []
    constitution = _constitution(whole, problems)
    corpus, source = _prompts(original, config, noted, problems)
    unusable = unusable_models(config)
    problems += (type(each)(each.problem, _placed(each, config)) if isinstance(each, ModelError) else each for each in unusable)
    if not unusable:  # a model that cannot be used has no content to compare
        _check_models(config, noted, problems)
    human = human_set(config, problems)
    if human is not None and human.fingerprint != (_part(noted, "human_labels").get("fingerprint") or human.fingerprint):
        problems.append(ConfigError("`labels.human`: the pairs labelled by people are not those of the run.", _PUT_BACK))
    _check_files(config, noted, problems)
    here = {**noted, "packages": packages(), "environment": _environment_here(noted), "git": commits()}
    around = causes(noted, here | {"config": config.model_dump(mode="json")})
    if problems or constitution is None or corpus is None:
        raise ProblemList(f"{original} cannot be done again here:", [*problems, *_also_different(around)])
    last = until or _last_stage(noted)
    if sample is not None:
        config, last = _of_sample(config, last)
        chosen = _sample(original, corpus, sample)
        corpus.keep(chosen.__contains__)
    inputs = Inputs(
        config,
        constitution,
        corpus,
        source,
        str(_part(noted, "prompts").get("fingerprint") or corpus.fingerprint()),
        human=human,
        origins={key: str(origin) for key, origin in _part(noted, "origins").items()},
        reproduces=manifest_checksum(original),
    )
    return Reproduction(original, inputs, last, around, sample)


def reproduce(ready: Reproduction, on_progress: OnProgress | None = None) -> RunDifferences:
    """Do the run again, and compare it with the original, byte for byte and in figures. Interrupted, it is called again.

    Raises:
        CaiError: Whatever stops a run.
    """
    with open_session(ready.inputs, on_progress) as session:
        if ready.sampled is None and (ready.original / REVIEW_NAME).is_file():
            with VerdictFile.open(session.folder.path) as verdicts:
                verdicts.join(ready.original)  # people are not asked again
        run(session, until=ready.until)
    return _outcome(ready)


def _outcome(done: Reproduction) -> RunDifferences:
    place, into = done.original, done.inputs.config.run
    first, second = read_manifest(place), read_manifest(into)
    found = causes(first, second)
    if done.sampled is not None:  # then the rows are others, and some rules, on purpose
        found = replace(found, settings=done.surroundings.settings, prompts=())
    names = place.resolve().name, into.resolve().name
    if not (place / DATABASE_NAME).is_file():
        return RunDifferences(*names, found, noted_effects(first, second, until=done.until))
    with (
        RunFolder.open(place, create=False, read_only=True, checked=False) as one,
        RunFolder.open(into, create=False, read_only=True, checked=False) as other,
    ):
        return RunDifferences(*names, found, effects(one, other, of_second=done.sampled is not None, until=done.until))


_PROMPTS_BACK = f"Put the file of then back, or say where it is: --set {PROMPTS}=PATH."
_A_SAMPLE = "If it repeats a sample of another run, name that run; else put run.sqlite of this one back."
_PUT_BACK = "Put the file of then back, or say where it is: --set KEY=PATH."


def _noted(original: Path) -> dict[str, Any]:
    noted = read_manifest(original)
    if not noted:
        raise StoreError(
            f"{original}: no manifest.json in it.", "Name the folder of a run, or one that holds its manifest.json."
        )
    version = noted.get("version")
    if not isinstance(noted.get("config"), dict):
        raise StoreError(f"{original}: its manifest holds no configuration.", "Put manifest.json of the run back.")
    if not isinstance(version, int) or version > MANIFEST_VERSION:
        raise StoreError(f"{original}: its manifest has version {version}.", "Use the version of this program that wrote it.")
    if noted.get("shard"):
        raise StoreError(f"{original}: a shard, which is no run of its own.", "Merge the shards, and name the merged folder.")
    return noted


def _refuse_other(into: Path, checksum: str, original: Path) -> None:
    """A reproduction never goes on in the folder of another run, the original's least of all."""
    begun = read_manifest(into) if into.is_dir() else {}
    if (begun or (into / DATABASE_NAME).is_file()) and begun.get("reproduces") != checksum:
        raise StoreError(
            f"{into}: holds another run, or one that repeats an earlier state of {original}.", "Name a new folder with --into."
        )


def _environment_here(noted: Mapping[str, Any]) -> dict[str, Any]:
    """Of this machine; what only torch knows of it counts as what it was then, as long as no model had torch loaded."""
    here = environment()
    if "threads" in here:
        return here
    return here | {name: value for name, value in _part(noted, "environment").items() if name == "device" or name not in here}


def _constitution(whole: Mapping[str, Any], problems: list[CaiError]) -> Constitution | None:
    described = _part(whole, "constitution")
    try:
        found = Constitution.model_validate({name: value for name, value in described.items() if name != "fingerprint"})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        problems.append(
            StoreError(f"the constitution in the manifest does not fit this version ({place}: {first['msg']}).", _OLD)
        )
        return None
    if found.fingerprint != described.get("fingerprint"):
        problems.append(
            StoreError(
                f"the constitution in the manifest is not the one of the run: its fingerprint is {found.fingerprint}, "
                f"and was {described.get('fingerprint')}.",
                "Somebody changed the text; put the manifest of the run back.",
            )
        )
    return found


_OLD = "Use the version of this program that made the run."


def _prompts(
    original: Path, config: RunConfig, noted: Mapping[str, Any], problems: list[CaiError]
) -> tuple[Corpus | None, str]:
    """The run's own rows; where its database did not come along, those of the file or the world that it names."""
    facts = _part(noted, "prompts")
    source = str(facts.get("source", ""))
    try:
        corpus = _own_rows(original)
        kept = corpus is not None
        if corpus is None and config.lab is not None:
            from cai.lab.suite import loop_items

            corpus = Corpus.of(loop_items(config.lab))
        elif corpus is None and config.prompts is not None:
            corpus = read_items(config.prompts).corpus
    except CaiError as error:
        problems.append(DataError(f"prompts: {error.problem}", f"{error.hint} {_where(original, 'prompts')}".strip()))
        return None, source
    assert corpus is not None, "a configuration has prompts or the lab's world"
    if config.lab is None:
        corpus.hold_out(config.holdout_share, config.seed)
    if kept and "fingerprint" not in facts:
        return corpus, source  # a manifest of an early version did not note it; these are the rows that the run had
    if corpus.fingerprint() != facts.get("fingerprint") and (kept or not _same_file(config, noted)):
        what = "the rows in run.sqlite" if kept else f"{config.prompts.path if config.prompts else 'the world'}"
        problems.append(
            DataError(
                f"prompts: {what} are not those of the run: fingerprint {corpus.fingerprint()[:16]}, "
                f"and was {str(facts.get('fingerprint'))[:16]}.",
                (_A_SAMPLE if "reproduces" in noted else "Put run.sqlite of the run back.") if kept else _PROMPTS_BACK,
            )
        )
    return corpus, source


def _own_rows(original: Path) -> Corpus | None:
    """The input rows that the run's database holds; None without a database."""
    folder = RunFolder.look_at(original) if (original / DATABASE_NAME).is_file() else None
    if folder is None:
        return None
    with folder:
        corpus = Corpus.of(folder.items())
        for failure in folder.read_failures():
            corpus.add(failure)
    return corpus


def _same_file(config: RunConfig, noted: Mapping[str, Any]) -> bool:
    """Whether the prompts' file has the bytes of then, wherever it lies now."""
    then = _part(noted, "files").get(PROMPTS)
    return then is not None and file_facts(config).get(PROMPTS, {}).get("sha256") == then["sha256"]


def _placed(problem: CaiError, config: RunConfig) -> str:
    """The hint of a model's problem, and how to say here where that model is."""
    role = next((role for role, spec in noted_models(config).items() if f"{spec}:" in problem.problem), "policy")
    return f"{problem.hint} If it lies elsewhere here: --set {role}.name=PATH.".strip()


def _check_models(config: RunConfig, noted: Mapping[str, Any], problems: list[CaiError]) -> None:
    told: set[tuple[str, str]] = set()  # one model has several roles in most runs
    for role, spec in noted_models(config).items():
        then = _part(_part(noted, "models"), role)
        if (str(spec), str(then.get("fingerprint"))) in told:
            continue
        if spec.server is not None or "fingerprint" not in then:
            continue  # what a server has is asked when it is opened, and told with the outcome
        try:
            now = described_model(spec)
        except CaiError as error:
            problems.append(error)
            continue
        if now["fingerprint"] != then["fingerprint"]:
            told.add((str(spec), str(then["fingerprint"])))
            parts = [name for name in ("tokenizer", "dtype") if name in then and now.get(name) != then[name]]
            of_all = "script" if is_script(spec.name) else ", ".join(parts) or "weights, configuration or adapter"
            problems.append(
                ModelError(
                    f"model {role}: {spec} is not the one of the run ({of_all} differ): fingerprint {now['fingerprint'][:16]}, "
                    f"and was {str(then['fingerprint'])[:16]}.",
                    f"Name the same revision, precision and files: --set {role}.name=…, --set {role}.dtype=…",
                )
            )


def _check_files(config: RunConfig, noted: Mapping[str, Any], problems: list[CaiError]) -> None:
    """Files that settings name, besides prompts, whose rows are compared, and pairs by people, which have a fingerprint."""
    now = file_facts(config)
    for key, then in _part(noted, "files").items():
        if key in (PROMPTS, "labels.human.path") or key.endswith(".name"):
            continue
        if key not in now:
            problems.append(ConfigError(f"`{key}`: the file {then['name']} is not here.", _PUT_BACK))
        elif now[key]["sha256"] != then["sha256"]:
            problems.append(ConfigError(f"`{key}`: {then['name']} is not what it was (SHA-256 differs).", _PUT_BACK))


def _also_different(around: Causes) -> list[CaiError]:
    facts = [*around.packages, *around.environment, *around.git]
    if not facts:
        return []
    listed = "; ".join(f"{each.name}: {each.first} then, {each.second} here" for each in facts)
    return [ConfigError(f"different here besides, which alone would stop nothing: {listed}.")]


def _last_stage(noted: Mapping[str, Any]) -> Stage:
    """The last one that was finished, as far as the manifest says."""
    finished = [stage for stage in ORDER if stage.value in _part(noted, "stages")]
    return finished[-1] if finished else Stage.EVALUATE


def _of_sample(config: RunConfig, last: Stage) -> tuple[RunConfig, Stage]:
    """Rules that need all rows cannot be asked of a few, nor scales be found that hang on all margins."""
    alone = Stage.GENERATE if config.labels.ensemble == "normalised" else Stage.LABEL
    labels = config.labels.model_copy(update={"allow_weak_labels": True})  # the original was not refused
    changed = config.model_copy(update={"filters": of_rows(config.filters), "labels": labels})
    return changed, min(last, alone, key=ORDER.index)


def _sample(original: Path, corpus: Corpus, size: int) -> set[str]:
    """Names of prompts that went through the loop, drawn by a hash; none that a rule over all rows took out."""
    left_out: set[str] = set()
    if (original / DATABASE_NAME).is_file():
        with RunFolder.open(original, create=False, read_only=True, checked=False) as folder:
            left_out = {e.uid for e in folder.ledger() if e.outcome is Outcome.FILTERED and e.reason in OF_WHOLE}
    uids = (item.uid for item in corpus.training_items if item.uid not in left_out)
    return set(heapq.nsmallest(size, uids, key=lambda uid: sha256(uid.encode()).digest()))


def _where(original: Path, what: str) -> str:
    """Where a relative path was meant to lead, if that is known."""
    started = ""
    with suppress(StoreError):
        started = str(read_private(original).get("working_directory", ""))
    return f"The run was started in {started}; start there, or say where {what} are with --set." if started else _PROMPTS_BACK


def _part(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = manifest.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
