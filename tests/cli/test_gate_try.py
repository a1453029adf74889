"""`cai try --gate`: the gate's verdict on the terminal, with a real model; and what is refused before one loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import make_checkpoint

from cai.cli.summary import gate_line, print_transcripts
from cai.loop import GateCount, GateReason, GateTally
from cai.records import GateCheck, GateRuling, RejectedRevision, RevisionRecord, Round, Verdict
from constitution.messages import user
from tests.cli.conftest import Cai


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


def test_one_prompt_shows_the_verdicts_on_its_revision(cai: Cai, llama: Path) -> None:
    arguments = ("try", "Are you sure?", "--model", llama, "-p", "own-limits", "--max-tokens", 8)
    shown = cai(*arguments, "--gate")
    assert shown.code == 0, shown.err
    assert "  gate:     " in shown.out
    text = " ".join(shown.out.split())  # lines are wrapped
    assert "under own-limits (own): " in text
    assert "under help-harmless-requests (helpfulness): " in text
    assert "under no-help-with-wrongdoing (harm): " in text
    record = json.loads(cai(*arguments, "--gate", "--json").out)
    roles = [[c["role"] for c in (g["checks"] or g["rejected"][0]["checks"])] for g in (r["gate"] for r in record["rounds"])]
    assert [sorted(each) for each in roles] == [["harm", "helpfulness", "own"]]
    fewer = json.loads(cai(*arguments, "--set", "harm=null", "--set", "loop.gate.helpfulness=null", "--json").out)
    ruling = fewer["rounds"][0]["gate"]
    assert [c["role"] for c in ruling["checks"] or ruling["rejected"][0]["checks"]] == ["own"]
    assert "gate:" not in cai(*arguments).out


def test_a_constitution_without_the_gates_principles_is_told_what_to_set(cai: Cai, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("- Be brief.\n")
    shown = cai("try", "Hello", "--model", llama, "-c", tmp_path / "mine.md", "--gate")
    assert shown.code == 1
    assert "`loop.gate.helpfulness`: there is no principle `help-harmless-requests` here" in shown.err
    assert "`loop.gate.harm`" in shown.err
    wrong = cai("try", "Hello", "--set", "on_reject=drop")
    assert wrong.code == 1
    assert "on_reject" in wrong.err


def test_a_turned_down_revision_is_printed_as_text_and_marked_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    worse = GateCheck(principle_id="help", role="helpfulness", before_nats=4.0, after_nats=-1.5, worse=True)
    held = GateCheck(principle_id="kind", role="own", before_nats=-3.0, after_nats=2.0, worse=False)
    ruling = GateRuling(
        accepted=True, checks=(held,), rejected=(RejectedRevision(revision="[red]no\x1b[31m", checks=(held, worse)),)
    )
    only = Round(
        round=0, principle_id="kind", critique="Fault: so.", verdict=Verdict.FAULT, revision="a kind draft", gate=ruling
    )
    record = RevisionRecord(uid="a", messages=(user("q"),), draft="a draft", rounds=(only,))
    print_transcripts([record], Console(highlight=False, width=200, force_terminal=False))
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == [
        r"  rejected: [red]no\x1b[31m",
        "  gate:     worse under help (helpfulness): +4.0 → -1.5 nats; no worse under kind (own): -3.0 → +2.0 nats",
        "  revision: a {+kind +}draft",
        "  gate:     let in: no worse under kind (own): -3.0 → +2.0 nats",
        "",
    ]


def test_the_gate_is_summed_up_in_one_line() -> None:
    reason = GateReason(principle_id="help", role="helpfulness", count=3)
    count = GateCount(principle_id="kind", revisions=40, let_in=38, let_in_after_retry=1, retries=5, reasons=(reason,))
    assert gate_line(GateTally(by_principle=(count,))) == (
        "gate: 2 of 40 revisions turned down (5%); 1 let in after a retry (5 retries); worse under help (helpfulness) 3"
    )
    assert gate_line(GateTally(by_principle=())) == "gate: no revision came before it"
