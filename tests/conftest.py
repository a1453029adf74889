"""Shared test set-up: offline hubs, few threads, and small real checkpoints made on the spot."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are fastest so, and the tests run side by side

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast the machine is says nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """What is there when a module begins is mostly what was imported: half a million objects, which no later collection of
    garbage looks through again. Every stage of a run, and transformers' own threads, end with a full one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real prompts and tokenizers kept beside the repository; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("CAI_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here")
    return folder
