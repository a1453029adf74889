"""Disks that refuse a write: it is told, and nothing finished is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import python

from cai.errors import StoreError
from cai.store import RunFolder, write_bytes_atomically

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
