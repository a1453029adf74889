"""A disk that fills at any point of a real run: it is told, nothing finished is lost, and with room it ends the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import REPOSITORY, environment, output_files, write_prompts

DRIVER = Path(__file__).with_name("full_disk_driver.py")
LIMITS_BYTES = (0, 100, 5_000, 60_000, 120_000, 150_000, 200_000, 250_000, 300_000, 350_000, 400_000, 500_000, 600_000, 800_000)


@pytest.mark.slow
def test_with_a_limit_on_files_the_run_stops_in_words_and_without_it_ends_as_if_there_had_been_none(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    prompts = write_prompts(tmp_path / "prompts.jsonl", 24)
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(model), str(prompts), *map(str, LIMITS_BYTES)],
        env=environment() | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [end["limit"] for end in ends] == list(LIMITS_BYTES)
    whole = output_files(tmp_path / "straight" / "run")
    stages = set[str]()
    for end in ends:
        assert (end["after"], end["trouble"]) == (0, ""), end
        assert output_files(tmp_path / f"limit-{end['limit']}" / "run") == whole, end["limit"]
        if end["code"] == 0:
            continue
        stages.add(end["stage"])
        assert end["code"] == 1, end["said"]
        assert "→" in end["said"]
        assert "Traceback" not in end["said"]
    assert len(stages) >= 3, stages
