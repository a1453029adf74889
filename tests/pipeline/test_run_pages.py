"""Records go into a run page by page: a stage left in the middle is seen as unfinished, and ends as if it never was."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_runs import write_scripted_run

from cai.config import read_config
from cai.pipeline import generating, open_session, read_inputs, run
from cai.records import Outcome, RecordKind, RevisionRecord, Stage

FLAGS = ("loop.chunk_items=8", "labels.chunk_items=8")


class Left(KeyboardInterrupt):
    """Ctrl-C at a certain moment."""


def complete(config: Path, *flags: str, until: Stage, leave_after: tuple[str, int] | None = None) -> Path:
    """Run; with `leave_after`, stop when so many calls of a stage have been answered."""
    calls = 0
    read = read_config(config, (*FLAGS, *flags), {}).config
    with open_session(read_inputs(read)) as session:
        told = session.tell

        def tell(stage: str, done: int, total: int, note: str = "", *, growing: bool = False) -> None:
            nonlocal calls
            calls += leave_after is not None and stage == leave_after[0]
            if leave_after is not None and calls == leave_after[1]:
                raise Left
            told(stage, done, total, note, growing=growing)

        session.tell = tell
        run(session, until=until)
    return read.run


@pytest.mark.parametrize(("stage", "calls"), [("draft", 30), ("critique", 40), ("label", 12), ("label", 60)])
def test_a_stage_left_in_the_middle_is_unfinished_and_ends_as_if_it_never_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, calls: int
) -> None:
    monkeypatch.setattr(generating, "ROWS_PER_COMMIT", 10)
    config = write_scripted_run(tmp_path)
    straight = complete(config, f"run={tmp_path / 'straight'}", until=Stage.EXPORT)
    with pytest.raises(Left):
        complete(config, until=Stage.EXPORT, leave_after=(stage, calls))
    with open_session(read_inputs(read_config(config, FLAGS, {}).config)) as session:
        assert session.folder.stage(Stage.LABEL) is None
        assert (session.folder.stage(Stage.GENERATE) is not None) == (stage == "label")
        assert session.folder.ledger_counts()[Outcome.PENDING] > 0
        session.folder.assert_balanced()
    folder = complete(config, until=Stage.EXPORT)
    for path in sorted((straight / "datasets").iterdir()):
        assert (folder / "datasets" / path.name).read_bytes() == path.read_bytes()


def test_a_run_begun_anew_keeps_the_old_records_until_the_first_page_of_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generating, "ROWS_PER_COMMIT", 20)
    config = write_scripted_run(tmp_path)
    complete(config, until=Stage.LABEL)
    read = read_config(config, FLAGS, {}).config

    def records() -> tuple[int, bool]:
        with open_session(read_inputs(read)) as session:
            count = sum(1 for _ in session.folder.records(RecordKind.REVISION, RevisionRecord))
            return count, session.folder.stage(Stage.GENERATE) is not None

    whole, finished = records()
    assert finished
    edited = "loop.draft.max_tokens=3"
    with pytest.raises(Left):
        complete(config, edited, until=Stage.LABEL, leave_after=("draft", 2))
    assert records() == (whole, True)
    with pytest.raises(Left):
        complete(config, edited, until=Stage.LABEL, leave_after=("draft", 45))
    count, finished = records()
    assert 0 < count < whole
    assert not finished
