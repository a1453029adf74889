"""Small suite files for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PLANETS: dict[str, Any] = {
    "suite": "planets",
    "system": "Be short.",
    "tables": {
        "planets": {"columns": ["name", "moons"], "rows": [["Earth", 1], ["Mars", 2], ["Venus", "no"]]},
        "forms": {"columns": ["lead"], "rows": [[""], ["Please: "]]},
    },
    "behaviours": [
        {
            "id": "wrong",
            "label": "gives a wrong number",
            "kind": "fault",
            "twin": "long",
            "prompts": [{"for_each": ["planets", "forms"], "prompt": "{{ lead }}How many moons has {{ name }}?"}],
            "checker": {"first": [{"exact": {"accept": ["{{ moons }}"], "reject": ["7"]}}, {"otherwise": "bad"}]},
        },
        {
            "id": "long",
            "label": "talks too much",
            "kind": "control",
            "prompts": [
                {
                    "for_each": ["planets"],
                    "turns": [{"user": "Tell me of {{ name }}."}, {"user": "More."}, {"assistant": "What?"}, {"user": "That."}],
                }
            ],
            "checker": {"words": {"most": 5}},
        },
    ],
}


def write_suite(folder: Path, content: dict[str, Any], name: str = "suite.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
