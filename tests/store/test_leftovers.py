"""Half-written files of killed processes go when their run is opened; those of another run below it stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cai.store import RunFolder
from cai.store.examination import examine
from cai.store.leftovers import part_files

REPOSITORY = Path(__file__).resolve().parents[2]
WRITES = (
    "import sys; from pathlib import Path; from cai.store import RunFolder, atomic_file\n"
    "with RunFolder.open(Path(sys.argv[1])) as run, atomic_file(run.path / 'rows.jsonl') as file:\n"
    "    file.write(b'half, ')\n"
    "    print('writing', flush=True); sys.stdin.readline()\n"
    "    file.write(b'whole')\n"
)


def writing(folder: Path) -> subprocess.Popen[str]:
    """A process in the middle of a file of its run; a line on its standard input lets it finish."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(folder)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_opening_the_whole_leaves_the_file_that_a_shard_is_writing(tmp_path: Path) -> None:
    """Shards lie one level below the folder of the whole: to open that used to remove their files under way."""
    shard = tmp_path / "run" / "shard-1-of-2"
    process = writing(shard)
    try:
        with RunFolder.open(tmp_path / "run"):
            pass
        told = [finding.problem for check in examine(tmp_path / "run").checks for finding in check.findings]
        assert not [problem for problem in told if "half written" in problem]
        _, errors = process.communicate("go on\n", timeout=60)
        assert process.returncode == 0, errors
    finally:
        process.kill()
    assert (shard / "rows.jsonl").read_bytes() == b"half, whole"


def test_what_a_killed_process_left_goes_when_its_own_run_is_opened(tmp_path: Path) -> None:
    shard = tmp_path / "run" / "shard-1-of-2"
    process = writing(shard)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    RunFolder.open(tmp_path / "run").close()
    assert [part.name for part in part_files(shard)] == [f".rows.jsonl.{process.pid}.cai-part"]
    RunFolder.open(shard).close()
    assert part_files(shard) == []


def test_a_runs_own_parts_go_with_those_of_its_folders_but_not_of_linked_ones(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    RunFolder.open(run).close()
    for folder in (run / "datasets", elsewhere):
        folder.mkdir()
    for folder in (run, run / "datasets", elsewhere):
        (folder / ".sft.jsonl.17.cai-part").write_text("half")
    (run / "linked").symlink_to(elsewhere)
    RunFolder.open(run).close()
    assert sorted(tmp_path.rglob("*.cai-part")) == [elsewhere / ".sft.jsonl.17.cai-part"]
