"""What people are asked to judge, in which order, and how that order makes an unbiased sample of it.

Every pair of a run has a number drawn for it: a hash of the run's seed and of its place, in [0, 1). Whatever is asked is asked
in the order of these numbers: within each stratum (of high impact or not, labelled or undecided) what has been judged, from the
first on without a gap, is a simple random sample of the stratum, whenever people stop. Targeted pairs (high impact, undecided)
and a random part of all pairs alternate; a stratum that is not targeted is reached by the random part.

The queue lives in an SQLite table of its own, in memory: a hundred thousand pairs are numbers there, and texts are read one by
one when they are shown.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from cai.records import HumanVerdict, PreferenceRecord, RecordKind, RevisionRecord, UndecidedRecord
from cai.review.answers import Answers
from cai.review.flow import FINISHED, Review, high_impact_uids
from cai.review.opinions import Opinion
from cai.review.settings import ReviewSettings
from cai.store import RecordKey, RunFolder, VerdictFile

RANDOM_SHARE = 0.25
"""Of what is asked while there is something targeted left, so much belongs to the random part."""

NUMBERS_PER_PAGE = 1000

_TABLES = """
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    drawn REAL NOT NULL,
    impact INTEGER NOT NULL,
    doubled INTEGER NOT NULL,
    seen INTEGER NOT NULL DEFAULT 0,
    judged INTEGER NOT NULL DEFAULT 0,
    conflict INTEGER NOT NULL DEFAULT 0,
    place INTEGER,
    wanted INTEGER GENERATED ALWAYS AS (CASE WHEN conflict THEN 3 ELSE 1 + doubled END) STORED
);
CREATE TABLE said (id INTEGER NOT NULL, reviewer TEXT NOT NULL, PRIMARY KEY (id, reviewer)) WITHOUT ROWID;
"""
_PLACES = """
WITH targeted AS (
    SELECT id, row_number() OVER (ORDER BY impact DESC, kind = 'revision', kind = 'preference', drawn) / (1.0 - :share) AS due
    FROM pairs WHERE impact OR kind = 'undecided'
), random_part AS (
    SELECT id, row_number() OVER (ORDER BY drawn) / :share AS due
    FROM pairs WHERE kind <> 'revision' ORDER BY drawn LIMIT :random
), queued AS (
    SELECT id, row_number() OVER (ORDER BY min(due), id) AS place
    FROM (SELECT * FROM targeted UNION ALL SELECT * FROM random_part) GROUP BY id
)
UPDATE pairs SET place = queued.place FROM queued WHERE queued.id = pairs.id
"""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Pairs of one sort, and how far people have come with them.

    Args:
        impact: Of high impact.
        kind: `preference` or `undecided`.
        pairs: In the run.
        sampled: Of these, those that were shown, from the first of their order on without a gap.
    """

    impact: bool
    kind: str
    pairs: int
    sampled: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a review is.

    Args:
        queued: What people are asked to judge.
        open: Of these, what still wants a verdict.
        open_for: What still wants one that this reviewer can give.
        judged_by: What this reviewer has judged, or seen and skipped.
    """

    queued: int
    open: int
    open_for: int
    judged_by: int


class ReviewQueue:
    """The queue of one run. May be used from several threads.

    Args:
        folder: Of the run, open for reading while the queue is in use.
        settings: Of the review.
        seed: Of the run.
    """

    def __init__(self, folder: RunFolder, settings: ReviewSettings, seed: int) -> None:
        self._folder = folder
        labels = folder.manifest.get("config", {}).get("labels", {})
        self._of_samples = labels.get("candidates") == "samples"
        """Drafts are compared, while the reply that is learned may be another."""
        self.settings = settings
        self._seed = seed
        self._lock = threading.RLock()
        self._said: dict[str, tuple[Opinion | None, frozenset[str]]] = {}
        """Name of what was judged → the opinion, and who need not be asked again, skips included."""
        self._judged: Counter[str] = Counter()
        """Replies that somebody has judged, beside whatever else: in how many opinions."""
        self.unmatched = 0
        """Verdicts on answers that the run does not hold (any more)."""
        self._ids: dict[str, set[int]] = {}
        """Name → places at which it was met: a prompt that occurs twice may be answered twice in the same words."""
        self._met: set[int] = set()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._connection.executescript(_TABLES)

    @classmethod
    def of(cls, folder: RunFolder, verdicts: VerdictFile, settings: ReviewSettings, seed: int) -> ReviewQueue:
        """The queue of a run whose labels are made, with what was said so far."""
        queue = cls(folder, settings, seed)
        review = Review.of(folder, settings)
        queue._fill(high_impact_uids(folder, review))
        queue._recall(verdicts.standing().values(), review.found.values())
        return queue

    # ---- asking

    def next_for(self, reviewer: str, leased: Collection[int] = ()) -> tuple[int, Answers] | None:
        """What this reviewer should look at next, or None when there is nothing left for them.

        Args:
            reviewer: Whose verdict is wanted.
            leased: What others are looking at: it is asked only where it wants more verdicts than these will give.
        """
        with self._lock:
            after = 0
            while row := self._one(
                "SELECT id, place, wanted - judged FROM pairs WHERE place > ? AND judged < wanted AND NOT EXISTS "
                "(SELECT 1 FROM said WHERE said.id = pairs.id AND said.reviewer = ?) ORDER BY place LIMIT 1",
                (after, reviewer),
            ):
                found, place, wanted = row
                if self._settle_if_judged(found):
                    continue
                after = place
                if wanted <= sum(each == found for each in leased):
                    continue
                answers = self.answers(found)
                if answers is not None and not (answers.single and self._judged[answers.replies[0]]):
                    return found, answers
        return None

    def answers(self, number: int) -> Answers | None:
        """What stands at a place of the queue; None where the run has no such record any more."""
        row = self._one("SELECT kind, uid, replica, sequence FROM pairs WHERE id = ?", (number,))
        if row is None:
            return None
        kind, uid, replica, sequence = row
        found = next((each for at, each in self._read(kind, uid, replica) if at == sequence), None)
        if found is not None:
            with self._lock:
                self._place(found.key, number)
        return found

    def find(self, key: str) -> tuple[int, Answers] | None:
        """What was asked under this name."""
        with self._lock:
            number = min(self._ids.get(key, ()), default=None)
        answers = None if number is None else self.answers(number)
        return None if number is None or answers is None or answers.key != key else (number, answers)

    def heard(self, key: str, opinion: Opinion | None, reviewers: Collection[str]) -> None:
        """Note what people now say of something.

        Args:
            key: Its name.
            opinion: Of all who judged it; None: nobody has.
            reviewers: Those who need not be asked again, skips included.
        """
        with self._lock:
            before, _ = self._said.get(key, (None, ()))
            self._judged.subtract(() if before is None else before.replies)
            self._judged.update(() if opinion is None else opinion.replies)
            self._said[key] = opinion, frozenset(reviewers)
            for number in self._ids.get(key, ()):
                self._note(number, opinion, reviewers)

    def numbers(self, which: Literal["open", "judged", "all"]) -> Iterator[int]:
        """What is asked, in its order: what still wants a verdict, what has one, or both; then what was judged unasked."""
        wanted = {"open": "judged < wanted", "judged": "judged", "all": "TRUE"}[which]
        asked = f"SELECT id, place FROM pairs WHERE place > ? AND {wanted} ORDER BY place LIMIT ?"  # noqa: S608 - words of ours
        after = 0
        while page := self._all(asked, (after, NUMBERS_PER_PAGE)):
            yield from (number for number, _ in page)
            after = page[-1][1]
        if which != "open":
            yield from (number for (number,) in self._all("SELECT id FROM pairs WHERE place IS NULL AND judged ORDER BY id"))

    # ---- telling

    def progress(self, reviewer: str) -> Progress:
        with self._lock:
            queued, still = self._one_row(
                "SELECT count(*), coalesce(sum(judged < wanted), 0) FROM pairs WHERE place IS NOT NULL"
            )
            (own,) = self._one_row("SELECT count(*) FROM said WHERE reviewer = ?", (reviewer,))
            (open_own,) = self._one_row(
                "SELECT count(*) FROM said JOIN pairs USING (id) WHERE reviewer = ? AND place IS NOT NULL AND judged < wanted",
                (reviewer,),
            )
        return Progress(queued, still, still - open_own, own)

    def strata(self) -> list[Stratum]:
        """Of all pairs, how many there are of each sort, and how large a sample of them has been shown."""
        rows = self._all(
            "SELECT impact, kind, count(*), coalesce(min(CASE WHEN NOT seen THEN rank END) - 1, count(*)) FROM "
            "(SELECT impact, kind, seen, row_number() OVER (PARTITION BY impact, kind ORDER BY drawn, id) AS rank FROM pairs "
            "WHERE kind <> 'revision') GROUP BY impact, kind ORDER BY impact DESC, kind"
        )
        return [Stratum(bool(impact), kind, pairs, sampled) for impact, kind, pairs, sampled in rows]

    def sampled_keys(self, stratum: Stratum) -> list[RecordKey]:
        """Where the records of a stratum's sample are."""
        sql = "SELECT uid, replica, sequence FROM pairs WHERE impact = ? AND kind = ? ORDER BY drawn, id LIMIT ?"
        return self._all(sql, (stratum.impact, stratum.kind, stratum.sampled))

    def random_keys(self, kind: RecordKind) -> list[RecordKey]:
        """The same of the pairs of one kind, all strata together: a simple random sample of them."""
        sql = (
            "SELECT uid, replica, sequence FROM pairs WHERE kind = :kind AND (drawn, id) < "
            "(SELECT coalesce(min(drawn), 2), id FROM pairs WHERE kind = :kind AND NOT seen) ORDER BY drawn, id"
        )
        return self._all(sql, {"kind": kind.value})

    def sampled(self, stratum: Stratum) -> Iterator[Answers]:
        """What a stratum's sample shows."""
        for uid, replica, sequence in self.sampled_keys(stratum):
            yield from (each for at, each in self._read(stratum.kind, uid, replica) if at == sequence)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # ---- making

    def _fill(self, impact: Collection[str]) -> None:
        with self._lock:
            self._connection.execute("BEGIN")
            for kind in (RecordKind.PREFERENCE, RecordKind.UNDECIDED):
                self._insert(kind, self._folder.record_keys(kind), impact)
            if self.settings.required:
                compared = set[Any]() if self._of_samples else set(self._all("SELECT uid, replica FROM pairs"))
                finished = {key for key in self._folder.settled_as(FINISHED) if key[0] in impact} - compared
                alone = (key for key in self._folder.record_keys(RecordKind.REVISION) if key[:2] in finished)
                self._insert(RecordKind.REVISION, alone, impact)
            self._connection.execute(_PLACES, {"share": RANDOM_SHARE, "random": self.settings.random_pairs})
            self._connection.execute("CREATE INDEX queue ON pairs (place) WHERE judged < wanted AND place IS NOT NULL")
            self._connection.execute("CREATE INDEX places ON pairs (uid)")
            self._connection.execute("COMMIT")

    def _insert(self, kind: RecordKind, keys: Iterable[RecordKey], impact: Collection[str]) -> None:
        share = self.settings.double_share
        self._connection.executemany(
            "INSERT INTO pairs (kind, uid, replica, sequence, drawn, impact, doubled) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (kind.value, *key, drawn, key[0] in impact, second < share)
                for key in keys
                for drawn, second in (self._draws(key),)
            ),
        )

    def _draws(self, key: RecordKey) -> tuple[float, float]:
        """Two numbers in [0, 1): for the order, and for who is asked twice."""
        text = f"{self._seed}\0{key[0]}\0{key[1]}\0{key[2]}".encode("utf-8", "surrogatepass")
        digest = blake2b(text, digest_size=14, person=b"cai review").digest()
        return int.from_bytes(digest[:7]) / 2**56, int.from_bytes(digest[7:]) / 2**56

    def _recall(self, standing: Collection[HumanVerdict], found: Collection[Opinion]) -> None:
        """Note what was said before, where the run still holds what it was said of."""
        said: dict[str, set[str]] = {}
        by_uid: dict[str, set[str]] = {}
        for each in standing:
            said.setdefault(each.pair, set()).add(each.reviewer)
            by_uid.setdefault(each.uid, set()).add(each.pair)
        by_key = {opinion.verdicts[0].pair: opinion for opinion in found}
        for key, reviewers in said.items():
            self.heard(key, by_key.get(key), reviewers)
        with self._lock:
            self._connection.execute("BEGIN")
            for uid in by_uid:
                here = self._all("SELECT id, kind, replica, sequence FROM pairs WHERE uid = ?", (uid,))
                for kind, replica in {(kind, replica) for _, kind, replica, _ in here}:
                    read = {at: each.key for at, each in self._read(kind, uid, replica)}
                    for number, _, _, sequence in (row for row in here if row[1:3] == (kind, replica)):
                        self._meet(number, read.get(sequence, ""))
            self._connection.execute("COMMIT")
            self.unmatched = sum(key not in self._ids for key in said)
            for impact, kind in self._all("SELECT DISTINCT impact, kind FROM pairs"):
                while (first := self._first_unseen(impact, kind)) is not None and self._settle_if_judged(first):
                    pass  # what stands at the head of a sample may have been judged under another name

    def _first_unseen(self, impact: int, kind: str) -> int | None:
        sql = "SELECT id FROM pairs WHERE impact = ? AND kind = ? AND NOT seen ORDER BY drawn, id LIMIT 1"
        row = self._one(sql, (impact, kind))
        return None if row is None else row[0]

    def _settle_if_judged(self, number: int) -> bool:
        """Whether a place that was not met before holds what was judged at another one; its verdicts then count here too."""
        if number in self._met:
            return False
        answers = self.answers(number)
        return answers is not None and self._meet(number, answers.key)

    def _meet(self, number: int, key: str) -> bool:
        if key not in self._said:
            return False
        self._place(key, number)
        self._note(number, *self._said[key])
        return True

    def _place(self, key: str, number: int) -> None:
        self._ids.setdefault(key, set()).add(number)
        self._met.add(number)

    def _read(self, kind: str, uid: str, replica: int) -> list[tuple[int, Answers]]:
        if kind == RecordKind.REVISION:
            records = self._folder.records_of(kind, RevisionRecord, uid, replica)
            return [(at, Answers.of_record(each)) for at, each in records]
        model = PreferenceRecord if kind == RecordKind.PREFERENCE else UndecidedRecord
        return [(at, Answers.of_pair(each)) for at, each in self._folder.records_of(kind, model, uid, replica)]

    def _note(self, number: int, opinion: Opinion | None, reviewers: Collection[str]) -> None:
        judged, conflict = (opinion.reviewers, opinion.conflict) if opinion is not None else (0, False)
        self._connection.execute("DELETE FROM said WHERE id = ?", (number,))
        self._connection.executemany("INSERT INTO said VALUES (?, ?)", [(number, each) for each in reviewers])
        self._connection.execute(
            "UPDATE pairs SET judged = ?, conflict = ?, seen = ? WHERE id = ?", (judged, conflict, bool(reviewers), number)
        )

    # ---- SQL

    def _all(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def _one(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchone()

    def _one_row(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[Any, ...]:
        row = self._one(sql, parameters)
        assert row is not None, "an aggregate"
        return row
