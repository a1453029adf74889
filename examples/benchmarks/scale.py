"""Memory of a run by the number of its rows: `python examples/benchmarks/scale.py`.

For each count a process of its own reads that many prompts, drafts, critiques, revises and labels them on the scripted engine,
and exports the data sets. Its peak of resident memory is what the kernel says of it at its end. Needs about 4 KB of disk a row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from scripted_rows import write_run

COUNTS = (10_000, 100_000, 1_000_000)
MEMORY_LOG = """
import os, resource, sys
from cai.cli import main
sys.argv = ["cai", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None, 3), end.code
# Linux counts what the process was forked from to `ru_maxrss`; the high-water mark of its own memory is in its status.
status = "/proc/self/status"
if os.path.exists(status):
    peak = next(int(line.split()[1]) * 1024 for line in open(status) if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(peak, file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: `peak_bytes` of resident memory, `seconds` of wall time, and the run folder's `disk_bytes`."""

    rows: int
    peak_bytes: int
    seconds: float
    disk_bytes: int


def measure(folder: Path, rows: int) -> Measured:
    """One run of `rows` rows in a process of its own, in an empty folder."""
    folder.mkdir(parents=True)
    config = write_run(folder, rows, export_rows_per_file=200_000)
    began = time.perf_counter()
    command = [sys.executable, "-c", MEMORY_LOG, "export", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (our own command line)
    seconds = time.perf_counter() - began
    result = json.loads(done.stdout)
    if sum(result["ledger"].values()) != rows or result["ledger"]["pending"]:
        raise RuntimeError(f"the ledger does not balance: {result['ledger']}")
    disk = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    return Measured(rows, int(done.stderr.split()[-1]), seconds, disk)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each count, and how much memory grew from the smallest to the largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--folder", type=Path, help="where to put prompts and runs; default: a temporary folder")
    wanted = parser.parse_args(arguments)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
    print(f"{'rows':>9}  {'peak MiB':>8}  {'rows/s':>7}  {'seconds':>7}  {'disk MiB':>8}")
    found: list[Measured] = []
    for rows in wanted.rows:
        with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
            each = measure(Path(folder) / "scale", rows)
        found.append(each)
        print(
            f"{each.rows:>9,}  {each.peak_bytes / 2**20:>8.1f}  {each.rows / each.seconds:>7.0f}  {each.seconds:>7.1f}  "
            f"{each.disk_bytes / 2**20:>8.0f}",
            flush=True,
        )
    print(f"memory from {found[0].rows:,} to {found[-1].rows:,} rows: {found[-1].peak_bytes / found[0].peak_bytes - 1:+.1%}")


if __name__ == "__main__":
    main()
