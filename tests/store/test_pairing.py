"""Two runs side by side: what SQLite counts is what a loop over the records counts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_runs import labelled_pair, write_labelled_run

from cai.records import PreferenceRecord, RecordKind, RevisionRecord, UndecidedRecord
from cai.store import RunFolder
from cai.store.pairing import Common, Labels, paired
from constitution.messages import user


def undecided(pair: PreferenceRecord) -> UndecidedRecord:
    return UndecidedRecord(
        uid=pair.uid,
        number=pair.number,
        prompt=pair.prompt,
        margin_nats=0.0,
        method="pointwise",
        principle_ids=("kind",),
        first=pair.first,
        second=pair.second,
        first_source="draft",
        second_source="revision",
        reason="too close",
    )


def swapped(pair: PreferenceRecord, p: float) -> PreferenceRecord:
    return pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen, "p_chosen": p})


Judged = PreferenceRecord | UndecidedRecord


def expected_labels(mine: Iterable[Judged], theirs: Iterable[Judged]) -> Labels:
    """The same by a plain loop."""
    others = {(each.uid, each.number): each for each in theirs}
    judged = decided = flips = once = 0
    change: list[float] = []
    for one in mine:
        other = others.get((one.uid, one.number))
        if other is None or {one.first, one.second} != {other.first, other.second}:
            continue
        judged += 1
        if isinstance(one, PreferenceRecord) and isinstance(other, PreferenceRecord):
            decided += 1
            same = one.chosen == other.chosen
            flips += not same
            change.append(abs(one.p_chosen - (other.p_chosen if same else 1 - other.p_chosen)))
        else:
            once += isinstance(one, PreferenceRecord) != isinstance(other, PreferenceRecord)
    return Labels(judged, decided, flips, once, sum(change) / decided if decided else None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("two")
    pairs = [labelled_pair(f"row {n}", number=n % 2) for n in range(6)]
    return write_labelled_run(place / "one", pairs), write_labelled_run(place / "other", pairs)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["same", "flipped", "surer", "undecided", "other text", "none"]), min_size=6, max_size=6))
def test_labels_are_counted_as_by_a_loop(folders: tuple[Path, Path], fates: list[str]) -> None:
    mine = [labelled_pair(f"row {n}", number=n % 2) for n in range(6)]
    theirs: list[Judged] = []
    for pair, fate in zip(mine, fates, strict=True):
        made = {
            "same": pair,
            "flipped": swapped(pair, 0.75),
            "surer": pair.model_copy(update={"p_chosen": 0.95}),
            "undecided": undecided(pair),
            "other text": pair.model_copy(update={"chosen": "quite another"}),
        }.get(fate)
        theirs += [made] if made is not None else []
    with RunFolder.open(folders[1]) as run:
        run.put_records(RecordKind.PREFERENCE, [each for each in theirs if isinstance(each, PreferenceRecord)])
        run.put_records(RecordKind.UNDECIDED, [each for each in theirs if isinstance(each, UndecidedRecord)])
    with paired(*folders) as both:
        assert both.labels() == expected_labels(mine, theirs)


def test_rows_are_told_apart_by_what_is_in_them_and_found_in_order(tmp_path: Path) -> None:
    pairs = [labelled_pair(f"row {n}") for n in range(5)]
    first = write_labelled_run(tmp_path / "first", pairs)
    second = write_labelled_run(tmp_path / "second", [*pairs[:3], labelled_pair("another")])
    with RunFolder.open(second) as run:
        records = list(run.records(RecordKind.REVISION, RevisionRecord))
        changed = [
            records[0].model_copy(update={"draft": "new"}),
            records[1].model_copy(update={"draft_cut": True}),
            *records[2:],
        ]
        run.put_records(RecordKind.REVISION, changed)
    with paired(first, second) as both:
        assert both.records(RecordKind.REVISION) == Common(3, 2, 2, 1)
        assert both.texts("draft") == Common(3, 1, 2, 1)
        assert both.changed_rows(9) == [("row 0", 0), ("row 1", 0)]
        assert both.changed_rows(1) == [("row 0", 0)]
        assert both.items() == Common(4, 0, 2, 1)  # one was filtered in both
    with paired(first, second, of_second=True) as both:
        assert both.records(RecordKind.REVISION) == Common(3, 2, 0, 1)


def test_where_a_row_was_read_from_makes_no_difference(tmp_path: Path) -> None:
    folders = [write_labelled_run(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        with RunFolder.open(folder) as run:
            items = [item.model_copy(update={"source": f"{folder}/p.jsonl:1"}) for item in run.items()]
            items[0] = items[0].model_copy(update={"messages": (user(folder.name),)})
            run.put_items(items)
    with paired(*folders) as both:
        assert both.items() == Common(4, 1, 0, 0)
