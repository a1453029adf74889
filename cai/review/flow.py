"""From verdicts to what is learned: people beat AI feedback, and what is of high impact waits for them.

A run's stored records stay as AI feedback left them; verdicts are laid over them whenever pairs and supervised rows are read.
So a verdict can be taken back, labels can be made anew without asking anybody twice, and both can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import cast

from pydantic import ValidationError

from cai.data.rows import Rounds
from cai.data.training_rows import LARGEST_MARGIN
from cai.errors import StoreError
from cai.records import (
    ComparedPair,
    FindingRecord,
    Outcome,
    PreferenceRecord,
    RecordKind,
    ReviewedPreference,
    RevisionRecord,
    Source,
    UndecidedRecord,
)
from cai.review.answers import Answers, reply_fingerprint
from cai.review.opinions import Opinion, opinions
from cai.review.settings import ReviewSettings
from cai.store import RunFolder, VerdictFile, canonical_json, fingerprint

FINISHED = (Outcome.PAIR, Outcome.KEPT)
_SURE = 1e-9


@dataclass
class ReviewTally:
    """What the review did to pairs and supervised rows while they went by; each pass over all of them counts anew."""

    pairs_confirmed: int = 0
    """People prefer the answer that AI feedback chose."""
    pairs_turned: int = 0
    """They prefer the other one."""
    pairs_decided: int = 0
    """AI feedback had not decided."""
    pairs_tied: int = 0
    """A pair no more: people prefer neither answer."""
    pairs_unfit: int = 0
    """Left out: people call both answers bad."""
    pairs_waiting: int = 0
    """Left out until somebody judges them."""
    rows_unfit: int = 0
    """Supervised rows left out: people call the reply bad, or prefer the draft to it."""
    rows_waiting: int = 0
    """Supervised rows left out until somebody judges them."""

    @property
    def waiting(self) -> int:
        return self.pairs_waiting + self.rows_waiting

    def told(self) -> dict[str, str]:
        """In words → how many, for a card; only what there is."""
        words = {
            "pairs_confirmed": "pairs whose label people confirmed",
            "pairs_turned": "pairs whose label people turned round",
            "pairs_decided": "pairs that AI feedback left undecided and people decided",
            "pairs_tied": "pairs left out, since people prefer neither answer",
            "pairs_unfit": "pairs left out, since people call both answers bad",
            "pairs_waiting": "pairs left out, since they wait for review",
            "rows_unfit": "supervised rows left out, since people call the reply bad or prefer the draft",
            "rows_waiting": "supervised rows left out, since they wait for review",
        }
        return {words[name]: f"{count:,}" for name, count in asdict(self).items() if count}


@dataclass(frozen=True)
class Review:
    """People's opinions on a run, and which of its rows may be learned.

    Args:
        settings: Of the run.
        found: By name of what was judged.
        flagged: Items in which one of `settings.detectors` found something.
    """

    settings: ReviewSettings
    found: Mapping[str, Opinion]
    flagged: frozenset[str] = frozenset()
    tally: ReviewTally = field(default_factory=ReviewTally)
    _unfit: frozenset[str] = field(init=False)
    _judged: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        unfit = {reply for each in self.found.values() if each.unfit for reply in each.replies}
        object.__setattr__(self, "_unfit", frozenset(unfit))
        object.__setattr__(self, "_judged", frozenset(reply for each in self.found.values() for reply in each.replies))

    @classmethod
    def of(cls, folder: RunFolder, settings: ReviewSettings | None = None) -> Review:
        """Of a run; by the settings in its manifest where no others are given."""
        used = review_settings(folder) if settings is None else settings
        flagged = folder.uids_with(RecordKind.FINDING, "rule", used.detectors) if used.detectors else set[str]()
        with VerdictFile.look_at(folder.path) as verdicts:
            return cls(used, opinions(verdicts.standing().values()), frozenset(flagged))

    def with_findings(self, findings: Iterable[FindingRecord]) -> Review:
        """The same for records that are not stored: flagged are the items of these findings."""
        detectors = self.settings.detectors
        return Review(self.settings, self.found, frozenset(each.uid for each in findings if each.rule in detectors))

    @property
    def fingerprint(self) -> str:
        """Of all that the review changes in what is learned; "" where it changes nothing."""
        verdicts = {pair: sorted(each.judgements) for pair, each in self.found.items()}
        required = self.settings.model_dump(mode="json", include={"required", "tags", "detectors"})
        if not verdicts and not self.settings.required:
            return ""
        return fingerprint([required, self.settings.max_p_chosen, canonical_json(verdicts), sorted(self.flagged)])

    def high_impact(self, record: ComparedPair | RevisionRecord) -> bool:
        """Whether a person should look at it before it is learned."""
        return record.uid in self.flagged or not set(record.tags).isdisjoint(self.settings.tags)

    # ---- pairs

    def pairs(self, labelled: Iterable[PreferenceRecord], undecided: Iterable[UndecidedRecord]) -> Iterator[PreferenceRecord]:
        """The pairs to learn from: those that AI feedback labelled, as people say, then those that only people decided."""
        for name in (each.name for each in fields(self.tally) if each.name.startswith("pairs_")):
            setattr(self.tally, name, 0)
        for pair in labelled:
            made = self._pair(pair)
            if made is not None:
                yield made
        if self.found:  # without verdicts, nothing undecided is decided
            for pair in undecided:
                opinion = self.found.get(Answers.of_pair(pair).key)
                if opinion is not None and (made := self._judged_pair(pair, opinion)) is not None:
                    self.tally.pairs_decided += 1
                    yield made

    def pairs_of(self, folder: RunFolder) -> Iterator[PreferenceRecord]:
        """The same, of a run's stored records."""
        return self.pairs(
            folder.records(RecordKind.PREFERENCE, PreferenceRecord), folder.records(RecordKind.UNDECIDED, UndecidedRecord)
        )

    def _pair(self, pair: PreferenceRecord) -> PreferenceRecord | None:
        waits = self.settings.required and self.high_impact(pair)
        opinion = self.found.get(Answers.of_pair(pair).key) if self.found else None
        if opinion is None:
            self.tally.pairs_waiting += waits
            return None if waits else pair
        made = self._judged_pair(pair, opinion)
        if made is not None:
            same = made.chosen == pair.chosen
            self.tally.pairs_confirmed += same
            self.tally.pairs_turned += not same
        return made

    def _judged_pair(self, pair: ComparedPair, opinion: Opinion) -> ReviewedPreference | None:
        """The pair as people label it, or None where they make it none; what was a label then is counted."""
        was_label = isinstance(pair, PreferenceRecord)
        if opinion.unfit:
            self.tally.pairs_unfit += was_label
            return None
        p_first = cast("float", opinion.p_first)
        if abs(p_first - 0.5) < _SURE:
            self.tally.pairs_tied += was_label
            return None
        return reviewed(pair, p_first, opinion.reviewers, self.settings.max_p_chosen)

    # ---- supervised rows

    def records(self, finished: Iterable[RevisionRecord], *, rounds: Rounds = "final") -> Iterator[RevisionRecord]:
        """The records whose replies may be learned.

        Args:
            finished: Neither filtered nor failed.
            rounds: Whether the revisions of earlier rounds are learned, too. Those that may not be are taken out then.
        """
        self.tally.rows_unfit = self.tally.rows_waiting = 0
        for record in finished:
            if self._counted(self.verdict_on(record)):
                yield record if rounds == "final" else self._with_fit_rounds(record)

    def records_of(self, folder: RunFolder, *, rounds: Rounds = "final") -> Iterator[RevisionRecord]:
        """The same, of a run's stored records that were neither filtered nor failed."""
        return self.records(folder.records(RecordKind.REVISION, RevisionRecord, outcomes=FINISHED), rounds=rounds)

    def verdict_on(self, record: RevisionRecord, reply: str | None = None) -> str:
        """Why a reply of a record may not be learned: `unfit` or `waits`; "" if it may. Default: the final one."""
        waits = self.settings.required and self.high_impact(record)
        if not self.found:
            return "waits" if waits else ""
        text = record.final if reply is None else reply
        name = reply_fingerprint(record.messages, text)
        if name in self._unfit or (record.changed and self._draft_is_better(record, name)):
            return "unfit"
        return "waits" if waits and name not in self._judged else ""

    def _counted(self, verdict: str) -> bool:
        """Count a reply; whether it may be learned."""
        self.tally.rows_unfit += verdict == "unfit"
        self.tally.rows_waiting += verdict == "waits"
        return verdict == ""

    def _with_fit_rounds(self, record: RevisionRecord) -> RevisionRecord:
        revised = [number for number, each in enumerate(record.rounds) if each.revision is not None]
        left_out = {
            number for number in revised[:-1] if not self._counted(self.verdict_on(record, record.rounds[number].revision))
        }
        if not left_out:
            return record
        rounds = (
            each.model_copy(update={"revision": None}) if number in left_out else each
            for number, each in enumerate(record.rounds)
        )
        return record.model_copy(update={"rounds": tuple(rounds)})

    def _draft_is_better(self, record: RevisionRecord, reply: str) -> bool:
        replies = sorted((reply, reply_fingerprint(record.messages, record.draft)))
        opinion = self.found.get("-".join(replies))
        if opinion is None or opinion.p_first is None:
            return False
        return opinion.p_first < 0.5 if replies[0] == reply else opinion.p_first > 0.5


