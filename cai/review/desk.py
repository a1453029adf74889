"""Where people sit: what is asked next, and what becomes of their answers. One desk serves the page and the terminal.

Verdicts are on the disk before anybody is told that they were taken. Those of other processes on the same run are heard before
each question. The desk never says which answer is the draft, nor what AI feedback made of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from cai.errors import CaiError, StoreError
from cai.records import HumanVerdict, Judgement, Stage
from cai.review.answers import Answers
from cai.review.flow import Waiting, review_settings, waiting
from cai.review.opinions import Opinion, opinions
from cai.review.queue import Progress, ReviewQueue
from cai.store import RunFolder, VerdictFile

LEASE_S = 600.0
"""For so long nobody else is shown what somebody is looking at, unless it wants several verdicts."""
LONGEST_NAME = 80
LONGEST_NOTE = 10_000

Said: TypeAlias = Literal["a", "b", "tie", "both_bad", "good", "bad", "skip"]
"""What a reviewer says, by the places in which the answers stood."""
OF_TWO: tuple[Said, ...] = ("a", "b", "tie", "both_bad", "skip")
OF_ONE: tuple[Said, ...] = ("good", "bad", "skip")


class ReviewError(CaiError):
    """A verdict, or the name of a reviewer, that cannot be taken."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a reviewer is shown.

    Args:
        answers: The prompt, with one or two answers.
        swapped: The second of them stands at place A.
    """

    answers: Answers
    swapped: bool

    @property
    def shown(self) -> tuple[str, ...]:
        """The texts at place A and B, or the single one."""
        return self.answers.texts[::-1] if self.swapped else self.answers.texts

    @property
    def may_say(self) -> tuple[Said, ...]:
        return OF_ONE if self.answers.single else OF_TWO


class Desk:
    """The desk of one run; use it in a `with` block, or `close` it. May be used from several threads.

    Args:
        run: Its folder. Nothing of the run itself is written or locked.
        by: Through what people speak.
        now: Seconds since 1970.

    Raises:
        StoreError: If the run is missing or damaged, or its labels are not made yet.
    """

    def __init__(
        self, run: Path, by: Literal["page", "terminal"] = "terminal", *, now: Callable[[], float] = time.time
    ) -> None:
        self._by: Literal["page", "terminal"] = by
        self._now = now
        self._lock = threading.RLock()
        self._folder = RunFolder.open(run, create=False, read_only=True, checked=False)
        try:
            self._labelled = labelled_fingerprint(self._folder)
            self.settings = review_settings(self._folder)
            self._verdicts = VerdictFile.open(run)
        except BaseException:
            self._folder.close()
            raise
        self.name = run.resolve().name
        self._seed = int(self._folder.manifest.get("seed", 0))
        self._heard = 0
        self._said: dict[str, dict[str, HumanVerdict]] = {}
        self._leases: dict[str, tuple[int, float]] = {}
        self._hear()
        self._queue = ReviewQueue.of(self._folder, self._verdicts, self.settings, self._seed)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._queue.close()
        self._verdicts.close()
        self._folder.close()

    # ---- for reviewers

    def next(self, reviewer: str) -> Question | None:
        """What this person should judge next; None when there is nothing left for them."""
        with self._lock:
            reviewer = checked_name(reviewer)
            self._catch_up()
            held = self._now() - LEASE_S
            self._leases = {name: lease for name, lease in self._leases.items() if lease[1] > held}
            leased = [number for name, (number, _) in self._leases.items() if name != reviewer]
            found = self._queue.next_for(reviewer, leased)
            if found is None:
                self._leases.pop(reviewer, None)
                return None
            number, answers = found
            self._leases[reviewer] = number, self._now()
            return self._question(answers, reviewer)

    def question(self, key: str, reviewer: str) -> Question | None:
        """What was asked under this name, as this person was shown it; None where there is no such thing."""
        with self._lock:
            found = self._queue.find(key)
            return None if found is None else self._question(found[1], checked_name(reviewer))

    def judge(self, reviewer: str, key: str, said: str, *, note: str = "", seconds: float | None = None) -> HumanVerdict:
        """Take a verdict; it is on the disk when this returns.

        Raises:
            ReviewError: If nothing of this name is asked, or it cannot be judged so.
            StoreError: If it cannot be written.
        """
        with self._lock:
            reviewer = checked_name(reviewer)
            question = self.question(key, reviewer)
            if question is None:
                raise ReviewError("This is not asked any more: the run was made anew.", "Go on with the next one.")
            if said not in question.may_say:
                raise ReviewError(f"{said!r} is no verdict here.", f"Say one of {', '.join(question.may_say)}.")
            if len(note) > LONGEST_NOTE:
                raise ReviewError(f"The note has {len(note):,} characters; {LONGEST_NOTE:,} are kept.", "Shorten it.")
            return self._add(question, reviewer, _judgement(said, swapped=question.swapped), note, seconds)

    def undo(self, reviewer: str) -> Question | None:
        """Take back this person's newest verdict that counts, and ask it again; None where there is none."""
        with self._lock:
            reviewer = checked_name(reviewer)
            self._catch_up()
            for verdict in self._verdicts.newest_of(reviewer):
                if self._said.get(verdict.pair, {}).get(reviewer) != verdict:
                    continue  # taken back already, or followed by another
                question = self.question(verdict.pair, reviewer)
                if question is not None:
                    self._add(question, reviewer, Judgement.WITHDRAWN, "", None)
                    return question
        return None

    # ---- for everybody

    def progress(self, reviewer: str) -> Progress:
        with self._lock:
            self._catch_up()
            return self._queue.progress(checked_name(reviewer))

    def waiting(self) -> Waiting:
        """What may not be learned before it is judged."""
        return waiting(self._folder)

    def conflicts(self) -> list[tuple[Opinion, Answers | None]]:
        """What people disagree on, with the texts where the run still holds them."""
        with self._lock:
            self._catch_up()
            found = opinions(each for said in self._said.values() for each in said.values())
            disputed = [(key, opinion) for key, opinion in sorted(found.items()) if opinion.conflict]
            placed = [(opinion, self._queue.find(key)) for key, opinion in disputed]
            return [(opinion, None if at is None else at[1]) for opinion, at in placed]

    def reviewers(self) -> Mapping[str, int]:
        """Who has judged, and how many."""
        with self._lock:
            self._catch_up()
            counts: dict[str, int] = {}
            for said in self._said.values():
                for name, verdict in said.items():
                    counts[name] = counts.get(name, 0) + (verdict.judgement is not Judgement.SKIP)
            return dict(sorted(counts.items()))

    # ---- inside

    def _question(self, answers: Answers, reviewer: str) -> Question:
        # Of the reviewer's name too: two people do not see the same answer first by one rule. And always the same for one.
        text = f"{self._seed}\0{reviewer}\0{answers.key}".encode()
        toss = blake2b(text, digest_size=1, person=b"cai place").digest()[0] & 1
        return Question(answers, swapped=bool(toss) and not answers.single)

    def _add(self, question: Question, reviewer: str, judgement: Judgement, note: str, seconds: float | None) -> HumanVerdict:
        answers = question.answers
        verdict = HumanVerdict(
            replies=answers.replies,
            uid=answers.uid,
            replica=answers.replica,
            number=answers.number,
            reviewer=reviewer,
            judgement=judgement,
            shown="single" if answers.single else "second_first" if question.swapped else "first_second",
            note=storable(note),
            at=utc(self._now()),
            seconds=seconds,
            by=self._by,
        )
        self._verdicts.add([verdict])
        self._leases.pop(reviewer, None)
        self._catch_up()
        return verdict

    def _catch_up(self) -> None:
        """Hear what was said meanwhile, here and by other processes; a run made anew gets a new queue."""
        labelled = labelled_fingerprint(self._folder)
        changed = self._hear()
        if labelled != self._labelled:
            self._labelled = labelled
            self._queue.close()
            self._queue = ReviewQueue.of(self._folder, self._verdicts, self.settings, self._seed)
            return
        for pair in changed:
            said = self._said.get(pair, {})
            self._queue.heard(pair, opinions(said.values()).get(pair), said.keys())

    def _hear(self) -> set[str]:
        """Read new verdicts; what they are of."""
        changed: set[str] = set()
        for number, verdict in self._verdicts.history(after=self._heard):
            self._heard = number
            changed.add(verdict.pair)
            said = self._said.setdefault(verdict.pair, {})
            if verdict.judgement is Judgement.WITHDRAWN:
                said.pop(verdict.reviewer, None)
            else:
                said[verdict.reviewer] = verdict
        return changed


def labelled_fingerprint(folder: RunFolder) -> str:
    """Of a run's finished labels.

    Raises:
        StoreError: If they are not made yet.
    """
    stage = folder.stage(Stage.LABEL)
    if stage is None:
        raise StoreError(
            f"{folder.path}: the labels are not made yet; there is nothing to review.",
            "Run `cai label` (or `cai run`) with the run's configuration first; `cai status` shows how far it is.",
        )
    return stage.fingerprint


def checked_name(reviewer: str) -> str:
    """A reviewer's name without space around it.

    Raises:
        ReviewError: If it is empty, too long, or has signs that cannot be printed.
    """
    name = " ".join(reviewer.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ReviewError(
            f"A reviewer's name has 1 to {LONGEST_NAME} printable characters.", "Name yourself as your team knows you."
        )
    return name


def storable(text: str) -> str:
    """Text with a UTF-8 form: half a surrogate pair has none, and becomes a replacement sign."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def utc(seconds: float) -> str:
    """Seconds since 1970 in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _judgement(said: str, *, swapped: bool) -> Judgement:
    if said in ("a", "b"):
        return Judgement.FIRST if (said == "a") is not swapped else Judgement.SECOND
    return Judgement(said)
