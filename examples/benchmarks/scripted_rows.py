"""What the benchmarks of the program beside the model run on: drawn prompts, and a script that answers in microseconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

SCRIPT = {
    "answers": {
        "Write only the new reply": ["Here is a kinder way to say it.", "What is known is this, and the rest is not."],
        "Check your last reply": [
            "It is kind. Nothing to change.",
            "It asks for care. Fault: there is none.",
            "Fault: it is curt.",
        ],
        "": ["That is how it is.", "I could not say.", "Here is what you asked for, in a few words."],
    }
}


def write_prompts(path: Path, count: int, seed: int = 0) -> None:
    """`count` prompts of 5 to 40 words; one in a hundred stands there twice, one in a thousand is broken."""
    draw = random.Random(seed)  # noqa: S311 (texts, no secrets)
    words = "what why how when where is the a of to city river law book number story letter price colour".split()  # noqa: SIM905
    with path.open("w", encoding="utf-8") as file:
        text = ""
        for n in range(count):
            if n % 100 != 99:
                text = " ".join(draw.choices(words, k=draw.randint(5, 40))) + f" {n}?"
            file.write(json.dumps({"prompt": "" if n % 1000 == 500 else text}) + "\n")


def write_run(folder: Path, rows: int, **changes: Any) -> Path:
    """Prompts, script and configuration of a run up to the data sets, in an existing folder; `changes` replace settings."""
    write_prompts(folder / "prompts.jsonl", rows)
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT, sort_keys=False), encoding="utf-8")
    config = {
        "run": str(folder / "run"),
        "constitution": ["shipped:style"],
        "policy": {"name": f"scripted:{folder / 'script.yaml'}"},
        "prompts": {"path": str(folder / "prompts.jsonl")},
        "labels": {"allow_weak_labels": True},  # a script knows nothing of what is asked
        "dpo": None,
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "run.yaml"