def reviewed(pair: ComparedPair, p_first: float, reviewers: int, max_p_chosen: float) -> ReviewedPreference:
    """A pair as people label it.

    Args:
        pair: As AI feedback left it.
        p_first: Probability, by people, that the answer whose fingerprint comes first is better; not 0.5.
        reviewers: How many judged.
        max_p_chosen: The label is never surer.
    """
    shown = Answers.of_pair(pair)
    chosen, rejected = shown.texts if p_first > 0.5 else shown.texts[::-1]
    origins: dict[str, tuple[Source, int]]
    if isinstance(pair, PreferenceRecord):
        origins = {
            pair.chosen: (pair.chosen_source, pair.chosen_index),
            pair.rejected: (pair.rejected_source, pair.rejected_index),
        }
        ai = pair.p_chosen if chosen == pair.chosen else 1 - pair.p_chosen
    else:
        origins = {pair.first: (pair.first_source, pair.first_index), pair.second: (pair.second_source, pair.second_index)}
        ai = None
    p = min(max_p_chosen, max(p_first, 1 - p_first))
    return ReviewedPreference(
        uid=pair.uid,
        replica=pair.replica,
        number=pair.number,
        prompt=pair.prompt,
        margin_nats=math.log(p / (1 - p)) if p < 1 else LARGEST_MARGIN,
        method=pair.method,
        principle_ids=pair.principle_ids,
        comparisons=pair.comparisons,
        tags=pair.tags,
        chosen=chosen,
        rejected=rejected,
        chosen_source=origins[chosen][0],
        rejected_source=origins[rejected][0],
        chosen_index=origins[chosen][1],
        rejected_index=origins[rejected][1],
        chosen_is_first=chosen == pair.first,
        p_chosen=p,
        reviewers=reviewers,
        ai_p_chosen=ai,
    )


