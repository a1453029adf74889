"""`cai doctor` finds what was done to a real run, says how to mend it, and what it says does mend it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from edited_runs import files_of
from whole_runs import cai, environment, output_files, write_config, write_prompts

from cai.config import read_config
from cai.pipeline import open_session, read_inputs, run
from cai.store import RunFolder
from cai.store.examination import Examination, Finding, examine
from cai.store.lock import Holder


def go_on(folder: Path) -> None:
    """Run, or go on with, the whole run of a folder."""
    with open_session(read_inputs(read_config(folder / "run.yaml", (), {}).config)) as session:
        run(session)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole finished run: data sets, a trained model, an evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    model = make_checkpoint(folder / "model")
    prompts = write_prompts(folder / "prompts.jsonl", 24)
    with prompts.open("ab") as file:
        file.write(b'{"prompt": "cut sh\n')
    write_config(folder, model, prompts)
    go_on(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, finished: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    shutil.copytree(finished, tmp_path / "copy")
    config = tmp_path / "copy" / "run.yaml"
    config.write_text(config.read_text().replace(str(finished / "run"), str(tmp_path / "copy" / "run")))
    return tmp_path / "copy"


def findings(found: Examination) -> dict[str, list[Finding]]:
    return {check.name: list(check.findings) for check in found.checks if check.findings}


def damage(found: Examination) -> dict[str, list[str]]:
    return {
        check.name: [each.problem for each in check.findings if each.level == "damage"]
        for check in found.checks
        if not check.is_sound
    }


def test_a_finished_run_is_sound_and_looking_changes_nothing(finished: Path) -> None:
    before = files_of(finished / "run")
    found = examine(finished / "run")
    assert findings(found) == {}
    assert {check.name: check.result for check in found.checks}["lock"] == "free"
    assert "25 input rows" in {check.name: check.result for check in found.checks}["ledger"]
    assert files_of(finished / "run") == before


def test_the_checksums_are_those_of_all_the_files_a_run_leaves_for_others(finished: Path) -> None:
    with RunFolder.open(finished / "run", read_only=True) as folder:
        noted = {file.path for file in folder.files()}
    assert noted >= set(output_files(finished / "run"))
    assert {"dpo/training.json", "dpo/config.json"} <= noted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["datasets/sft.jsonl", "datasets/README.md", "evaluation.json", "dpo/model.safetensors"])
def test_a_changed_or_missing_file_is_found_and_mended_as_it_says(place: Path, name: str) -> None:
    whole = output_files(place / "run")
    file = place / "run" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    (problem,) = damage(examine(place / "run"))["files"]
    assert problem.startswith(f"{name}: not as ")
    (finding,) = findings(examine(place / "run"))["files"]
    gone = Path(finding.mend.partition("Delete ")[2].partition(" (")[0])
    assert gone in (file, file.parent)
    if gone == file:
        gone.unlink()
        assert damage(examine(place / "run"))["files"] == [f"{name}: not there; {_stage(name)} wrote it."]
    else:
        shutil.rmtree(gone)
    go_on(place)
    assert damage(examine(place / "run")) == {}
    assert output_files(place / "run") == whole


def _stage(name: str) -> str:
    return "export" if name.startswith("datasets") else "evaluate"


HAND = {
    "a pair called kept": ("UPDATE ledger SET outcome = 'kept', reason = '' WHERE outcome = 'pair'", "ledger"),
    "all pending": (
        "UPDATE ledger SET outcome = 'pending', reason = '' WHERE reason NOT LIKE 'read: %'",
        "ledger",
    ),
    "a failure nobody had": (
        "UPDATE ledger SET outcome = 'failed', reason = 'draft: boredom' WHERE outcome = 'pair'",
        "ledger",
    ),
    "a pair deleted": ("DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE kind = 'preference')", "ledger"),
    "a record edited": ('UPDATE records SET body = replace(body, \'"draft":"\', \'"draft":"better \')', "records"),
    "an answer edited": ("UPDATE calls SET result = replace(result, 'e', 'E') WHERE kind = 'generate'", "stored calls"),
}


def test_each_file_and_each_table_edited_by_hand_is_found(place: Path) -> None:
    database = place / "run" / "run.sqlite"
    sound = database.read_bytes()
    for statement, check in HAND.values():
        edit(database, statement)
        assert set(damage(examine(place / "run"))) == {check}, statement
        database.write_bytes(sound)
    with RunFolder.open(place / "run", read_only=True) as folder:
        files = [file.path for file in folder.files()]
    for name in files:
        whole = (place / "run" / name).read_bytes()
        (place / "run" / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 32]))
        assert damage(examine(place / "run"))["files"][0].startswith(f"{name}: not as "), name
        (place / "run" / name).write_bytes(whole)
    assert damage(examine(place / "run")) == {}


def edit(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", HAND)
def test_what_was_edited_by_hand_in_the_database_is_put_right_by_running_again_as_it_says(place: Path, name: str) -> None:
    whole = output_files(place / "run")
    statement, check = HAND[name]
    edit(place / "run" / "run.sqlite", statement)
    assert all("again" in each.mend for each in findings(examine(place / "run"))[check])
    go_on(place)
    assert output_files(place / "run") == whole
    if check != "stored calls":  # what is finished asks for no call: only the next stage that does finds them
        assert damage(examine(place / "run")) == {}


def test_rules_of_the_database_that_were_taken_away_are_named(place: Path) -> None:
    edit(place / "run" / "run.sqlite", "DROP TRIGGER ledger_keeps_every_item")
    edit(place / "run" / "run.sqlite", "DELETE FROM ledger WHERE outcome = 'pair'")
    found = damage(examine(place / "run"))
    assert "ledger_keeps_every_item" in found["database"][0]
    assert any("input rows without an outcome" in each for each in found["ledger"])


def test_a_manifest_edited_by_hand_is_found_and_written_anew(place: Path) -> None:
    manifest = place / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 3', '"seed": 4'))
    assert damage(examine(place / "run")) == {"manifest": ["manifest.json: not as it was written."]}
    manifest.unlink()
    assert damage(examine(place / "run")) == {"manifest": ["manifest.json: not there."]}
    with open_session(read_inputs(read_config(place / "run.yaml", (), {}).config)):
        pass
    assert damage(examine(place / "run")) == {}


def test_other_versions_of_program_and_libraries_are_notes(place: Path) -> None:
    with RunFolder.open(place / "run") as folder:
        manifest = folder.manifest
        manifest["packages"]["torch"] = "1.0"
        folder.write_manifest(manifest | {"program": "0.0.1"})
    found = examine(place / "run")
    assert found.is_sound
    assert [each.problem.partition(";")[0] for each in findings(found)["versions"]] == [
        "made with constitution-cai 0.0.1",
        "made with torch 1.0",
    ]


def test_what_a_killed_process_left_is_noted_and_is_no_damage(place: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = Holder(pid=dead.pid, host=Holder.this_process().host, namespace=Holder.this_process().namespace, started="1")
    (place / "run" / ".run.holder.json").write_text(holder.model_dump_json())
    (place / "run" / "datasets" / f".sft.jsonl.{dead.pid}.cai-part").write_text("half")
    found = examine(place / "run")
    assert found.is_sound
    assert f"process {dead.pid} on " in findings(found)["lock"][0].problem
    assert f"datasets/.sft.jsonl.{dead.pid}.cai-part" in findings(found)["leftovers"][0].problem


def test_beside_a_process_at_work_it_says_who_and_finds_nothing_wrong(place: Path) -> None:
    with RunFolder.open(place / "run") as folder:
        folder.forget_stage("evaluate")
        found = examine(place / "run")
        assert found.is_sound
        assert f"process {os.getpid()} on " in findings(found)["lock"][0].problem


def test_a_broken_database_is_one_finding_among_the_others(place: Path) -> None:
    database = place / "run" / "run.sqlite"
    content = bytearray(database.read_bytes())
    content[4096:8192] = os.urandom(4096)
    database.write_bytes(content)
    found = examine(place / "run")
    assert "damaged" in damage(found)["database"][0]
    assert ".recover" in findings(found)["database"][0].mend


def test_the_command_says_it_in_lines_or_json_and_by_its_code(place: Path, tmp_path: Path) -> None:
    sound = cai("doctor", place / "run")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout.rstrip().endswith(": sound.")
    (place / "run" / "datasets" / "sft.jsonl").write_text("{}\n")
    broken = cai("doctor", place / "run", "--json")
    assert broken.returncode == 4
    told = json.loads(broken.stdout)
    assert told["sound"] is False
    assert [check["name"] for check in told["checks"] if not check["sound"]] == ["files"]
    assert cai("doctor", tmp_path / "nowhere").returncode == 1


@pytest.mark.slow
def test_beside_a_whole_run_it_never_finds_damage(tmp_path: Path, finished: Path) -> None:
    """From the first second to the last, over all stages."""
    config = write_config(tmp_path, finished / "model", finished / "prompts.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "cai.cli", "run", str(config)], env=environment(), stderr=subprocess.DEVNULL
    )
    looked = 0
    while process.poll() is None:
        if (tmp_path / "run" / "run.sqlite").exists() and (tmp_path / "run" / "manifest.json").exists():
            found = examine(tmp_path / "run")
            assert damage(found) == {}
            looked += 1
    assert process.returncode == 3, "one input row could not be read"
    assert looked > 10
    assert damage(examine(tmp_path / "run")) == {}
