"""Small runs on a script: every stage up to the export in a second, and no two drafts decided by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SCRIPT: dict[str, Any] = {
    "answers": {
        "Write only the new reply": ["Here is a kinder way to say it.", "What is known is this, and the rest is not."],
        "Check your last reply": ["It is kind. Nothing to change.", "It asks for care. Fault: there is none."],
        "": ["That is how it is.", "I could not say.", "Here is what you asked for, in a few words."],
    }
}


def write_scripted_run(folder: Path, rows: int = 60, **changes: Any) -> Path:
    """A configuration in `folder`, with duplicates and one broken row among its prompts; `changes` replace sections."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [{"prompt": f"Question {n % (rows - 5)}?"} for n in range(rows - 1)]
    lines = [json.dumps(row) for row in (*prompts[:3], {"prompt": " "}, *prompts[3:])]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT, sort_keys=False))
    config: dict[str, Any] = {
        "run": str(folder / "run"),
        "seed": 5,
        "constitution": ["shipped:style"],
        "policy": {"name": f"scripted:{folder / 'script.yaml'}"},
        "prompts": {"path": str(folder / "prompts.jsonl")},
        "dpo": None,
        **changes,
    }
    config["labels"] = {"allow_weak_labels": True} | config.get("labels", {})  # a script knows nothing of what is asked
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
