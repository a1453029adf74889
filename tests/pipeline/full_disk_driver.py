"""Runs one configuration undisturbed, and others with a limit on the size of files, which fail as on a full disk; then without.

Usage: full_disk_driver.py FOLDER MODEL PROMPTS LIMIT_BYTES…. Prints for each limit how the limited process ended and what it
said, and how the one after it ended.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from forked_runs import Start
from whole_runs import write_config


def ended(config: Path, limit_bytes: int | None) -> tuple[int, str, str]:
    """Return code, last stage and error of one process that nobody kills."""
    start = Start(config, largest_file_bytes=limit_bytes)
    start.follow(time.monotonic() + 600)
    return start.end(kill=False), start.stage, start.said


def main(folder: Path, model: Path, prompts: Path, limits_bytes: list[int]) -> None:
    def prepared(name: str) -> Path:
        (folder / name).mkdir()
        return write_config(folder / name, model, prompts)

    assert ended(prepared("straight"), None)[0] == 0, "the run on a disk with room"
    for limit_bytes in limits_bytes:
        config = prepared(f"limit-{limit_bytes}")
        code, stage, said = ended(config, limit_bytes)
        after, _, trouble = ended(config, None)
        print(
            json.dumps({"limit": limit_bytes, "code": code, "stage": stage, "said": said, "after": after, "trouble": trouble})
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), [int(limit) for limit in sys.argv[4:]])
