"""Whether a run folder is sound: database, ledger, stored calls, records, files, versions, and what was left behind.

Reads only, takes no lock, and works beside a process that writes. Every finding says how to mend it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from cai.errors import StoreError
from cai.records import (
    EVALUATIONS,
    RECORD_VERSION,
    FailureRecord,
    FindingRecord,
    Outcome,
    PreferenceRecord,
    RecordKind,
    RevisionRecord,
    Stage,
    UndecidedRecord,
)
from cai.store.canonical import fingerprint
from cai.store.checksums import file_sha256
from cai.store.leftovers import part_files
from cai.store.lock import HOLDER_NAME, Holder
from cai.store.manifest import MANIFEST_CHECKSUM, MANIFEST_NAME, MANIFEST_VERSION
from cai.store.memo import read_generation, read_scores
from cai.store.run_folder import PROGRAM, RunFolder
from cai.store.schema import RUN_SCHEMA
from cai.store.stage_table import WrittenFile
from cai.store.verdict_file import VerdictFile

Level: TypeAlias = Literal["damage", "note"]

AGAIN = "run the same `cai run` again"
LIBRARIES = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found.

    Args:
        level: `damage`: something is not as it was written, or contradicts itself; `note`: good to know, nothing is lost.
        problem: What there is, and where.
        mend: What to do about it.
    """

    level: Level
    problem: str
    mend: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, what it came to in words, and what was found."""

    name: str
    result: str
    findings: tuple[Finding, ...] = ()

    @property
    def is_sound(self) -> bool:
        return all(each.level != "damage" for each in self.findings)


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks of one run folder."""

    folder: Path
    checks: tuple[Check, ...]

    @property
    def is_sound(self) -> bool:
        return all(each.is_sound for each in self.checks)

    def as_json(self) -> dict[str, Any]:
        checks = [{"name": each.name, "sound": each.is_sound, **asdict(each)} for each in self.checks]
        return {"folder": str(self.folder), "sound": self.is_sound, "checks": checks}


def examine(folder: Path) -> Examination:
    """Look through a whole run folder.

    Raises:
        StoreError: If there is no run in it.
    """
    try:
        run = RunFolder.open(folder, create=False, read_only=True)
    except StoreError as error:
        if not folder.is_dir() or not any(folder.glob("run.sqlite*")):
            raise
        refused = Check("database", "cannot be used", (Finding("damage", error.problem, error.hint),))
        return Examination(folder, (refused, _lock(folder), _leftovers(folder)))
    with run:
        looks: tuple[tuple[str, Callable[[RunFolder], Check]], ...] = (
            ("database", _database),
            ("stored calls", _calls),
            ("records", _records),
            ("ledger", _ledger),
            ("files", _files),
            ("verdicts", _verdicts),
            ("manifest", _manifest),
            ("versions", _versions),
        )
        checks = [_looked(name, look, run) for name, look in looks]
    return Examination(folder, (*checks, _lock(folder), _leftovers(folder)))


def _looked(name: str, look: Callable[[RunFolder], Check], run: RunFolder) -> Check:
    try:
        return look(run)
    except StoreError as error:
        return Check(name, "cannot be read", (Finding("damage", error.problem, error.hint),))


def _database(run: RunFolder) -> Check:
    findings = [
        Finding(
            "damage",
            f"run.sqlite: {broken}.",
            "Put back a copy of run.sqlite, or move it elsewhere and run again: all is made anew.",
        )
        for broken in run.broken_rules()
    ]
    if run.schema_version < RUN_SCHEMA.version:
        told = f"run.sqlite has schema {run.schema_version}; this version writes {RUN_SCHEMA.version}."
        findings.append(Finding("note", told, f"Nothing by hand: it is brought there when you {AGAIN}."))
    return Check("database", f"schema {run.schema_version}, every page and index agree", tuple(findings))


def _calls(run: RunFolder) -> Check:
    whole = damaged = unreadable = 0
    for call in run.calls.stored():
        if call is None:
            damaged += 1
            continue
        whole += 1
        try:
            (read_generation if call.kind == "generate" else read_scores)(json.loads(call.result))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
    findings: list[Finding] = []
    if damaged:
        mend = f"Nothing by hand: they count as not there and are computed again when you {AGAIN}."
        findings.append(Finding("damage", f"{_count(damaged, 'stored model call')} not as written.", mend))
    if unreadable:
        mend = "Read them with the version that wrote them, or use another run folder."
        findings.append(
            Finding("damage", f"{_count(unreadable, 'stored model call')} of a form this version cannot read.", mend)
        )
    return Check("stored calls", f"{whole:,} readable", tuple(findings))


