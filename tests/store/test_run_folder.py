"""Opening, locking and refusing run folders; records, ledger and stages in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cai.errors import StoreError
from cai.records import FailureRecord, Item, LedgerEntry, Outcome, RevisionRecord
from cai.store import RunFolder, StageResult, StoredCall, atomic_file, write_bytes_atomically
from constitution.messages import user

REPOSITORY = Path(__file__).resolve().parents[2]


def item(uid: str, text: str = "hello") -> Item:
    return Item(uid=uid, messages=(user(text),))


def revision(uid: str, replica: int = 0, draft: str = "a draft") -> RevisionRecord:
    return RevisionRecord(uid=uid, replica=replica, messages=(user("hello"),), draft=draft, rounds=())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run") as opened:
        yield opened


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


# ---- opening


def test_a_new_folder_is_made_with_its_parents_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with RunFolder.open(path) as run:
        run.put_items([item("x")])
        run.write_manifest({"seed": 3, "name": "é"})
    with RunFolder.open(path, create=False) as run:
        assert [i.uid for i in run.items()] == ["x"]
        assert run.manifest == {"seed": 3, "name": "é"}


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"thesis\.txt") as caught:
        RunFolder.open(tmp_path)
    assert "new or an empty folder" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_missing_run_is_not_made_by_a_reader(tmp_path: Path) -> None:
    for mode in ({"create": False}, {"read_only": True}):
        with pytest.raises(StoreError, match="no run in this folder"):
            RunFolder.open(tmp_path / "nowhere", **mode)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StoreError, match="a file, not a folder"):
        RunFolder.open(tmp_path / "run")


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cai.store import RunFolder\n"
        "run = RunFolder.open(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for _ in range(2):  # asking does not loosen the lock
            with pytest.raises(StoreError, match=rf"process {holder.pid} on ") as caught:
                RunFolder.open(tmp_path / "run")
            assert f"kill {holder.pid}" in caught.value.hint
        with RunFolder.open(tmp_path / "run", read_only=True) as beside:
            assert list(beside.items()) == []
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    RunFolder.open(tmp_path / "run").close()


def test_the_same_process_cannot_open_a_run_twice(run: RunFolder) -> None:
    with pytest.raises(StoreError, match="this process"):
        RunFolder.open(run.path)


def test_a_process_killed_while_it_made_the_folder_leaves_one_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in (".run.lock", ".run.holder.json", ".manifest.json.17.cai-part"):
        (path / name).write_bytes(b"")
    sqlite3.connect(path / "run.sqlite").execute("PRAGMA journal_mode = WAL").close()
    with RunFolder.open(path) as run:
        run.put_items([item("x")])
    assert not list(path.glob("*.cai-part"))


@pytest.mark.parametrize("damage", ["not sqlite", "torn page", "cut short"])
def test_a_damaged_database_is_refused_with_a_way_out_and_kept_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run"
    with RunFolder.open(path) as run:
        run.put_items([item(f"i{n}", "text " * 50) for n in range(500)])
    file = path / "run.sqlite"
    content = bytearray(file.read_bytes())
    if damage == "not sqlite":
        content[:16] = b"this is a letter"
    elif damage == "torn page":
        content[8192:12288] = os.urandom(4096)
    else:
        del content[len(content) // 2 :]
    file.write_bytes(content)
    for mode in ({}, {"read_only": True}):
        with pytest.raises(StoreError, match="damaged") as caught:
            RunFolder.open(path, **mode)
        assert ".recover" in caught.value.hint
        assert file.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "run.sqlite") as connection:
        connection.execute("CREATE TABLE photos (name)")
    with pytest.raises(StoreError, match="not one of this program"):
        RunFolder.open(tmp_path)


def test_a_newer_versions_run_is_refused(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run").close()
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer version") as caught:
        RunFolder.open(tmp_path / "run")
    assert "pip install -U" in caught.value.hint


def test_commits_are_durable_by_settings(run: RunFolder) -> None:
    query = run._database.query  # pyright: ignore[reportPrivateUsage] (no public sign of it short of a power cut)
    assert query("PRAGMA journal_mode") == [("wal",)]
    assert query("PRAGMA synchronous") == [(2,)]
    assert query("PRAGMA foreign_keys") == [(1,)]


# ---- disks that refuse

WRITES_UNTIL_REFUSED = (
    "import resource, sys; from pathlib import Path; from cai.errors import StoreError\n"
    "from cai.store import RunFolder, StoredCall, atomic_file\n"
    "if len(sys.argv) > 2: resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))\n"
    "try:\n"
    "    with RunFolder.open(Path(sys.argv[1])) as run:\n"
    "        for n in range(100000):\n"
    "            run.calls.add(StoredCall(str(n), 'generate', 'draft', '\"' + 'x' * 2000 + '\"'))\n"
    "            if n % 10 == 9: run.calls.flush(); print(n + 1, flush=True)\n"
    "except StoreError as error: print(error, file=sys.stderr); sys.exit(1)\n"
)


def check_refused_write_loses_nothing(result: subprocess.CompletedProcess[str], folder: Path, said: str) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert said in result.stderr
    assert "safe" in result.stderr
    assert "run the same command again" in result.stderr
    committed = int(result.stdout.split()[-1])
    with RunFolder.open(folder) as run:
        assert len(run.calls.find([str(n) for n in range(committed)])) == committed


def test_a_write_beyond_the_file_limit_is_told_and_finished_calls_stay(tmp_path: Path) -> None:
    result = python(WRITES_UNTIL_REFUSED, tmp_path / "run", 1_000_000)
    check_refused_write_loses_nothing(result, tmp_path / "run", "the disk refused")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a tiny disk")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_finished_calls_stay(tiny_disk: Path) -> None:
    """After space is freed the same folder goes on."""
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    result = python(WRITES_UNTIL_REFUSED, tiny_disk / "run")
    ballast.unlink()
    check_refused_write_loses_nothing(result, tiny_disk / "run", "the disk is full")


def test_a_full_disk_leaves_the_old_output_file_whole(tiny_disk: Path) -> None:
    path = tiny_disk / "rows.jsonl"
    write_bytes_atomically(path, b"old")
    with pytest.raises(StoreError, match="no space left") as caught:
        write_bytes_atomically(path, b"x" * 3_000_000)
    assert "Free some space" in caught.value.hint
    assert path.read_bytes() == b"old"
    assert [p.name for p in tiny_disk.iterdir()] == ["rows.jsonl"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from cai.errors import StoreError; from cai.store import RunFolder\n"
        "if os.geteuid() == 0: os.setuid(65534)  # permissions do not bind root\n"
        "try: RunFolder.open(Path(sys.argv[1]))\n"
        "except StoreError as error: print(error); sys.exit(1)"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        path = Path(folder) / "run"
        RunFolder.open(path).close()
        Path(folder).chmod(0o755)
        for file in path.iterdir():
            file.chmod(0o444)
        path.chmod(0o555)
        result = python(code, path)
        again = python(code, path / "inner")
        reading = python(f"{code.replace('(sys.argv[1])', '(sys.argv[1]), read_only=True')}", path)
        path.chmod(0o755)
    assert (result.returncode, result.stderr) == (1, "")
    assert "cannot be written" in result.stdout
    assert "Make the folder writable" in result.stdout
    assert (again.returncode, again.stderr) == (1, "")
    assert (reading.returncode, reading.stderr) == (0, "")


# ---- items and the ledger


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
    run.put_items([item("a"), item("b"), item("c")])
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
        (Outcome.FILTERED, "meta_talk"): 1,
        (Outcome.KEPT, "nothing_to_change"): 1,
        (Outcome.PAIR, ""): 1,
    }
    run.reset_ledger()
    assert run.ledger_counts()[Outcome.PENDING] == 3


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


# ---- records, measurements, stages


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


# ---- files


def test_a_manifest_is_sorted_readable_json_and_a_broken_one_is_told(run: RunFolder) -> None:
    run.write_manifest({"b": 1, "a": {"d": [1, 2], "c": "ü"}})
    text = (run.path / "manifest.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert len(content.pop("sha256")) == 64
    assert content == run.manifest == {"a": {"c": "ü", "d": [1, 2]}, "b": 1}
    assert text.index('"a"') < text.index('"b"')
    assert "ü" in text
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        _ = run.manifest


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    write_bytes_atomically(path, b"old")

    def broken() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]


# ---- a reader, and a writer that comes


def test_a_reader_of_a_closed_run_sees_what_a_writer_does_from_then_on(tmp_path: Path) -> None:
    """Without a log, a reader takes the file as it stands and no lock; a writer that came then used to be overlooked."""
    path = tmp_path / "run"
    with RunFolder.open(path) as run:
        run.put_items([item(f"i{n}") for n in range(300)])
    with RunFolder.open(path, read_only=True) as reader:
        assert not (path / "run.sqlite-wal").exists()
        assert reader.count_records("revisions") == 0
        with RunFolder.open(path) as writer:
            writer.put_records("revisions", [revision(f"i{n}") for n in range(300)])
            assert reader.count_records("revisions") == 300
            assert len(list(reader.records("revisions", RevisionRecord))) == 300
        assert len(list(reader.records("revisions", RevisionRecord))) == 300
        with RunFolder.open(path) as writer:
            writer.put_items([item("only")])
        assert [i.uid for i in reader.items()] == ["only"]
        assert reader.count_records("revisions") == 0


def test_readers_that_open_while_a_writer_starts_and_ends_never_see_damage_or_half_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from cai.store import RunFolder, StoredCall\n"
        "for n in range(40):\n"
        "    with RunFolder.open(Path(sys.argv[1])) as run:\n"
        "        run.calls.add(*(StoredCall(f'{n}-{k}', 'generate', 'draft', '\"' + 'x' * 500 + '\"') for k in range(20)))\n"
    )
    RunFolder.open(path).close()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    writer = subprocess.Popen([sys.executable, "-c", code, str(path), str(REPOSITORY)], env=environment)
    seen: list[int] = []
    while writer.poll() is None:
        with RunFolder.open(path, read_only=True) as reader:
            seen.append(sum(usage.calls for usage in reader.usage().values()))
    assert writer.returncode == 0
    assert all(count % 20 == 0 for count in seen)
    assert seen == sorted(seen)
    with RunFolder.open(path, read_only=True) as reader:
        assert reader.usage()["draft"].calls == 800


# ---- a clock that jumps


DECIDING = ("database", "schema", "calls", "memo", "ledger", "lock", "run_folder", "files", "checksums", "canonical")


def test_nothing_that_decides_in_the_store_asks_what_time_it_is() -> None:
    """A clock may be set back by days in the middle of a run. The time of day is told to people, in the lock's note, only."""
    asking = {
        (file.name, line.strip())
        for file in (REPOSITORY / "cai" / "store" / f"{name}.py" for name in DECIDING)
        for line in file.read_text(encoding="utf-8").splitlines()
        if any(call in line for call in ("time.time", "datetime", "strftime", "st_mtime ", "localtime", "gmtime"))
    }
    assert asking == {("lock.py", 'since=time.strftime("%Y-%m-%d %H:%M:%S %z"),')}


def test_a_run_goes_on_although_the_clock_is_set_back_and_forth(tmp_path: Path) -> None:
    """The files of the run get times of long ago and of next year; the note of the holder says next year."""
    path = tmp_path / "run"
    for day in (0, -400, 400, -4000):
        moment = 1_700_000_000 + day * 86_400
        with RunFolder.open(path) as run:
            run.put_items([item("a")])
            run.calls.add(StoredCall(f"key {day}", "generate", "draft", '"x"'))
            run.put_stage("loop", f"f{day}")
            for file in path.iterdir():
                os.utime(file, (moment, moment))
            run.calls.add(StoredCall(f"later {day}", "generate", "draft", '"x"'))
        for file in path.iterdir():
            os.utime(file, (moment, moment))
    with RunFolder.open(path) as run:
        assert run.usage()["draft"].calls == 8
        assert run.stage("loop") == StageResult("loop", "f-4000", {})
