"""`cai audit` and `cai compare` on a tiny real model: what they print, remember, and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from whole_runs import write_config, write_prompts

from cai.authoring.audit_results import AuditResult
from cai.records import RecordKind, Stage
from cai.store import RunFolder

Cai = Callable[..., Any]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    rules = folder / "rules.yaml"
    rules.write_text("principles:\n- {id: kind, principle: Be kind.}\n- {id: brief, principle: Be brief.}\n")
    model = make_checkpoint(folder / "model")
    return write_config(folder, model, write_prompts(folder / "prompts.jsonl", 8), constitution=[str(rules)])


def calls_in(config: Path) -> int:
    with RunFolder.open(config.parent / "run", read_only=True) as run:
        return sum(usage.calls for usage in run.usage().values())


def test_an_audit_is_printed_kept_in_the_run_and_not_paid_for_twice(cai: Cai, config: Path) -> None:
    first = cai("audit", config, "--items", 4, "--rows-per-pair", 2, "--json")
    assert first.code == 0, first.err
    result = AuditResult.model_validate_json(first.out)
    assert result.items == 4
    assert [each.principle_id for each in result.principles] == ["kind", "brief"]
    assert all(each.applies == 4 for each in result.principles)
    assert AuditResult.model_validate_json((config.parent / "run" / "audit.json").read_text()) == result
    paid = calls_in(config)
    again = cai("audit", config, "--items", 4, "--rows-per-pair", 2)
    assert again.code == 0, again.err
    assert calls_in(config) == paid
    assert "Each principle alone, on 4 drafts" in again.out
    assert "What is covered" in again.out


def test_comparing_prints_each_principle_of_both_and_shares_the_drafts(cai: Cai, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("principles:\n- {id: kind, principle: Be kind.}\n- {id: brief, principle: Use few words.}\n")
    mine = config.parent / "rules.yaml"
    done = cai("compare", mine, other, "--config", config, "--items", 4, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["items"], found["pairs"]) == (4, 4)
    assert [row["row"]["behaviour"] for row in found["behaviours"]] == ["kind", "brief (A)", "brief (B)"]
    with RunFolder.open(config.parent / "run", read_only=True) as run:
        drafts = run.usage()["draft"].calls
    told = cai("compare", mine, mine, "--config", config, "--items", 4)
    assert told.code == 0, told.err
    assert "4 end in the same text under both" in told.out
    assert "not enough rows to say (4 prompts)" in told.out
    with RunFolder.open(config.parent / "run", read_only=True) as run:
        assert run.usage()["draft"].calls == drafts


def test_what_cannot_be_compared_is_refused_before_a_model_loads(cai: Cai, config: Path) -> None:
    missing = cai("compare", "absent.yaml", config.parent / "rules.yaml", "--config", config)
    assert missing.code == 1
    assert "absent.yaml" in missing.err
    none = cai("compare", "shipped:style", "shipped:style", "--config", config, "--set", "principles=[kind]")
    assert none.code == 1
    assert "none of the principles kind" in none.err
    assert cai("audit", config, "--items", 0).code == 2


def test_work_beside_a_finished_run_leaves_its_records_outcomes_and_manifest_alone(cai: Cai, config: Path) -> None:
    """`compare --set loop.replicas=2` gave the folder another input, and so dropped the records of a finished run."""
    assert cai("label", config).code in {0, 3}
    run = config.parent / "run"

    def state() -> tuple[object, ...]:
        with RunFolder.open(run, read_only=True) as folder:
            stages = [folder.stage(stage) for stage in Stage]
            records = [folder.count_records(kind) for kind in RecordKind]
            return (run / "manifest.json").read_bytes(), stages, records, folder.ledger_reasons()

    before = state()
    mine, changed = config.parent / "rules.yaml", config.parent / "changed.yaml"
    changed.write_text(mine.read_text().replace("Be kind", "Be kinder"))
    flags = ("--items", 2, "--set", "loop.replicas=2", "--set", f"constitution=[{changed}]")
    assert cai("compare", mine, changed, "--config", config, *flags).code in {0, 3}
    assert cai("audit", config, *flags).code in {0, 3}
    assert state() == before
    plan = cai("label", config, "--plan", "--set", f"constitution=[{changed}]")
    assert "principle kind: principle" in plan.out


def test_a_gate_whose_principles_a_side_lacks_is_refused_before_a_model_loads(cai: Cai, config: Path) -> None:
    mine = config.parent / "rules.yaml"
    done = cai(
        "compare", mine, mine, "--config", config, "--set", "loop.gate.harm=kind", "--set", "loop.gate.helpfulness=absent"
    )
    assert done.code == 1
    for side in "AB":
        assert f"{side} (rules): `loop.gate.helpfulness`: there is no principle `absent` here" in done.err
