"""`cai agreement`: what it prints, emits and refuses."""

from __future__ import annotations

import json
from pathlib import Path

from scripted_runs import write_scripted_run
from whole_runs import cai


def people(path: Path, rows: int = 80) -> Path:
    lines = [{"prompt": f"q {n}", "chosen": f"kind {n}", "rejected": f"rude {n} and longer"} for n in range(rows)]
    path.write_text("".join(json.dumps(each) + "\n" for each in [*lines, {"prompt": "no answers"}]))
    return path


def test_agreement_calibration_and_baselines_are_emitted_and_calls_are_kept(tmp_path: Path) -> None:
    config = write_scripted_run(tmp_path, labels={"min_margin_nats": 0.0})
    pairs = people(tmp_path / "people.jsonl")
    arguments = ("agreement", pairs, "--config", config, "--max-pairs", 70, "--cache", tmp_path / "cache")
    done = cai(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["method"], found["pairs"], found["invalid"], found["failed"]) == ("pointwise", 70, 1, 0)
    assert 0.2 < found["agreement"]["share"] < 0.8  # a coin
    assert found["longer_wins"]["share"] == 0
    assert found["fit"]["before"]["labels"] == 35
    assert len(found["by_principle"]) > 1
    shown = cai(*arguments)
    assert "of 70 pairs on which labeller and people prefer the same answer" in shown.stdout
    assert "1 of 81 rows could not be used" in shown.stdout
    assert "expected calibration error of 35 labels" in shown.stdout
    assert "█" in shown.stdout
    assert not (tmp_path / "run").exists()  # it is beside the run, not a part of it


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    done = cai(
        "agreement", tmp_path / "nowhere.jsonl", "--model", "./no-model", "-p", "no-such-principle", "--constitution", "shipped"
    )
    assert done.returncode == 1
    for words in ("nowhere.jsonl: no such file", "./no-model", "no-such-principle"):
        assert words in done.stderr
    nothing = cai("agreement", "--config", write_scripted_run(tmp_path))
    assert nothing.returncode == 1
    assert "no pairs labelled by people are named" in nothing.stderr