def _records(run: RunFolder) -> Check:
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    mend = f"Nothing by hand: they are made anew, from stored calls, when you {AGAIN}."
    kinds = {
        RecordKind.REVISION: RevisionRecord,
        RecordKind.PREFERENCE: PreferenceRecord,
        RecordKind.UNDECIDED: UndecidedRecord,
        RecordKind.FAILURE: FailureRecord,
        RecordKind.FINDING: FindingRecord,
    }
    for kind, model in kinds.items():
        if damaged := run.damaged(kind):
            findings.append(Finding("damage", f"{_count(damaged, f'{kind} record')} not as written.", mend))
            continue
        newer = 0
        for record in run.records(kind, model):
            counts[kind] = counts.get(kind, 0) + 1
            newer += record.version > RECORD_VERSION
        if newer:
            told = f"{_count(newer, f'{kind} record')} of a newer version than {RECORD_VERSION}."
            findings.append(Finding("damage", told, "Upgrade with `pip install -U constitution-cai`."))
    if damaged := sum(map(run.damaged, EVALUATIONS)):
        findings.append(Finding("damage", f"{_count(damaged, 'evaluation')} not as written.", mend))
    counts["input row"] = sum(1 for _ in run.items()) + sum(1 for _ in run.read_failures())
    return Check("records", ", ".join(f"{kind} {count:,}" for kind, count in counts.items() if count), tuple(findings))


def _ledger(run: RunFolder) -> Check:
    mend = f"Nothing by hand: all outcomes are found anew, from stored calls, when you {AGAIN}."
    findings = [Finding("damage", f"{what}: {count:,}.", mend) for what, count in run.contradictions().items()]
    counts = run.ledger_counts()
    if counts[Outcome.PENDING] and not findings:
        told = f"{_count(counts[Outcome.PENDING], 'input row')} without an outcome yet."
        findings.append(Finding("note", told, f"Nothing is wrong; the run is not finished: {AGAIN}."))
    told = ", ".join(f"{outcome.value} {count:,}" for outcome, count in counts.items() if count)
    return Check("ledger", f"{sum(counts.values()):,} input rows: {told or 'none'}", tuple(findings))


def _files(run: RunFolder) -> Check:
    files = run.files()
    findings: list[Finding] = []
    for file in files:
        found = _file(run, file)
        if found is not None and file in run.files():  # not written anew, by a running process, meanwhile
            findings.append(found)
    size = sum(file.size_bytes for file in files)
    return Check("files", f"{len(files)} files of finished stages, {size / 1e6:,.1f} MB", tuple(findings))


def _file(run: RunFolder, file: WrittenFile) -> Finding | None:
    path = run.path / file.path
    if file.stage in (Stage.SFT, Stage.DPO) and not _is_trained(run, Stage(file.stage)):
        return None  # being trained anew: told once, with what was left behind
    anew = {
        Stage.EXPORT: "it is written anew from the records",
        Stage.EVALUATE: "it is written anew from stored calls",
    }.get(Stage(file.stage), "the model is trained anew")
    try:
        if path.stat().st_size == file.size_bytes and file_sha256(path) == file.sha256:
            return None
    except FileNotFoundError:
        return Finding("damage", f"{file.path}: not there; {file.stage} wrote it.", f"{AGAIN.capitalize()}: {anew}.")
    except OSError as error:
        return Finding(
            "damage", f"{file.path}: cannot be read ({error.strerror or error}).", "Look at permissions and the disk."
        )
    gone = path if file.stage not in (Stage.SFT, Stage.DPO) else run.path / file.stage
    return Finding(
        "damage",
        f"{file.path}: not as {file.stage} wrote it (SHA-256 differs).",
        f"Delete {gone} (or keep it elsewhere, if you changed it yourself), then {AGAIN}: {anew}.",
    )


def _is_trained(run: RunFolder, stage: Stage) -> bool:
    """Whether the model in the folder is the one that the run noted; not while another one is being trained."""
    noted = run.stage(stage)
    try:
        result = _object(json.loads((run.path / stage / "training.json").read_bytes()))
        return noted is not None and result.get("fingerprint") == noted.fingerprint
    except FileNotFoundError:
        return not (run.path / stage / "run.json").exists()
    except (OSError, ValueError):
        return True


def _verdicts(run: RunFolder) -> Check:
    with VerdictFile.look_at(run.path) as verdicts:
        count = sum(1 for _ in verdicts.history())
    return Check("verdicts", f"{count:,} by people" if count else "none")


