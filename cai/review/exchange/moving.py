"""Files out of a review and verdicts into it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from cai.data.tables import SUFFIXES, Container, container_of, raw_rows
from cai.data.text_files import BadRow
from cai.errors import DataError
from cai.records import HumanVerdict, Judgement, PreferenceRecord, RecordKind, RevisionRecord, UndecidedRecord
from cai.review.answers import Answers
from cai.review.desk import LONGEST_NOTE, ReviewError, checked_name, labelled_fingerprint, storable, utc
from cai.review.exchange.argilla import ARGILLA
from cai.review.exchange.csv_form import CSV
from cai.review.exchange.label_studio import LABEL_STUDIO
from cai.review.exchange.rows import Asked, Form, FormName, Heard, Senseless
from cai.review.flow import review_settings
from cai.review.queue import ReviewQueue
from cai.store import RunFolder, VerdictFile, atomic_file

FORMS: dict[FormName, Form] = {form.name: form for form in (CSV, ARGILLA, LABEL_STUDIO)}
Which: TypeAlias = Literal["open", "judged", "all"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: files, questions, and verdicts among them."""

    files: tuple[Path, ...]
    questions: int
    verdicts: int


@dataclass(slots=True)
class Imported:
    """What came of a file: verdicts added, those that were here already, rows nobody had judged, and bad rows by place."""

    added: int = 0
    known: int = 0
    empty: int = 0
    bad: list[str] = field(default_factory=list[str])


def export_review(run: Path, form: Form, output: Path, *, which: Which = "open") -> Exported:
    """Write what is asked, for another program. The file is there when it is whole.

    Args:
        run: The run folder.
        form: Of the file.
        output: The file.
        which: What still wants a verdict, with those it has; what has one; or both.

    Raises:
        StoreError: If the run is missing or damaged, its labels are not made, or the file cannot be written.
    """
    counted = [0, 0]
    with RunFolder.open(run, create=False, read_only=True) as folder, VerdictFile.look_at(run) as verdicts:
        labelled_fingerprint(folder)
        by_pair: dict[str, list[HumanVerdict]] = {}
        for each in verdicts.standing().values():
            by_pair.setdefault(each.pair, []).append(each)
        queue = ReviewQueue.of(folder, verdicts, review_settings(folder), int(folder.manifest.get("seed", 0)))

        def asked() -> Iterator[Asked]:
            for number in queue.numbers(which):
                answers = queue.answers(number)
                if answers is not None:
                    said = by_pair.get(answers.key, [])
                    counted[0] += 1
                    counted[1] += len(said)
                    yield Asked(answers, said)

        try:
            with atomic_file(output) as file:
                for text in form.write(asked()):
                    file.write(text.encode())
        finally:
            queue.close()
    files = [output]
    if form.beside is not None:
        suffix, text = form.beside
        files.append(output.with_suffix(suffix))
        with atomic_file(files[1]) as file:
            file.write(text.encode())
    return Exported(tuple(files), *counted)


def import_review(run: Path, form: Form, path: Path) -> Imported:
    """Take the verdicts of a file, all good rows in one transaction. Imported again, they are known.

    So is a verdict that its reviewer has changed or taken back since: an old file brings back no old opinion.

    Raises:
        StoreError: If the run is missing or damaged, or its labels are not made.
        DataError: If the file as a whole cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.", "Name a file that was exported from the other program.")
    outcome = Imported()
    with RunFolder.open(run, create=False, read_only=True) as folder, VerdictFile.open(run) as verdicts:
        labelled_fingerprint(folder)
        past: dict[tuple[str, str], list[HumanVerdict]] = {}
        for _, each in verdicts.history():
            past.setdefault((each.pair, each.reviewer), []).append(each)
        new: dict[tuple[str, str], HumanVerdict] = {}
        for row in raw_rows(str(path), _container(path, form)):
            if isinstance(row, BadRow):
                outcome.bad.append(f"{row.place}: {row.detail}")
                continue
            try:
                made = [_verdict(folder, form, heard) for heard in form.read(row.values)]
            except (Senseless, ReviewError) as error:
                problem = error.problem if isinstance(error, ReviewError) else str(error)
                outcome.bad.append(f"{row.place}: {problem}")
                continue
            outcome.empty += not made
            for verdict in made:
                key = (verdict.pair, verdict.reviewer)
                if _is_known(verdict, [new[key]] if key in new else past.get(key, [])):
                    outcome.known += 1
                else:
                    new[key] = verdict
        outcome.added = verdicts.add(new.values())
    return outcome


def _container(path: Path, form: Form) -> Container:
    """By the file's name; where that tells nothing of tables, what the form is written as."""
    told = path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".txt"
    return container_of(str(path), wanted=None if told else SUFFIXES[form.suffix])


def _is_known(verdict: HumanVerdict, past: Sequence[HumanVerdict]) -> bool:
    """Whether it is what its reviewer said last, or word for word what they said before they said something later."""
    if not past:
        return False
    newest = past[-1]
    if (newest.judgement, newest.note) == (verdict.judgement, verdict.note):
        return True
    same = any((each.judgement, each.note, each.at) == (verdict.judgement, verdict.note, verdict.at) for each in past)
    return same and _moment(newest) > _moment(verdict)


def _moment(verdict: HumanVerdict) -> datetime:
    moment = datetime.fromisoformat(verdict.at)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _verdict(folder: RunFolder, form: Form, heard: Heard) -> HumanVerdict:
    """What came in, as it is stored.

    Raises:
        Senseless: If the run holds no such answers, or they cannot be judged so.
        ReviewError: If the reviewer's name cannot be taken.
    """
    answers = next((each for each in _answers_of(folder, heard.uid) if each.key == heard.pair), None)
    if answers is None:
        raise Senseless(f"the run holds no answers of this name to {heard.uid!r} (any more)")
    single = heard.judgement in (Judgement.GOOD, Judgement.BAD)
    if heard.judgement is not Judgement.SKIP and single is not answers.single:
        raise Senseless(f"{heard.judgement.value!r} is no verdict on {'one answer' if answers.single else 'two answers'}")
    if len(heard.note) > LONGEST_NOTE:
        raise Senseless(f"the note has {len(heard.note):,} characters, more than {LONGEST_NOTE:,}")
    return HumanVerdict(
        replies=answers.replies,
        uid=answers.uid,
        replica=answers.replica,
        number=answers.number,
        reviewer=checked_name(heard.reviewer),
        judgement=heard.judgement,
        shown="single" if answers.single else heard.shown,
        note=storable(heard.note),
        at=heard.at or utc(time.time()),
        seconds=heard.seconds,
        by=form.name,
    )


def _answers_of(folder: RunFolder, uid: str) -> Iterator[Answers]:
    for _, pair in folder.records_of(RecordKind.PREFERENCE, PreferenceRecord, uid):
        yield Answers.of_pair(pair)
    for _, pair in folder.records_of(RecordKind.UNDECIDED, UndecidedRecord, uid):
        yield Answers.of_pair(pair)
    for _, record in folder.records_of(RecordKind.REVISION, RevisionRecord, uid):
        yield Answers.of_record(record)
