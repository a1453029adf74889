"""A labelled run that is only read."""

from __future__ import annotations

from pathlib import Path

import pytest
from labelled_runs import write_labelled_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_run(tmp_path_factory.mktemp("run") / "run")
