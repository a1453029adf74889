"""Rows for run folders, and programs that open them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cai.records import Item, RevisionRecord
from constitution.messages import user

REPOSITORY = Path(__file__).resolve().parents[2]


def item(uid: str, text: str = "hello") -> Item:
    return Item(uid=uid, messages=(user(text),))


def revision(uid: str, replica: int = 0, draft: str = "a draft") -> RevisionRecord:
    return RevisionRecord(uid=uid, replica=replica, messages=(user("hello"),), draft=draft, rounds=())


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
