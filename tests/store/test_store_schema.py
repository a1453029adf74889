"""The database itself keeps the ledger, whoever writes to it, and files of the first schema go on in this one."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from cai.errors import StoreError
from cai.records import FailureRecord, Item, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord
from cai.store import RunFolder, StageResult
from cai.store.examination import examine
from cai.store.pairing import Common, paired
from constitution.messages import user

SCHEMA_1 = Path(__file__).with_name("schema_1.sql")
APPLICATION_ID = 0x43414931
UNREADABLE = FailureRecord(uid="p.jsonl:4", stage="read", cause="broken_json", detail="line 4")


def items(*uids: str) -> list[Item]:
    return [Item(uid=uid, messages=(user(f"hello {uid}"),)) for uid in uids]


def revision(uid: str) -> RevisionRecord:
    return RevisionRecord(uid=uid, messages=(user("hello"),), draft=f"draft of {uid}", rounds=())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The database of a small closed run: three readable rows, each ended in another way, and one that could not be read."""
    with RunFolder.open(tmp_path / "run") as run:
        run.put_items(items("a", "b", "c"), failures=[UNREADABLE], replicas=2)
        run.put_records("revision", [revision("a"), revision("b")])
        run.settle(
            [
                LedgerEntry(uid="a", outcome=Outcome.PAIR),
                LedgerEntry(uid="b", outcome=Outcome.FILTERED, reason="empty"),
                LedgerEntry(uid="c", outcome=Outcome.FAILED, reason="draft: prompt_too_long"),
            ]
        )
    return tmp_path / "run" / "run.sqlite"


ATTACKS = (
    # a line is lost, or names no input row
    "DELETE FROM ledger",
    "DELETE FROM ledger WHERE uid = 'b' AND replica = 1",
    "UPDATE ledger SET uid = 'ghost' WHERE uid = 'a'",
    "UPDATE ledger SET replica = 7 WHERE uid = 'a' AND replica = 1",
    "UPDATE OR REPLACE ledger SET uid = 'b' WHERE uid = 'a'",
    "UPDATE OR IGNORE ledger SET uid = 'ghost' WHERE uid = 'a'",
    "INSERT INTO ledger VALUES ('ghost', 0, 'pair', '')",
    "INSERT OR REPLACE INTO ledger VALUES ('ghost', 0, 'pair', '')",
    # a second line
    "INSERT INTO ledger VALUES ('a', 0, 'kept', 'twice')",
    # no outcome, two, or one without its reason
    "UPDATE ledger SET outcome = 'lost'",
    "UPDATE ledger SET outcome = ''",
    "UPDATE ledger SET outcome = NULL",
    "UPDATE ledger SET outcome = 'pair kept'",
    "UPDATE ledger SET outcome = 1",
    "UPDATE ledger SET outcome = 'PAIR'",
    "UPDATE ledger SET outcome = 'filtered', reason = '' WHERE uid = 'a'",
    "UPDATE ledger SET outcome = 'failed', reason = 'no cause' WHERE uid = 'a'",
    "UPDATE ledger SET outcome = 'failed', reason = ': no stage' WHERE uid = 'a'",
    "UPDATE ledger SET outcome = 'failed', reason = 'label: ' WHERE uid = 'a'",
    "UPDATE ledger SET reason = 'a pair has no reason' WHERE outcome = 'pair'",
    "UPDATE ledger SET reason = NULL WHERE uid = 'b'",
    "INSERT OR REPLACE INTO ledger VALUES ('a', 0, 'failed', 'no cause')",
    # an input row that nobody could read ends otherwise
    "UPDATE ledger SET outcome = 'pair', reason = '' WHERE uid = 'p.jsonl:4'",
    "UPDATE ledger SET outcome = 'pending', reason = ''",
    "INSERT OR REPLACE INTO ledger VALUES ('p.jsonl:4', 0, 'kept', '')",
    # an input row appears, changes or goes without its line
    "UPDATE items SET uid = 'ghost' WHERE uid = 'a'",
    "UPDATE items SET readable = 1",
    "UPDATE OR REPLACE items SET position = 0 WHERE uid = 'b'",
    "INSERT OR REPLACE INTO items VALUES ('ghost', 0, 0, 1, '{}', x'0011223344556677')",
    "INSERT OR IGNORE INTO items VALUES ('ghost', 0, 99, 0, '{}', x'0011223344556677')",
    "INSERT OR IGNORE INTO items VALUES ('ghost', 0, 99, 0, 'no JSON', x'0011223344556677')",
    'INSERT OR IGNORE INTO items VALUES (\'ghost\', 0, 99, 0, \'{"stage": "", "cause": "x"}\', x\'0011223344556677\')',
    "INSERT INTO items VALUES ('ghost', 0, 99, 2, '{}', x'0011223344556677')",
    # these are allowed, and the ledger follows
    "INSERT INTO items VALUES ('new', 0, 99, 1, '{}', x'0011223344556677')",
    'INSERT INTO items VALUES (\'new\', 0, 99, 0, \'{"stage": "read", "cause": "x"}\', x\'0011223344556677\')',
    "INSERT OR REPLACE INTO items VALUES ('a', 0, 0, 1, '{}', x'0011223344556677')",
    'INSERT OR REPLACE INTO items VALUES (\'a\', 0, 0, 0, \'{"stage": "read", "cause": "x"}\', x\'0011223344556677\')',
    "INSERT OR REPLACE INTO items VALUES ('a', 0, 77, 1, '{}', x'0011223344556677')",
    "INSERT OR REPLACE INTO ledger VALUES ('a', 0, 'kept', 'undecided')",
    "DELETE FROM items WHERE uid = 'a'",
    "DELETE FROM items",
)

