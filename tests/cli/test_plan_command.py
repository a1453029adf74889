"""`cai plan`: what it says comes true, and what a calibration computes is not computed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints import make_checkpoint
from cli.conftest import Cai
from whole_runs import write_config, write_prompts

from cai.store import RunFolder


def write_run(folder: Path, model: Path, rows: int, **changes: Any) -> Path:
    folder.mkdir()
    return write_config(folder, model, write_prompts(folder / "p.jsonl", rows), dpo=None, holdout_share=0.0, **changes)


def test_a_calibration_is_part_of_the_run_and_foretells_the_rest(tmp_path: Path, cai: Cai) -> None:
    model = make_checkpoint(tmp_path / "model")
    plain, calibrated = (write_run(tmp_path / name, model, 60) for name in ("plain", "calibrated"))
    assert cai("export", plain).code == 0

    bare = json.loads(cai("plan", calibrated, "--json").out)
    assert not (tmp_path / "calibrated" / "run").exists()
    assert bare["forecast"] is None
    assert bare["nothing_to_do"] is False
    done = cai("plan", calibrated, "--calibrate", "--seconds", "1.5", "--until", "export", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert {json.loads(line)["event"] for line in done.err.splitlines() if line.startswith("{")} >= {"stage", "end"}
    run = tmp_path / "calibrated" / "run"
    with RunFolder.open(run, read_only=True) as folder:
        kept = {name: usage.calls for name, usage in folder.usage().items()}
    assert kept["draft"] >= 4
    assert {each["name"]: each["reused"] for each in told["calls"]} == kept
    assert told["forecast"]["calibration"]["items"] >= 4
    for each in told["forecast"]["calls"]:
        if each["seconds"] is not None:
            assert 0 <= each["seconds"]["low_s"] <= each["seconds"]["expected_s"] <= each["seconds"]["high_s"]

    assert cai("export", calibrated).code == 0
    with RunFolder.open(run, read_only=True) as folder, RunFolder.open(tmp_path / "plain" / "run", read_only=True) as other:
        assert {k: u.calls for k, u in folder.usage().items()} == {k: u.calls for k, u in other.usage().items()}
    for name in ("sft.jsonl", "preferences.jsonl"):
        texts = [(tmp_path / side / "run" / "datasets" / name).read_bytes() for side in ("plain", "calibrated")]
        assert texts[0] == texts[1]

    taken = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    assert taken / 2 <= bare["footprint"]["run_bytes"] <= 3 * taken


def test_a_plan_is_shown_with_disk_memory_and_how_much_there_is(tmp_path: Path, cai: Cai) -> None:
    model = make_checkpoint(tmp_path / "model")
    shown = cai("plan", write_run(tmp_path / "one", model, 8), "--calibrate", "--seconds", "1")
    assert shown.code == 0, shown.err
    assert "Disk: about" in shown.out
    assert "Memory: about" in shown.out
    assert "prompts went all the way." in shown.out
    assert "\x1b" not in shown.out


def test_the_models_and_checkpoints_of_a_training_are_counted(tmp_path: Path, cai: Cai) -> None:
    model = make_checkpoint(tmp_path / "model")
    weights = (model / "model.safetensors").stat().st_size

    def planned(name: str, **dpo: Any) -> dict[str, int]:
        config = write_config(tmp_path, model, write_prompts(tmp_path / "p.jsonl", 12), run=str(tmp_path / name), dpo=dpo)
        return json.loads(cai("plan", config, "--json").out)["footprint"]

    lora = planned("lora", lora={"r": 4, "alpha": 8})
    adapter_only = planned("adapter", lora={"r": 4, "alpha": 8}, merge=False)
    full = planned("full", lora=None)
    assert weights * 0.9 < lora["models_bytes"] - adapter_only["models_bytes"] < weights * 1.1
    assert weights * 0.9 < full["models_bytes"] < weights * 1.1
    assert full["peak_bytes"] - full["models_bytes"] > lora["peak_bytes"] - lora["models_bytes"]
    assert full["memory_bytes"] > lora["memory_bytes"] > adapter_only["memory_bytes"] - 1
