"""Two hundred SIGKILLs at random moments of real runs: no row lost, none doubled, every file the same to the byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import REPOSITORY, environment, output_files, write_prompts

from cai.store import RunFolder
from cai.store.examination import examine

DRIVER = Path(__file__).with_name("kill_driver.py")
KILLS = 200
ROWS = 30
STAGES = {"draft", "critique", "revision", "label", "dpo reference", "dpo training", "evaluate before", "evaluate after"}


@pytest.mark.slow
def test_after_two_hundred_kills_no_row_is_lost_or_doubled_and_all_files_are_the_same(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    prompts = write_prompts(tmp_path / "prompts.jsonl", ROWS)
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(model), str(prompts), str(KILLS)],
        env=environment() | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    print(facts)
    assert facts["kills"] == KILLS
    assert len(STAGES & set(facts["hit"])) >= 5, "the kills did not spread over the run"
    whole = output_files(tmp_path / "straight" / "run")
    with RunFolder.open(tmp_path / "straight" / "run", read_only=True) as run:
        ledger, calls = list(run.ledger()), {stage: usage.calls for stage, usage in run.usage().items()}
    assert len(ledger) == ROWS
    for number in range(facts["runs"]):
        killed = tmp_path / f"killed-{number}" / "run"
        assert output_files(killed) == whole, killed
        with RunFolder.open(killed, read_only=True) as run:
            assert list(run.ledger()) == ledger
            assert {stage: usage.calls for stage, usage in run.usage().items()} == calls, "a call was made twice, or is gone"
            run.assert_balanced(finished=True)
        assert examine(killed).is_sound, examine(killed)
