"""Whole runs with a gate, on a small real model: the ledger balances, and an interrupted run ends as a straight one."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from rich.console import Console
from whole_runs import write_config, write_prompts

from cai.cli.summary import print_summary, summary_json
from cai.config import read_config
from cai.errors import CaiError
from cai.pipeline import RunSummary, open_session, read_inputs, run
from cai.pipeline.exporting import review_of
from cai.pipeline.learning import anchors
from cai.records import Outcome, RecordKind, RevisionRecord, Stage

LOOP: dict[str, Any] = {
    "rounds": 2,
    "draft": {"max_tokens": 12},
    "critique": {"temperature": 0.0, "max_tokens": 12},
    "revision": {"temperature": 0.0, "max_tokens": 12},
    "gate": {"on_reject": "retry", "retries": 2, "ground_tokens": 8, "tolerance_nats": 0.0}
    | {"helpfulness": "support-claims", "harm": "own-limits"},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def gated_config(folder: Path, model: Path, **gate: Any) -> Path:
    folder.mkdir(exist_ok=True)
    prompts = write_prompts(folder / "prompts.jsonl", 14)
    return write_config(folder, model, prompts, loop=LOOP | {"gate": LOOP["gate"] | gate})


def complete(config: Path, until: Stage = Stage.EXPORT, stop_at: tuple[str, int] | None = None) -> RunSummary:
    """Run; with `stop_at`, stop with KeyboardInterrupt when a stage has told so many times of its progress."""
    told = Counter[str]()
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        tell = session.meter.tell

        def counted(stage: str, *numbers: Any, **more: Any) -> None:
            tell(stage, *numbers, **more)
            told[stage] += 1
            if (stage, told[stage]) == stop_at:
                raise KeyboardInterrupt

        session.meter.tell = counted
        return run(session, until=until)


def stored(config: Path) -> dict[str, list[Any]]:
    """Every record, the ledger, and each call's key and result; files of the data sets."""
    run_folder = config.parent / "run"
    with sqlite3.connect(run_folder / "run.sqlite") as connection:
        return {
            "records": connection.execute(
                "SELECT kind, uid, replica, sequence, body FROM records ORDER BY 1, 2, 3, 4"
            ).fetchall(),
            "ledger": connection.execute("SELECT uid, replica, outcome, reason FROM ledger ORDER BY 1, 2").fetchall(),
            "calls": connection.execute("SELECT key, result FROM calls ORDER BY 1").fetchall(),
            "files": [path.read_bytes() for path in sorted((run_folder / "datasets").iterdir())],
        }


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> tuple[Path, RunSummary]:
    config = gated_config(tmp_path_factory.mktemp("gated") / "straight", llama)
    return config, complete(config)


def records_of(config: Path) -> list[RevisionRecord]:
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        return list(session.folder.records(RecordKind.REVISION, RevisionRecord))


def test_the_gate_of_a_real_model_lets_in_and_turns_down_and_every_row_has_its_outcome(
    straight: tuple[Path, RunSummary],
) -> None:
    config, summary = straight
    assert summary.gate is not None
    assert 0 < summary.gate.turned_down < summary.gate.revisions
    assert summary.gate.retries > 0
    assert summary.ledger[Outcome.PENDING] == 0
    records = records_of(config)
    closed = {record.uid for record in records if record.gate_closed}
    assert summary.reasons[Outcome.KEPT, "the gate rejected the revision"] == len(closed) > 0
    with open_session(read_inputs(read_config(config, (), {}).config)) as session:
        assert not closed & {pair.uid for pair in review_of(session).pairs_of(session.folder)}
        assert not closed & {anchor.uid for anchor in anchors(session, review_of(session))}


def test_no_data_set_holds_a_text_that_the_gate_turned_down_for_that_row(straight: tuple[Path, RunSummary]) -> None:
    config, _ = straight
    turned_down = {
        record.uid: {each.revision for r in record.rounds if r.gate for each in r.gate.rejected}
        - {record.draft, *(r.revision for r in record.rounds)}
        for record in records_of(config)
    }
    datasets = config.parent / "run" / "datasets"
    rows = [json.loads(line) for name in ("sft", "preferences") for line in (datasets / f"{name}.jsonl").open()]
    assert rows
    for row in rows:
        said = {turn["content"] for key in ("messages", "chosen", "rejected") for turn in row.get(key, [])[-1:]}
        assert said
        assert not turned_down[row["uid"]] & said


@pytest.mark.parametrize("stop_at", [("revision 1", 4), ("gate 1", 70), ("retry 1", 2), ("gate 2", 60), ("label", 20)], ids=str)
def test_an_interrupted_run_ends_as_a_straight_one_to_the_last_bit(
    tmp_path: Path, llama: Path, straight: tuple[Path, RunSummary], stop_at: tuple[str, int]
) -> None:
    """The gate used to hear its cases in the order in which revisions were ready. A resumed run has the known ones first, so
    verdicts were scored in other batches, differed in their last bit, and with them the records."""
    config = gated_config(tmp_path, llama)
    with pytest.raises(KeyboardInterrupt):
        complete(config, stop_at=stop_at)
    complete(config)
    assert stored(config) == stored(straight[0])


def test_chunks_change_no_text_and_no_ruling(tmp_path: Path, llama: Path, straight: tuple[Path, RunSummary]) -> None:
    config = gated_config(tmp_path, llama)
    config.write_text(config.read_text().replace("  rounds: 2\n", "  rounds: 2\n  chunk_items: 5\n"))
    complete(config, until=Stage.GENERATE)

    def without_odds(record: RevisionRecord) -> Any:
        content = record.model_dump()
        for each in content["rounds"]:
            ruling = each["gate"] or {"checks": (), "rejected": ()}
            for made in (*ruling["checks"], *(check for rejected in ruling["rejected"] for check in rejected["checks"])):
                made["before_nats"], made["after_nats"] = round(made["before_nats"], 3), round(made["after_nats"], 3)
        return content

    assert [without_odds(r) for r in records_of(config)] == [without_odds(r) for r in records_of(straight[0])]


def test_principles_of_the_gate_that_are_not_in_use_are_told_before_a_model_loads(tmp_path: Path) -> None:
    config = gated_config(tmp_path, tmp_path / "no-model", helpfulness="help-harmless-requests", harm="nothing")
    with pytest.raises(CaiError) as caught:
        read_inputs(read_config(config, (), {}).config)
    text = str(caught.value)
    assert "`loop.gate.helpfulness`: there is no principle `help-harmless-requests` here" in text
    assert "`loop.gate.harm`: there is no principle `nothing` here" in text
    assert "no-model" in text, "what else is wrong is said as well"


def test_the_command_line_says_what_the_gate_did(straight: tuple[Path, RunSummary], capsys: pytest.CaptureFixture[str]) -> None:
    _, summary = straight
    assert summary.gate is not None
    print_summary(summary, Console(highlight=False, width=200))
    shown = capsys.readouterr().out
    assert f"gate: {summary.gate.turned_down} of {summary.gate.revisions} revisions turned down" in shown
    assert "let in after a retry" in shown
    assert json.loads(summary_json(summary))["gate"] == summary.gate.model_dump(mode="json")
    without = replace(summary, gate=None)
    print_summary(without, Console(highlight=False, width=200))
    assert "gate: " not in capsys.readouterr().out
