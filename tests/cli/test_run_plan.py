"""`cai run --plan`: says what would be done, on the terminal and as JSON, and does nothing."""

from __future__ import annotations

import json
from pathlib import Path

from checkpoints import make_checkpoint
from whole_runs import cai_here, write_config, write_prompts


def test_a_plan_is_printed_for_people_and_for_programs(tmp_path: Path) -> None:
    principles = tmp_path / "mine.yaml"
    principles.write_text("name: mine\nprinciples:\n- {id: brief, principle: Be brief.}\n- {id: kind, principle: Be kind.}\n")
    model = make_checkpoint(tmp_path / "model")
    prompts = write_prompts(tmp_path / "p.jsonl", 16)
    config = write_config(tmp_path, model, prompts, constitution=[str(principles)], dpo=None, holdout_share=0.0)
    new = json.loads(cai_here("generate", config, "--plan", "--json").stdout)
    assert not (tmp_path / "run").exists()
    assert [stage["stage"] for stage in new["stages"]] == ["generate"]
    assert len(new["rows"]) == new["all_rows"] == 16

    done = cai_here("generate", config)
    assert done.returncode in {0, 3}, done.stderr
    principles.write_text(principles.read_text().replace("Be kind.", "Be kind and calm."))
    rows = prompts.read_text()
    prompts.write_text('{"uid": "red \\u001b[31m", "prompt": "Which is the first?"}\n' + rows)
    shown = cai_here("generate", config, "--plan")
    assert shown.returncode == 0, shown.stderr
    assert "principle kind: principle" in shown.stdout
    assert "critique: kind: principle changed" in shown.stdout
    assert "red \\x1b[31m: draft: new prompt" in shown.stdout
    assert "\u001b" not in shown.stdout