UNBALANCED = """
    SELECT uid, replica FROM items EXCEPT SELECT uid, replica FROM ledger
    UNION ALL SELECT uid, replica FROM (SELECT uid, replica FROM ledger EXCEPT SELECT uid, replica FROM items)
    UNION ALL SELECT uid, replica FROM ledger GROUP BY uid, replica HAVING count(*) <> 1
    UNION ALL SELECT uid, replica FROM ledger WHERE outcome NOT IN ('pair', 'kept', 'filtered', 'failed', 'pending')
    UNION ALL SELECT uid, replica FROM ledger WHERE outcome = 'filtered' AND reason = ''
    UNION ALL SELECT uid, replica FROM ledger WHERE outcome = 'failed' AND instr(reason, ': ') < 2
    UNION ALL SELECT uid, replica FROM items JOIN ledger USING (uid, replica) WHERE NOT readable AND outcome <> 'failed'
    UNION ALL SELECT uid, replica FROM (SELECT uid, replica FROM records EXCEPT SELECT uid, replica FROM items)
"""


def test_no_statement_of_another_program_unbalances_the_ledger(file: Path) -> None:
    """A plain connection, as the `sqlite3` program makes it: foreign keys are off."""
    connection = sqlite3.connect(file, isolation_level=None)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (0,)
    for statement in ATTACKS:
        connection.execute("BEGIN")
        with suppress(sqlite3.IntegrityError):
            connection.execute(statement)
        assert connection.execute(UNBALANCED).fetchall() == [], statement
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == [], statement
        connection.execute("ROLLBACK")
    connection.close()


def test_all_but_the_last_statements_are_refused(file: Path) -> None:
    """Otherwise the test above might pass because nothing is left that could be wrong."""
    before = dump(file)
    refused = ATTACKS[: ATTACKS.index("INSERT INTO items VALUES ('new', 0, 99, 1, '{}', x'0011223344556677')")]
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in refused:
        try:
            connection.execute(statement)
        except sqlite3.IntegrityError:
            continue
        assert " OR IGNORE " in statement, statement
    connection.close()
    assert dump(file) == before


def dump(file: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(file) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("items", "ledger", "records")
        }


