"""What most tests of training start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small Llama."""
    return make_checkpoint(tmp_path_factory.mktemp("llama"))
