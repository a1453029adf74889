"""A byte of a real run's database is flipped, and the run goes on: to the same files, or to a refusal in words."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import write_config, write_prompts

from cai.config import read_config
from cai.errors import StoreError
from cai.pipeline import Inputs, open_session, read_inputs, run
from cai.records import Stage
from cai.store.examination import examine

FLIPS = 100


def finish(inputs: Inputs, until: Stage) -> tuple[dict[str, bytes], object]:
    """Run to a stage; the data sets, and every row's outcome."""
    with open_session(inputs) as session:
        run(session, until=until)
        outcomes = list(session.folder.ledger())
    return {path.name: path.read_bytes() for path in (inputs.config.run / "datasets").glob("*")}, outcomes


def finish_or_refusal(inputs: Inputs) -> tuple[dict[str, bytes], object] | StoreError:
    try:
        return finish(inputs, Stage.EXPORT)
    except StoreError as error:
        return error


@pytest.mark.slow
@pytest.mark.parametrize("done", [Stage.GENERATE, Stage.EXPORT])
def test_a_run_with_a_flipped_byte_goes_on_to_the_same_files_or_is_refused(tmp_path: Path, done: Stage) -> None:
    """With the labels still to do, calls and records are used; of a finished run, only what is looked at."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 12)
    config = write_config(tmp_path, make_checkpoint(tmp_path / "model"), prompts, dpo=None)
    inputs = read_inputs(read_config(config, (), {}).config)
    finish(inputs, done)
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    content = (tmp_path / "kept" / "run.sqlite").read_bytes()
    whole = finish(inputs, Stage.EXPORT)
    chance, ends = random.Random(9), Counter[str]()
    for _ in range(FLIPS):
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(tmp_path / "kept", tmp_path / "run")
        place, change = chance.randrange(len(content)), 1 << chance.randrange(8)
        flipped = content[:place] + bytes([content[place] ^ change]) + content[place + 1 :]
        (tmp_path / "run" / "run.sqlite").write_bytes(flipped)
        was_sound = examine(tmp_path / "run").is_sound
        found = finish_or_refusal(inputs)
        if isinstance(found, StoreError):
            assert found.hint
            assert not was_sound, f"byte {place} ^ {change}: refused, but cai doctor finds nothing: {found}"
            ends["refused"] += 1
            continue
        assert found == whole, f"byte {place} ^ {change}"
        ends["the same, nothing found" if was_sound else "the same, damage found"] += 1
    assert min(ends[end] for end in ("refused", "the same, damage found")) > 0, ends
    print(ends)
