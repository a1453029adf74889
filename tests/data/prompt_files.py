"""Files of prompts, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cai.data.prompts import PromptsSource, ReadResult, read_items

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path: Path, *rows: Any) -> Path:
    """JSON lines; texts are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path | str, **settings: Any) -> ReadResult:
    return read_items(PromptsSource(path=str(path), **settings))


def prompts(result: ReadResult) -> list[str]:
    return [item.messages[-1].content for item in result.items]
