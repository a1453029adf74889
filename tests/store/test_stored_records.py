"""Records, measurements and stages in a run folder."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from run_folders import item, revision

from cai.errors import StoreError
from cai.records import RevisionRecord
from cai.store import RunFolder, StageResult


def test_records_come_back_in_order_of_their_items_whatever_the_order_they_were_put_in(run: RunFolder) -> None:
    uids = [f"i{n}" for n in range(2500)]  # more than one page
    run.put_items([item(uid) for uid in uids], replicas=2)
    run.put_records("revisions", [revision(uid, replica) for replica in (1, 0) for uid in reversed(uids)])
    found = [(r.uid, r.replica) for r in run.records("revisions", RevisionRecord)]
    assert found == [(uid, replica) for uid in uids for replica in (0, 1)]
    assert run.count_records("revisions") == 5000


def test_several_records_of_an_item_keep_their_order(run: RunFolder) -> None:
    run.put_items([item("a"), item("b")])
    run.put_records("revisions", [revision("b", draft="1"), revision("a", draft="2"), revision("b", draft="3")])
    assert [r.draft for r in run.records("revisions", RevisionRecord)] == ["2", "1", "3"]


def test_putting_records_again_replaces_them_and_a_broken_put_changes_nothing(run: RunFolder) -> None:
    run.put_items([item("a"), item("b")])
    run.put_records("revisions", [revision("a"), revision("b")])
    with pytest.raises(ValueError, match="no item 'ghost'"):
        run.put_records("revisions", [revision("a", draft="new"), revision("ghost")])
    assert [r.draft for r in run.records("revisions", RevisionRecord)] == ["a draft", "a draft"]
    run.put_records("revisions", [revision("a", draft="new")])
    assert [r.draft for r in run.records("revisions", RevisionRecord)] == ["new"]


def test_records_may_be_written_while_others_are_read(run: RunFolder) -> None:
    run.put_items([item(f"i{n}") for n in range(1500)])
    run.put_records("revisions", [revision(f"i{n}") for n in range(1500)])
    seen = 0
    for record in run.records("revisions", RevisionRecord):
        if seen % 500 == 0:
            run.put_records("seen", [record])
        seen += 1
    assert seen == 1500


def test_a_transaction_keeps_records_and_stage_together(run: RunFolder) -> None:
    run.put_items([item("a")])

    def interrupted() -> None:
        with run.transaction():
            run.put_records("revisions", [revision("a")])
            run.put_stage("loop", "f1", {"drafts": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.stage("loop") is None
    assert run.count_records("revisions") == 0
    with run.transaction():
        run.put_records("revisions", [revision("a")])
        run.put_stage("loop", "f1", {"drafts": 1})
    assert run.stage("loop") == StageResult("loop", "f1", {"drafts": 1})
    run.put_stage("loop", "f2", {})
    assert run.stage("loop") == StageResult("loop", "f2", {})
    run.forget_stage("loop")
    assert run.stage("loop") is None


def test_measurements_belong_to_no_item_and_keep_their_order(run: RunFolder) -> None:
    class Cell(BaseModel):
        name: str
        rate: float

    cells = [Cell(name=f"c{n}", rate=n / 7) for n in range(20)]
    run.put_measurements("before", cells)
    run.put_measurements("before", cells)
    assert list(run.measurements("before", Cell)) == cells
    assert list(run.measurements("after", Cell)) == []


def test_a_record_of_another_shape_is_told_without_a_traceback(run: RunFolder) -> None:
    class Old(BaseModel):
        uid: str
        replica: int = 0
        gone: int = 1

    run.put_items([item("a")])
    run.put_records("revisions", [Old(uid="a")])
    with pytest.raises(StoreError, match="does not fit this version"):
        list(run.records("revisions", RevisionRecord))