def review_settings(folder: RunFolder) -> ReviewSettings:
    """Of a run, by its manifest; that of a version without a review has none.

    Raises:
        StoreError: If they do not fit this version: what must wait for review is not guessed.
    """
    config = folder.manifest.get("config")
    stored = cast("dict[str, object]", config).get("review") if isinstance(config, dict) else None
    try:
        return ReviewSettings() if stored is None else ReviewSettings.model_validate(stored)
    except ValidationError as error:
        raise StoreError(
            f"{folder.path}: its manifest names settings of `review` that this version does not know.",
            "Run `cai run` with the run's configuration again: model calls are kept.",
        ) from error


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a person because `review.required` is on."""

    pairs: int = 0
    rows: int = 0
    """Supervised rows."""

    def __bool__(self) -> bool:
        return bool(self.pairs or self.rows)

    def __str__(self) -> str:
        return f"{self.pairs:,} pairs and {self.rows:,} supervised rows wait for review"


NOTHING_WAITS = Waiting()


def waiting(folder: RunFolder, review: Review | None = None) -> Waiting:
    """How much of a run waits: counted from indices, and read only where somebody has judged something of an item."""
    found = Review.of(folder) if review is None else review
    if not found.settings.required:
        return NOTHING_WAITS
    impact = high_impact_uids(folder, found)
    judged = {each.uid for opinion in found.found.values() for each in opinion.verdicts} & impact
    finished = {key for key in folder.settled_as(FINISHED) if key[0] in impact}
    pairs = sum(uid in impact for uid, _, _ in folder.record_keys(RecordKind.PREFERENCE))
    rows = sum((uid, replica) in finished for uid, replica, _ in folder.record_keys(RecordKind.REVISION))
    for uid in judged:
        for _, pair in folder.records_of(RecordKind.PREFERENCE, PreferenceRecord, uid):
            pairs -= Answers.of_pair(pair).key in found.found
        for _, record in folder.records_of(RecordKind.REVISION, RevisionRecord, uid):
            rows -= (record.uid, record.replica) in finished and found.verdict_on(record) != "waits"
    return Waiting(pairs, rows)


def high_impact_uids(folder: RunFolder, review: Review) -> set[str]:
    """Items of high impact."""
    tagged = folder.uids_tagged(review.settings.tags) if review.settings.tags else set[str]()
    return tagged | review.flagged
