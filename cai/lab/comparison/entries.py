"""What is kept of each method and seed. One JSON file each, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cai.lab.comparison.compute import Passes
from cai.lab.comparison.methods import MethodId
from cai.lab.study.cells import Answered, Divergence, Failure, Made
from cai.lab.study.recipes import Size
from cai.store import write_bytes_atomically

FOLDER = "entries"


@dataclass(frozen=True, slots=True)
class Entry:
    """One method with one seed."""

    method: MethodId
    seed: int

    def key(self, size: Size, setup: str) -> str:
        """Name of its file: the same method, seed, size and setup, and nothing else, have it."""
        content = json.dumps([self.method, size.items, size.per_behaviour, setup]).encode()
        return f"{self.method}-{hashlib.sha256(content).hexdigest()[:12]}-{self.seed}"


class EntryResult(BaseModel):
    """One method with one seed, done. `failure`: why it came to no model; then nothing was answered.

    `budget` is in tokens forward, None for the reference, which sets it; `passes` are what the way to the model took, its trial
    not counted. `prompts` were used, `rows` trained on (pairs, replies), in `steps` of the optimizer. `seconds` pass on the
    clock, `cpu_seconds` are those of all cores that this process had; both without the trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: MethodId
    seed: int
    items: int
    per_behaviour: int
    setup: str
    budget: float | None
    passes: Passes
    prompts: int
    rows: int
    steps: int
    answers: tuple[Answered, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    lost: dict[str, int] = {}
    failure: Failure = ""
    seconds: float
    cpu_seconds: float
    made: Made


def write_entry(folder: Path, key: str, result: EntryResult) -> None:
    """Durable when it returns."""
    write_bytes_atomically(folder / FOLDER / f"{key}.json", result.model_dump_json().encode())


def read_entry(folder: Path, key: str) -> EntryResult | None:
    """None where it is not done, or its file is damaged: then it is done again."""
    try:
        return EntryResult.model_validate_json((folder / FOLDER / f"{key}.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
