"""A run folder, open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cai.store import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run") as opened:
        yield opened