def test_a_run_whose_rules_were_taken_away_is_not_written_to(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TRIGGER ledger_keeps_every_item")
    with pytest.raises(StoreError, match="ledger_keeps_every_item"):
        RunFolder.open(file.parent)
    with RunFolder.open(file.parent, read_only=True) as run:
        run.assert_balanced()


def test_a_trigger_of_somebody_else_is_found(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TRIGGER mine AFTER UPDATE ON ledger BEGIN SELECT 1; END")
    with pytest.raises(StoreError, match="mine"):
        RunFolder.open(file.parent)


# ---- earlier schemas


@pytest.fixture
def first_schema(tmp_path: Path) -> Path:
    """A run folder made by the statements of schema 1, as its programs left it."""
    folder = tmp_path / "old"
    folder.mkdir()
    connection = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
    connection.executescript(f"BEGIN IMMEDIATE; {marks} {SCHEMA_1.read_text()}; COMMIT;")
    calls = [
        ("k1", "generate", "draft", json.dumps({"text": "é\n"}), 7, 3, 0.1),
        ("k2", "generate", "draft", json.dumps({"cause": "prompt_too_long", "detail": ""}), 0, 0, 0),
        ("k3", "score", "score", json.dumps({"logps": [-0.1, -2.5]}), 9, 0, 1 / 3),
    ]
    connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", calls)
    rows = [(each.uid, n, 1, each.model_dump_json()) for n, each in enumerate(items("a", "b", "c"))]
    rows.append((UNREADABLE.uid, 3, 0, UNREADABLE.model_dump_json()))
    connection.executemany("INSERT INTO items VALUES (?, 0, ?, ?, ?)", rows)
    outcomes = [
        ("pair", "", "a"),
        ("filtered", "empty", "b"),
        ("kept", "undecided", "c"),
        ("failed", "read: broken_json", UNREADABLE.uid),
    ]
    connection.executemany("UPDATE ledger SET outcome = ?, reason = ? WHERE uid = ?", outcomes)
    records = [("revision", uid, n, revision(uid).model_dump_json()) for n, uid in enumerate("ab", start=1)]
    connection.executemany("INSERT INTO records VALUES (?, ?, 0, ?, ?)", records)
    connection.execute("INSERT INTO measurements VALUES ('evaluation', 0, ?)", (revision("a").model_dump_json(),))
    connection.execute("INSERT INTO stages VALUES ('generate', 'f1', '{\"records\":2}')")
    connection.close()
    return folder


def check_is_all_there(run: RunFolder) -> None:
    assert [item.uid for item in run.items()] == ["a", "b", "c"]
    assert list(run.read_failures()) == [UNREADABLE]
    assert [(e.uid, e.outcome, e.reason) for e in run.ledger()] == [
        ("a", "pair", ""),
        ("b", "filtered", "empty"),
        ("c", "kept", "undecided"),
        ("p.jsonl:4", "failed", "read: broken_json"),
    ]
    assert list(run.records("revision", RevisionRecord)) == [revision("a"), revision("b")]
    assert list(run.measurements("evaluation", RevisionRecord)) == [revision("a")]
    assert run.stage("generate") == StageResult("generate", "f1", {"records": 2})
    assert json.loads(run.calls.find(["k1"])["k1"].result) == {"text": "é\n"}
    assert run.calls.damaged == 0
    usage = run.usage()
    assert (usage["draft"].calls, usage["draft"].failures, usage["draft"].prompt_tokens) == (2, 1, 7)
    assert usage["score"].seconds == 1 / 3


def test_a_run_of_the_first_schema_opens_and_is_brought_to_this_one(first_schema: Path) -> None:
    with RunFolder.open(first_schema) as run:
        check_is_all_there(run)
        assert not run.put_items(items("a", "b", "c"), failures=[UNREADABLE])
    with sqlite3.connect(first_schema / "run.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE ledger SET uid = 'ghost' WHERE uid = 'a'")
    with RunFolder.open(first_schema) as run:
        check_is_all_there(run)


def test_a_database_brought_to_this_version_leaves_the_old_one_beside_it(first_schema: Path) -> None:
    with RunFolder.open(first_schema, read_only=True):
        assert not (first_schema / "run-schema-1.sqlite").exists()
    with RunFolder.open(first_schema):
        pass
    with sqlite3.connect(first_schema / "run-schema-1.sqlite") as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert kept.execute("SELECT count(*) FROM calls").fetchone() == (3,)
    before = (first_schema / "run-schema-1.sqlite").read_bytes()
    with RunFolder.open(first_schema) as run:  # brought already: nothing is copied again
        check_is_all_there(run)
    assert (first_schema / "run-schema-1.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("source", "margin", "wanted"),
    [
        ("revision", 0.5, ("draft", True, 0, 0)),
        ("draft", -0.5, ("revision", False, 0, 0)),
        ("sample", 0.5, ("sample", True, 0, 1)),
        ("sample", -0.5, ("sample", False, 1, 0)),
    ],
)
def test_pairs_that_did_not_say_what_was_rejected_are_read_as_they_were_meant(
    first_schema: Path, source: str, margin: float, wanted: tuple[str, bool, int, int]
) -> None:
    """A finished run of the first schema was told to be damaged, and had no report: its pairs lacked a field."""
    comparison = {"uid": "a", "principle_id": "p", "method": "pointwise", "order": "none", "margin_nats": margin}
    pair = {
        "version": 1, "uid": "a", "replica": 0, "prompt": [{"role": "user", "content": "Hi."}], "chosen": "x", "rejected": "y",
        "chosen_source": source, "p_chosen": 0.62, "margin_nats": 0.5, "method": "pointwise", "principle_ids": ["p"],
        "comparisons": [comparison], "tags": [],
    }  # fmt: skip
    with sqlite3.connect(first_schema / "run.sqlite") as connection:
        connection.execute("INSERT INTO records VALUES ('preference', 'a', 0, 0, ?)", (json.dumps(pair),))
    for read_only in (True, False):
        with RunFolder.open(first_schema, read_only=read_only) as run:
            (found,) = run.records("preference", PreferenceRecord)
        assert (found.rejected_source, found.chosen_is_first, found.chosen_index, found.rejected_index) == wanted
        assert found.first_margin_nats == margin
    (records,) = (each for each in examine(first_schema).checks if each.name == "records")
    assert records.is_sound, records.findings


def test_a_record_of_no_form_that_is_known_says_what_does_not_fit(first_schema: Path) -> None:
    with sqlite3.connect(first_schema / "run.sqlite") as connection:
        connection.execute("INSERT INTO records VALUES ('preference', 'a', 0, 0, ?)", (json.dumps({"uid": "a"}),))
    with RunFolder.open(first_schema) as run, pytest.raises(StoreError, match=r"kind 'preference' does not fit .*required"):
        list(run.records(RecordKind.PREFERENCE, PreferenceRecord))


def test_a_reader_sees_a_run_of_the_first_schema_and_leaves_it_as_it_is(first_schema: Path) -> None:
    content = (first_schema / "run.sqlite").read_bytes()
    with RunFolder.open(first_schema, read_only=True) as run:
        check_is_all_there(run)
    assert (first_schema / "run.sqlite").read_bytes() == content
    assert [path.name for path in first_schema.iterdir()] == ["run.sqlite"]


def test_a_ledger_of_the_first_schema_that_never_balanced_is_refused_and_kept(first_schema: Path) -> None:
    with sqlite3.connect(first_schema / "run.sqlite") as connection:
        connection.execute("UPDATE ledger SET outcome = 'failed', reason = 'no cause' WHERE uid = 'a'")
    for _ in range(2):
        with pytest.raises(StoreError, match="does not balance"):
            RunFolder.open(first_schema)
    with sqlite3.connect(first_schema / "run.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (3,)


@pytest.mark.parametrize("turned", [False, True])
def test_runs_of_the_first_schema_and_of_this_one_are_compared_whichever_comes_first(
    first_schema: Path, tmp_path: Path, turned: bool
) -> None:
    """The second one used to be refused where the first was read."""
    content = (first_schema / "run.sqlite").read_bytes()
    shutil.copytree(first_schema, tmp_path / "new")
    with RunFolder.open(tmp_path / "new"):
        pass  # brought to this version
    for other in (tmp_path / "new", first_schema):
        runs = (other, first_schema) if turned else (first_schema, other)
        with paired(*runs) as both:
            assert both.items() == Common(4, 0, 0, 0)
            assert both.records(RecordKind.REVISION) == Common(2, 0, 0, 0)
            assert sum(rows for *_, rows in both.outcomes()) == 4
    assert (first_schema / "run.sqlite").read_bytes() == content
    assert not [path for path in first_schema.iterdir() if path.name.startswith("run-schema")]
