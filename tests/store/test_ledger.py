"""Items and the ledger: every input row has exactly one outcome."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import item, revision

from cai.errors import StoreError
from cai.records import FailureRecord, LedgerEntry, Outcome, RecordKind, Stage
from cai.store import RunFolder, StoredCall
from tests.review.reviewed_runs import pair


def test_every_input_row_has_exactly_one_outcome_from_the_first_moment(run: RunFolder) -> None:
    failure = FailureRecord(uid="prompts.jsonl:7", stage="read", cause="broken_json", detail="line 7")
    run.put_items([item("a"), item("b")], failures=[failure], replicas=2)
    run.assert_balanced()
    assert run.ledger_counts() == {"pair": 0, "kept": 0, "filtered": 0, "failed": 1, "pending": 4}
    assert [(e.uid, e.replica, e.outcome, e.reason) for e in run.ledger()] == [
        ("a", 0, "pending", ""),
        ("a", 1, "pending", ""),
        ("b", 0, "pending", ""),
        ("b", 1, "pending", ""),
        ("prompts.jsonl:7", 0, "failed", "read: broken_json"),
    ]
    assert list(run.read_failures()) == [failure]
    with pytest.raises(StoreError, match=r"4 of 5 input rows have no outcome yet: a \(replica 0\)"):
        run.assert_balanced(finished=True)


def test_outcomes_are_settled_all_or_none_and_counted_by_reason(run: RunFolder) -> None:
    unread = FailureRecord(uid="prompts.jsonl:7", stage="read", cause="broken_json", detail="line 7")
    run.put_items([item("a"), item("b"), item("c")], failures=[unread])
    entries = [
        LedgerEntry(uid="a", outcome=Outcome.PAIR),
        LedgerEntry(uid="b", outcome=Outcome.FILTERED, reason="meta_talk"),
        LedgerEntry(uid="c", outcome=Outcome.KEPT, reason="nothing_to_change"),
    ]
    with pytest.raises(ValueError, match="no item 'zz'"):
        run.settle([*entries, LedgerEntry(uid="zz", outcome=Outcome.PAIR)])
    assert run.ledger_counts()[Outcome.PENDING] == 3
    run.settle(entries)
    run.assert_balanced(finished=True)
    assert run.ledger_reasons() == {
        (Outcome.FAILED, "read: broken_json"): 1,
        (Outcome.FILTERED, "meta_talk"): 1,
        (Outcome.KEPT, "nothing_to_change"): 1,
        (Outcome.PAIR, ""): 1,
    }
    run.reset_ledger()
    assert run.ledger_counts()[Outcome.PENDING] == 3
    assert run.ledger_counts()[Outcome.FAILED] == 1, "what could not be read is not tried again"


def of_replica(kind: RecordKind, uid: str) -> str:
    return f"kind = '{kind}' AND uid = '{uid}' AND replica = 1"


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM ledger WHERE uid = 'kept'", "input rows without an outcome"),
        ("DELETE FROM items WHERE uid = 'kept'", "outcomes without an input row"),
        (f"DELETE FROM records WHERE {of_replica(RecordKind.PREFERENCE, 'pair')}", 'outcomes "pair" without a labelled pair'),
        (
            "UPDATE ledger SET outcome = 'kept', reason = 'x' WHERE uid = 'pair' AND replica = 1",
            'labelled pairs whose outcome is not "pair"',
        ),
        (
            f"DELETE FROM records WHERE {of_replica(RecordKind.FAILURE, 'failed')}",
            "failed rows without a record of the failure",
        ),
        (
            "UPDATE ledger SET outcome = 'kept', reason = 'x' WHERE uid = 'failed' AND replica = 1",
            "rows with a record of a failure that have another outcome",
        ),
        (
            "UPDATE ledger SET outcome = 'pending', reason = '' WHERE uid = 'kept'",
            "input rows still pending after the labels",
        ),
    ],
)
def test_each_way_in_which_ledger_and_records_can_contradict_each_other_is_found(
    tmp_path: Path, statement: str, found: str
) -> None:
    """By hand, with the rules of the database taken away: a sound run next to it has none of them."""
    replicas = (0, 1)
    with RunFolder.open(tmp_path / "run") as run:
        unread = FailureRecord(uid="prompts.jsonl:7", stage="read", cause="broken_json", detail="line 7")
        run.put_items([item("pair"), item("failed"), item("kept")], failures=[unread], replicas=2)
        run.put_records(RecordKind.PREFERENCE, [pair("pair").model_copy(update={"replica": n}) for n in replicas])
        failures = [FailureRecord(uid="failed", replica=n, stage="label", cause="timeout", detail="") for n in replicas]
        run.put_records(RecordKind.FAILURE, failures)
        run.settle(
            LedgerEntry(uid=uid, replica=n, outcome=outcome, reason=reason)
            for uid, outcome, reason in (
                ("pair", Outcome.PAIR, ""),
                ("failed", Outcome.FAILED, "label: timeout"),
                ("kept", Outcome.KEPT, "undecided"),
            )
            for n in replicas
        )
        run.put_stage(Stage.LABEL, "f", {})
        assert run.contradictions() == {}
    count = 1 if "replica" in statement else 2
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement).rowcount == count
    with RunFolder.open(tmp_path / "run", read_only=True, checked=False) as run:
        assert run.contradictions() == {found: count}
        if "DELETE FROM ledger" in statement:
            with pytest.raises(StoreError, match="does not balance: 7 input rows, but pair 2, kept 0"):
                run.assert_balanced()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger WHERE uid = 'a'",
        "UPDATE ledger SET outcome = 'lost'",
        "UPDATE ledger SET outcome = 'failed', reason = ''",
        "INSERT INTO ledger (uid, replica, outcome, reason) VALUES ('a', 0, 'pair', '')",
        "INSERT INTO ledger (uid, replica, outcome, reason) VALUES ('ghost', 0, 'pair', '')",
        "INSERT INTO records VALUES ('r', 'ghost', 0, 0, '{}', x'0011223344556677')",
    ],
)
def test_the_database_itself_refuses_an_unbalanced_ledger(run: RunFolder, statement: str) -> None:
    run.put_items([item("a")])
    with pytest.raises(sqlite3.IntegrityError), run._database.transaction() as connection:  # pyright: ignore[reportPrivateUsage]
        connection.execute(statement)
    run.assert_balanced()


REASONS = {
    Outcome.PAIR: "",
    Outcome.KEPT: "undecided",
    Outcome.FILTERED: "meta_talk",
    Outcome.FAILED: "label: out_of_memory",
    Outcome.PENDING: "",
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from(list(Outcome))), max_size=30))
def test_whatever_is_settled_in_whatever_order_the_ledger_balances(steps: list[tuple[int, int, Outcome]]) -> None:
    with tempfile.TemporaryDirectory() as folder, RunFolder.open(Path(folder) / "run") as run:
        run.put_items([item(f"i{n}") for n in range(5)], replicas=3)
        expected: dict[tuple[str, int], Outcome] = {}
        for n, replica, outcome in steps:
            run.settle([LedgerEntry(uid=f"i{n}", replica=replica, outcome=outcome, reason=REASONS[outcome])])
            expected[f"i{n}", replica] = outcome
        run.assert_balanced()
        found = {(e.uid, e.replica): e.outcome for e in run.ledger()}
        assert found == {(f"i{n}", r): expected.get((f"i{n}", r), Outcome.PENDING) for n in range(5) for r in range(3)}


def test_two_rows_with_one_uid_are_refused(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="one uid"):
        run.put_items([item("a"), item("a", "other")])


def test_the_same_input_again_keeps_everything_and_another_one_starts_over_but_for_model_calls(run: RunFolder) -> None:
    def work() -> None:
        run.put_records("revisions", [revision("a")])
        run.settle([LedgerEntry(uid="a", outcome=Outcome.PAIR)])
        run.put_stage("loop", "f1", {})

    assert run.put_items([item("a"), item("b")])
    run.calls.add(StoredCall("key", "score", "labels", "{}"))
    work()
    assert not run.put_items([item("a"), item("b")])
    assert run.stage("loop") is not None
    assert run.count_records("revisions") == 1
    assert run.put_items([item("a"), item("b"), item("c")])
    assert run.stage("loop") is None
    assert run.count_records("revisions") == 0
    assert run.ledger_counts()[Outcome.PENDING] == 3
    assert set(run.calls.find(["key"])) == {"key"}
