"""Tiny models of the six architectures, opened once for all tests of engines: in float32 on the CPU, where bytes compare."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from checkpoints import Architecture, make_checkpoint
from naive import OpenTiny
from small_server import SmallServer, running

from cai.models.loading import LoadedModel, load_model
from cai.models.spec import ModelSpec


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def open_tiny(tmp_path_factory: pytest.TempPathFactory) -> OpenTiny:
    """`open_tiny("gemma3")`: the model, loaded at its first use. GPT-2 stands for base models: it takes plain text."""

    @lru_cache
    def opened(architecture: Architecture) -> LoadedModel:
        folder: Path = make_checkpoint(tmp_path_factory.mktemp("models") / architecture, architecture)
        form = "plain" if architecture == "gpt2" else "chat"
        return load_model(ModelSpec(name=str(folder), dtype="float32", device="cpu", base_model_form=form))

    return opened


@pytest.fixture(scope="module")
def served(open_tiny: OpenTiny) -> Iterator[SmallServer]:
    """The tiny Llama over HTTP, a server for each file of tests."""
    with running(open_tiny("llama")) as server:
        yield server