def _manifest(run: RunFolder) -> Check:
    anew = f"Move {run.path / MANIFEST_NAME} elsewhere and {AGAIN}: it is written anew."
    try:
        content = _object(json.loads((run.path / MANIFEST_NAME).read_bytes()))
    except FileNotFoundError:
        missing = Finding("damage", f"{MANIFEST_NAME}: not there.", f"{AGAIN.capitalize()}: it is written anew.")
        return Check("manifest", "missing", (missing,))
    except (OSError, ValueError) as error:
        return Check("manifest", "cannot be read", (Finding("damage", f"{MANIFEST_NAME}: {error}.", anew),))
    noted = content.pop(MANIFEST_CHECKSUM, None)
    if noted is None:
        old = Finding("note", f"{MANIFEST_NAME}: of a version that kept no checksum.", f"Nothing by hand: {AGAIN}.")
        return Check("manifest", "readable", (old,))
    if noted != fingerprint(content):
        return Check("manifest", "changed", (Finding("damage", f"{MANIFEST_NAME}: not as it was written.", anew),))
    return Check("manifest", "as it was written")


def _versions(run: RunFolder) -> Check:
    manifest = run.manifest
    findings: list[Finding] = []
    version = manifest.get("version", MANIFEST_VERSION)
    if version != MANIFEST_VERSION:
        told = f"{MANIFEST_NAME} has version {version}; this program writes {MANIFEST_VERSION}."
        older = isinstance(version, int) and version < MANIFEST_VERSION
        mend = f"Nothing by hand: it is written anew, and kept beside it, when you {AGAIN}."
        findings.append(
            Finding("note", told, mend) if older else Finding("damage", told, "Use the version of this program that wrote it.")
        )
    made_with = {PROGRAM: manifest.get("program")}
    # Version 1 noted two packages among the environment.
    noted = _object(manifest.get("environment")) | _object(manifest.get("packages"))
    made_with |= {name: noted.get(name) for name in LIBRARIES}
    for name, then in made_with.items():
        if then is not None and then != metadata.version(name):
            told = f"made with {name} {then}; here is {metadata.version(name)}."
            mend = "Stored calls stay valid; what is computed from here on may differ. For the same, install that version."
            findings.append(Finding("note", told, mend))
    told = ", ".join(f"{name} {then}" for name, then in made_with.items() if then is not None)
    return Check("versions", told or "not noted", tuple(findings))


def _lock(folder: Path) -> Check:
    holder = Holder.read(folder / HOLDER_NAME)
    if holder is None:
        return Check("lock", "free")
    name = f"process {holder.pid} on {holder.host}"
    if holder.is_dead:
        dead = Finding("note", f"{name} ended without freeing the run.", f"Nothing: it keeps nobody out. To go on, {AGAIN}.")
        return Check("lock", "left by a process that has ended", (dead,))
    at_work = f"{name} is at work here since {holder.since}: {holder.command}"
    wait = "What is found here may be of the moment; look again when it has finished."
    return Check("lock", "taken", (Finding("note", at_work, wait),))


def _leftovers(folder: Path) -> Check:
    holder = Holder.read(folder / HOLDER_NAME)
    at_work = holder is not None and not holder.is_dead
    findings: list[Finding] = []
    for part in part_files(folder):
        if at_work:
            break  # it may be the file under way
        told = f"{part.relative_to(folder)}: half written, by a process that was stopped."
        findings.append(Finding("note", told, f"Nothing: it is no part of the run, and goes when you {AGAIN}."))
    for stage in (Stage.SFT, Stage.DPO):
        place = folder / stage
        if not at_work and (place / "run.json").exists() and not (place / "training.json").exists():
            told = f"{stage}: training was interrupted."
            findings.append(Finding("note", told, f"{AGAIN.capitalize()}: it goes on from its last checkpoint."))
    log = folder / "run.sqlite-wal"
    if not at_work and log.exists() and log.stat().st_size:
        told = f"{log.name}: commits of a process that was stopped, not yet moved into run.sqlite."
        findings.append(Finding("note", told, f"Nothing: they count, and are moved when you {AGAIN}. Copy both files or none."))
    return Check("leftovers", "none" if not findings else f"{len(findings)}", tuple(findings))


def _object(value: object) -> dict[str, Any]:
    """A JSON object; an empty one for anything else that a file may hold."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what} is" if number == 1 else f"{number:,} {what}s are"
