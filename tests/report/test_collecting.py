"""What a report says is what is in the run folder, whatever state the run is in."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cai.records import Outcome, PreferenceRecord, RecordKind, RevisionRecord, Round, Stage, UndecidedRecord, Verdict
from cai.report import ReportData, collect, render_report, write_report
from cai.report.collecting import read_metrics
from cai.report.transcript_rows import Context, transcript_row
from cai.store import RunFolder
from constitution.messages import user
from tests.report.packed import PackedRow, packed_rows
from tests.report.runs import CONSTITUTION, build_finished, build_started, metrics, revision
from tests.report.runs import item as built_item


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    build_finished(path)
    return path


def test_the_ledger_counts_every_input_row_once(finished: Path) -> None:
    with RunFolder.open(finished, read_only=True) as folder:
        ledger = collect(folder).ledger
        outcomes = [entry.outcome for entry in folder.ledger()]
    assert ledger.balanced
    assert ledger.rows == ledger.expected_rows == len(outcomes) == 62
    assert {outcome: n for outcome, n in ledger.counts.items() if n} == {o: outcomes.count(o) for o in set(outcomes)}
    for outcome, rows in ledger.counts.items():
        assert sum(each.rows for each in ledger.reasons if each.outcome is outcome) == rows


def test_a_ledger_that_somebody_changed_by_hand_is_said_not_to_balance(tmp_path: Path) -> None:
    build_started(tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM ledger WHERE uid = 'i3'")
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        assert not collect(folder).ledger.balanced
        assert "DOES NOT BALANCE" in write_report(folder, tmp_path / "report.html").read_text()


def listed(data: ReportData) -> list[PackedRow]:
    return packed_rows(render_report(data), "transcripts")


def test_use_of_principles_is_counted_over_all_transcripts_also_those_left_out(finished: Path) -> None:
    with RunFolder.open(finished, read_only=True) as folder:
        data = collect(folder, budget_bytes=2000)
        rounds = [each for record in folder.records(RecordKind.REVISION, RevisionRecord) for each in record.rounds]
    assert data.transcripts is not None
    assert data.transcripts.shown < data.transcripts.total
    assert data.constitution is not None
    assert [each.id for each in data.constitution.principles] == [principle.id for principle in CONSTITUTION.principles]
    for each in data.constitution.principles:
        own = [r for r in rounds if r.principle_id == each.id]
        assert each.drawn == len(own)
        assert each.faults == sum(r.verdict is Verdict.FAULT for r in own)
        assert each.revisions == sum(r.revision is not None for r in own)


def test_a_sample_of_transcripts_keeps_their_order_does_not_change_and_grows_by_adding(finished: Path) -> None:
    with RunFolder.open(finished, read_only=True) as folder:
        order = [record.uid for record in folder.records(RecordKind.REVISION, RevisionRecord)]
        few, same, more, whole = ([row.name for row in listed(collect(folder, budget_bytes=b))] for b in (2e3, 2e3, 4e3, None))
    assert few == same == [uid for uid in order if uid in few]
    assert set(few) < set(more) < set(whole)
    assert whole == order


def test_every_transcript_has_the_outcome_of_the_ledger_and_its_own_label(finished: Path) -> None:
    with RunFolder.open(finished, read_only=True) as folder:
        data = collect(folder)
        outcomes = {entry.uid: entry.outcome for entry in folder.ledger()}
        labels = {label.uid: label.p_chosen for label in folder.records(RecordKind.PREFERENCE, PreferenceRecord)}
    for row in listed(data):
        assert row.facets["outcome"] == [outcomes[row.name]]
        assert row.facets["label"] == (["better"] if row.name in labels else ["none"])
        assert row.name not in labels or f"chosen with probability {labels[row.name]:.2f}" in row.end
    assert data.labels is not None
    assert sum(data.labels.histogram) == data.labels.quality.pairs == data.ledger.counts[Outcome.PAIR]


def test_what_got_worse_and_what_is_undecided_can_be_found(tmp_path: Path) -> None:
    build_finished(tmp_path / "run", items=12)
    with RunFolder.open(tmp_path / "run") as folder:
        first, second, *others = folder.records(RecordKind.PREFERENCE, PreferenceRecord)
        worse = first.model_copy(
            update={"chosen": first.rejected, "rejected": first.chosen, "chosen_source": "draft", "rejected_source": "revision"}
        )
        undecided = UndecidedRecord(
            **second.model_dump(include={"uid", "replica", "prompt", "margin_nats", "method", "principle_ids"}),
            first=second.chosen,
            second=second.rejected,
            first_source="revision",
            second_source="draft",
            reason="the orders disagree",
        )
        folder.put_records(RecordKind.PREFERENCE, [worse, *others])
        folder.put_records(RecordKind.UNDECIDED, [undecided])
        rows = {row.name: row for row in listed(collect(folder))}
    assert [name for name, row in rows.items() if row.facets["label"] == ["worse"]] == [first.uid]
    assert [name for name, row in rows.items() if row.facets["label"] == ["undecided"]] == [second.uid]
    assert "The label is undecided: the orders disagree" in rows[second.uid].end
    assert rows[first.uid].tags == ["revised", "got worse"]


def test_a_text_is_changed_by_a_principle_whose_revision_stands_and_says_something_else() -> None:
    def round_of(n: int, revision: str | None) -> Round:
        return Round(round=n, principle_id=f"p{n}", critique="c", verdict=Verdict.FAULT, revision=revision)

    record = RevisionRecord(
        uid="u",
        messages=(user("q"),),
        draft="one",
        rounds=(round_of(0, None), round_of(1, "one"), round_of(2, "two"), round_of(3, "two")),
    )
    row = transcript_row(record, Context({}, {}, {}))
    assert row.facets["changed_by"] == ["p2"]
    assert row.facets["principle"] == ["p0", "p1", "p2", "p3"]


def test_only_stages_of_the_configuration_are_named_and_only_finished_ones_as_finished(tmp_path: Path) -> None:
    build_started(tmp_path / "run")
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        data = collect(folder)
    assert data.stages == {
        Stage.GENERATE: True,
        Stage.LABEL: False,
        Stage.EXPORT: False,
        Stage.DPO: False,
        Stage.EVALUATE: False,
    }
    assert data.evaluation is None
    assert data.labels is None


def test_a_training_that_is_still_going_shows_its_curves_so_far(tmp_path: Path) -> None:
    build_started(tmp_path / "run")
    (tmp_path / "run" / "dpo").mkdir()
    (tmp_path / "run" / "dpo" / "metrics.jsonl").write_text(metrics(20) + '{"step": 21, "lo')
    with RunFolder.open(tmp_path / "run", read_only=True) as folder:
        (training,) = collect(folder).training
        page = write_report(folder, tmp_path / "report.html").read_text()
    assert training.result is None
    assert [line["step"] for line in training.metrics] == list(range(1, 21))
    assert "Not finished: the curves are of the steps so far." in page


def test_numbers_that_are_none_are_left_out_of_the_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 0.5, "grad_norm": Infinity, "x": "y"}\n'
    )
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [{"step": 1}, {"step": 2, "loss": 0.5}]


def test_a_run_folder_with_nothing_in_it_has_a_report(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as folder:
        assert "This run has no input yet." in write_report(folder).read_text()


def test_the_same_run_gives_the_same_bytes_and_the_report_lies_in_its_folder(tmp_path: Path) -> None:
    build_finished(tmp_path / "run", items=12)
    with RunFolder.open(tmp_path / "run") as folder:
        first = write_report(folder)
        content = first.read_bytes()
        assert write_report(folder, tmp_path / "elsewhere.html").read_bytes() == content
    assert first == tmp_path / "run" / "report.html"


def test_a_record_of_several_replicas_finds_its_own_outcome(tmp_path: Path) -> None:
    rows = [built_item(n) for n in range(4)]
    with RunFolder.open(tmp_path / "run") as folder:
        folder.put_items(rows, replicas=2)
        folder.write_manifest({"config": {"loop": {"replicas": 2}}})
        records = [
            revision(each, n).model_copy(update={"replica": replica}) for n, each in enumerate(rows) for replica in (0, 1)
        ]
        folder.put_records(RecordKind.REVISION, records)
        data = collect(folder)
    assert data.ledger.balanced
    assert data.ledger.expected_rows == 8
    assert [row.name for row in listed(data)] == [f"{r.uid}/{r.replica}" if r.replica else r.uid for r in records]


def test_reporting_needs_no_model_library() -> None:
    code = "import sys, cai.report; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
