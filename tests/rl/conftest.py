"""A tiny real model and rewards that are functions of the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cai.models.spec import ModelSpec
from cai.records import Item
from cai.rl.course import RLCourse, rl_course
from cai.rl.rewards import Reply
from cai.rl.settings import RLSettings
from constitution.messages import user
from tests.checkpoints import make_checkpoint


@dataclass
class TextReward:
    """Any function of a reply's text; counts its calls."""

    of: Callable[[str], Any]
    name: str = "text"
    fingerprint: str = "text"
    calls: int = 0
    closed: int = field(default=0)

    def rewards(self, replies: Sequence[Reply]) -> list[Any]:
        self.calls += 1
        return [self.of(reply.text) for reply in replies]

    def begin(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


def count_e(text: str) -> float:
    return float(text.count("e"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = make_checkpoint(tmp_path_factory.mktemp("rl") / "tiny")
    return ModelSpec(name=str(folder), dtype="float32")


@pytest.fixture
def items() -> list[Item]:
    return [Item(uid=f"i{n}", messages=(user(f"Say {n} + 2"),)) for n in range(6)]


Course = Callable[..., RLCourse]


@pytest.fixture
def course(tiny: ModelSpec, items: list[Item]) -> Course:
    def make(reward: Any = None, truth: Any = None, **settings: Any) -> RLCourse:
        chosen = {
            "reward": "a:b",
            "steps": 4,
            "prompts_per_step": 3,
            "samples_per_prompt": 3,
            "max_tokens": 8,
            "learning_rate": 5e-3,
            "warmup_steps": 0,
            "lora": {"r": 2},
            "dtype": "float32",
            **settings,
        }
        return rl_course(tiny, items, RLSettings(**chosen), reward or TextReward(count_e), truth)

    return make


@pytest.fixture
def weights() -> Callable[[Path], bytes]:
    def read(folder: Path) -> bytes:
        return (folder / "model.safetensors").read_bytes()

    return read
