"""Opening, locking and refusing run folders, their files, and readers beside a writer."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import REPOSITORY, item, revision

from cai.errors import StoreError
from cai.records import RevisionRecord
from cai.store import RunFolder, StageResult, StoredCall, atomic_file, write_bytes_atomically

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

DECIDING = (
    *("database", "schema", "calls", "memo", "ledger", "lock", "run_folder", "files", "checksums", "canonical"),
    *("manifest", "record_table", "stage_table", "leftovers", "grouping"),
)


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
