"""A row that failed of what may pass is tried again by the next run, and the plan says so; a lasting failure is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from whole_runs import write_config, write_prompts

from cai.config import read_config
from cai.pipeline import Inputs, open_session, plan, read_inputs, run
from cai.records import FailureRecord, LedgerEntry, Outcome, PreferenceRecord, RecordKind, RevisionRecord, Stage
from cai.store import RunFolder

UNTIL = Stage.EXPORT


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    model, prompts = make_checkpoint(tmp_path / "model"), write_prompts(tmp_path / "prompts.jsonl", 6)
    config = write_config(tmp_path, model, prompts, holdout_share=0.0, dpo=None)
    return read_inputs(read_config(config, (), {}).config)


def finish(inputs: Inputs) -> dict[str, bytes]:
    """Run to the end; the data sets."""
    with open_session(inputs) as session:
        run(session, until=UNTIL)
    return {path.name: path.read_bytes() for path in (inputs.config.run / "datasets").iterdir()}


def let_fail(inputs: Inputs, stage: str, cause: str) -> str:
    """Leave the finished run as if its first pair had failed in a stage; returns the reason in the ledger."""
    with RunFolder.open(inputs.config.run) as folder, folder.transaction():
        pairs = list(folder.records(RecordKind.PREFERENCE, PreferenceRecord))
        uid = pairs[0].uid
        if stage != Stage.LABEL:
            records = folder.records(RecordKind.REVISION, RevisionRecord)
            folder.put_records(RecordKind.REVISION, [each for each in records if each.uid != uid])
        folder.put_records(RecordKind.PREFERENCE, pairs[1:])
        folder.put_records(RecordKind.FAILURE, [FailureRecord(uid=uid, stage=stage, cause=cause, detail="not this time")])
        folder.settle([LedgerEntry(uid=uid, outcome=Outcome.FAILED, reason=f"{stage}: {cause}")])
    return f"{stage}: {cause}"


def failed(inputs: Inputs) -> list[str]:
    with RunFolder.open(inputs.config.run, read_only=True) as folder:
        return [reason for outcome, reason in folder.ledger_reasons() if outcome is Outcome.FAILED]


def planned(inputs: Inputs) -> dict[str, str]:
    return {each.stage.value: each.state for each in plan(inputs, until=UNTIL).stages}


def test_only_what_may_pass_is_tried_again_and_planned(inputs: Inputs) -> None:
    whole = finish(inputs)
    assert planned(inputs) == {"generate": "finished", "label": "finished", "export": "finished"}
    for stage, cause in (("revise", "out_of_memory"), ("label", "no_answer")):
        assert failed(inputs) == [], "the run before is whole"
        reason = let_fail(inputs, stage, cause)
        assert failed(inputs) == [reason]
        first = "finished" if stage == "label" else "to do"
        assert planned(inputs) == {"generate": first, "label": "to do", "export": "to do"}
        assert finish(inputs) == whole
    reason = let_fail(inputs, "revise", "prompt_too_long")
    assert planned(inputs) == {"generate": "finished", "label": "finished", "export": "finished"}
    finish(inputs)
    assert failed(inputs) == [reason]
